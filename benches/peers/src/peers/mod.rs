//! The stores, each tuned as its own documentation advises.

mod bitask;
mod candystore;
mod feoxdb;
mod fjall;
mod lmdb;
mod redb;
mod ringcask;
mod rocksdb;
mod sled;

use crate::peer::{Class, Open};
use crate::rows::Row;

/// Bytes of memory for what was read, of each store that has room for it: more than the data of any row.
const CACHE_LEN: usize = 4 << 30;

/// With its defaults, and in two ways with as much memory for what is read as its peers are given: for records that were
/// read, and for files that are locked in memory.
pub const OURS: [&str; 3] = ["ringcask", "ringcask-cached", "ringcask-locked"];

pub const NAMES: [&str; 11] = [
    "ringcask",
    "ringcask-cached",
    "ringcask-locked",
    "rocksdb",
    "lmdb",
    "fjall",
    "redb",
    "sled",
    "feoxdb",
    "candystore",
    "bitask",
];

/// How a store is opened.
pub fn open_of(name: &str) -> Open {
    match name {
        "ringcask" => ringcask::open,
        "ringcask-cached" => ringcask::open_cached,
        "ringcask-locked" => ringcask::open_locked,
        "rocksdb" => rocksdb::open,
        "lmdb" => lmdb::open,
        "fjall" => fjall::open,
        "redb" => redb::open,
        "sled" => sled::open,
        "feoxdb" => feoxdb::open,
        "candystore" => candystore::open,
        "bitask" => bitask::open,
        _ => unreachable!("`NAMES` has the others"),
    }
}

/// Whether the store can acknowledge each write in this way.
fn has_class(name: &str, class: Class) -> bool {
    // By strace: bitask never syncs, and sled's flush is a sync_file_range, which neither makes a file's new length
    // durable nor empties the drive's cache.
    !["bitask", "sled"].contains(&name) || class == Class::Buffered
}

/// Whether the store has a part in a row.
pub fn takes_part(name: &str, row: &Row) -> bool {
    // What is read once, or never, is the same with a cache and without.
    has_class(name, row.class)
        && match name {
            "ringcask-cached" => row.is_read_again(),
            "ringcask-locked" => row.is_read(),
            _ => true,
        }
}

/// Whether the store is left out of a row, and why.
pub fn left_out(name: &str, records: u64) -> Option<&'static str> {
    // One caller at a time, through a lock, and an index that is compared with nobody's at millions of keys.
    (name == "bitask" && records > 1_000_000).then_some("opens and reads one file after the other")
}
