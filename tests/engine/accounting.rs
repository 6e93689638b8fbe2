//! What is counted, bounded and never given twice, on paths where it is easy to forget.

use bytes::Bytes;
use futures::future::join_all;
use ringcask::sim::Cut;
use ringcask::{Durability, ErrorKind, IntoValue};

use crate::support::{Store, get, wait};

const FILE_HEADER_LEN: usize = 128;
const GROUP_HEADER_LEN: usize = 48;

/// The sequence number of the first record of a data file.
fn first_seqno(store: &Store, file: &str) -> u64 {
    let at = FILE_HEADER_LEN + GROUP_HEADER_LEN + 8;
    let bytes = store.read(&format!("partition-000/{file}"));
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// F5: breaks if the numbers of records that a power cut took are given again, to other records.
#[test]
fn a_sequence_number_is_never_given_twice() {
    let store = Store::sim(0);
    let db = store.open_one();
    wait(db.put("first", "v")).unwrap();
    wait(db.close()).unwrap();
    let db = store.open_one();
    wait(db.put("lost", "v").durability(Durability::Buffered)).unwrap();
    let lost = first_seqno(&store, "000000002.data");
    let after = store.on(store.disk().power_cut(Cut::DropUnsynced));
    wait(db.close()).unwrap();

    let db = after.open_one();
    assert_eq!(get(&db, "lost"), None);
    wait(db.put("second", "v")).unwrap();
    let next = first_seqno(&after, "000000003.data");
    assert!(next > lost, "{next} after {lost}");
}

/// D1: breaks if a failed replacement of `FILES` is taken for an unknown one because the file ids known
/// in memory had moved on: a full disk would stop writes until the next open.
#[test]
fn a_full_disk_after_a_stray_file_fails_one_group_only() {
    for op in 0..8 {
        let store = Store::sim(0);
        wait(store.open_one().close()).unwrap();
        store.disk().write_file(store.path().join("partition-000/000000007.data"), b"x").unwrap();
        let db = store.open_one();
        store.disk().fail_op(store.disk().ops() + op, 28, false);
        match wait(db.put("k", "v")) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "operation {op}: {error}"),
        }
        wait(db.put("k", "v")).unwrap();
        assert!(store.data_files().iter().all(|file| !file.contains("000000007")));
        wait(db.close()).unwrap();
    }
}

/// Breaks if groups that failed count as if they had been written: retries on a full disk would fill
/// the file on paper, and a small put that still fits would wait for a rotation that cannot be.
#[test]
fn groups_that_failed_do_not_fill_the_file() {
    let store = Store::sim(0);
    let options = store.options().partitions(1).prewrite(false).data_file_len_max(64 << 10);
    let db = store.open_with(options);
    wait(db.put("k", "v")).unwrap();
    store.disk().capacity_bytes(Some(store.used_bytes() + 2000));
    for _ in 0..20 {
        let refused = wait(db.put("big", vec![1_u8; 8000])).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NoSpace);
    }
    wait(db.put("small", "v")).unwrap();
    assert_eq!(db.stats().total().rotations, 0);
    wait(db.close()).unwrap();
}

struct TwoFaced;

impl IntoValue for TwoFaced {
    fn as_value(&self) -> &[u8] {
        &[7; 5000]
    }

    fn into_bytes(self) -> Bytes {
        Bytes::from(vec![8; 6000])
    }
}

/// Breaks if length or checksum are taken from other bytes than those that are stored: one careless
/// implementation of the trait would make the whole partition unreadable.
#[test]
fn a_value_that_says_two_things_is_stored_as_one() {
    let store = Store::sim(0);
    let db = store.open_one();
    wait(db.put("k", TwoFaced)).unwrap();
    assert_eq!(get(&db, "k").unwrap(), [8; 6000][..]);
    wait(db.close()).unwrap();
    assert_eq!(get(&store.open_one(), "k").unwrap(), [8; 6000][..]);
}

/// W5: breaks if a walk over keys reads values into memory to get at them.
#[test]
fn a_walk_over_keys_reads_no_long_values() {
    let store = Store::sim(0);
    let db = store.open_one();
    for n in 0..3 {
        wait(db.put(format!("long {n}"), vec![1_u8; 12 << 20])).unwrap();
        wait(db.put(format!("short {n}"), "v")).unwrap();
    }
    let walks = (0..8).map(|_| async {
        let mut keys = db.scan().keys();
        let mut found = Vec::new();
        while let Some(key) = keys.next().await {
            found.push(key.unwrap());
        }
        found
    });
    let expected = ["long 0", "long 1", "long 2", "short 0", "short 1", "short 2"];
    for found in wait(join_all(walks)) {
        assert_eq!(found, expected);
    }
    // A page for each record, and one to find the end; the values are 36 MiB.
    let read = db.stats().total().page_bytes;
    assert!(read <= 8 * 7 * (1 << 20), "{read} bytes were read for six keys, eight times");
    wait(db.close()).unwrap();
}
