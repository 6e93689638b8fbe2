//! How much memory a scan over many keys takes; a binary of its own, because the peak is counted for the whole
//! process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;
use std::time::Duration;

use futures::executor::block_on as wait;
use futures::future::join_all;
use peak_alloc::PeakAlloc;
use ringcask::{Compaction, Db, Durability, Options, Scan};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const KEYS: u32 = 400_000;
/// Ninety-nine bytes for each key.
const PAD: &str =
    "a part of a key that is long enough to show in the sum if anybody keeps all of them somewhere";
/// A block for each of some forty files, a page of keys, the first values; and what is read ahead of the hints of two
/// partitions, while upkeep merges them. All keys would be 40 MiB.
const GROWTH_MAX: usize = 12 << 20;

fn key(n: u32) -> String {
    format!("{n:06}{PAD}")
}

/// The most memory that was in use beyond what is in use now.
fn growth(run: impl FnOnce()) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    run();
    MEMORY.peak_usage() - before
}

fn check(db: &Db, what: &str, scan: impl Fn() -> Scan) {
    let bounds = [
        growth(|| {
            let mut keys = scan().keys();
            let mut count = 0;
            while let Some(key) = wait(keys.next()) {
                assert_eq!(key.unwrap().len(), key_len());
                count += 1;
            }
            assert_eq!(count, KEYS);
        }),
        growth(|| {
            let mut entries = scan();
            let mut count = 0;
            while let Some(entry) = wait(entries.next()) {
                assert_eq!(entry.unwrap().1, "v");
                count += 1;
            }
            assert_eq!(count, KEYS);
        }),
        growth(|| assert_eq!(wait(db.count()).unwrap(), u64::from(KEYS))),
    ];
    println!("{what}: {bounds:?} bytes more");
    assert!(bounds.iter().all(|growth| *growth < GROWTH_MAX), "{what}: {bounds:?} bytes");
}

/// How many files of a kind the partitions have.
fn files(store: &Path, extension: &str) -> usize {
    let dirs =
        ["partition-000", "partition-001"].map(|dir| std::fs::read_dir(store.join(dir)).unwrap());
    let names = dirs.into_iter().flatten().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|found| found == extension)).count()
}

fn key_len() -> usize {
    key(0).len()
}

/// Breaks if any kind of scan collects keys, or a cursor holds more of a file than a block.
#[test]
fn a_scan_takes_no_more_memory_for_more_keys() {
    let dir = tempfile::tempdir().unwrap();
    let options = || {
        let options = Options::new().partitions(2).data_file_records_max(10_000);
        options.durability(Durability::Buffered).compaction(Compaction::off())
    };
    let db = wait(options().open(dir.path())).unwrap();
    for start in (0..KEYS).step_by(1000) {
        // Every file has keys from everywhere.
        let puts = (start..start + 1000).map(|n| db.put(key(n * 7919 % KEYS), "v"));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
    }
    wait(db.close()).unwrap();
    let db = wait(options().open(dir.path())).unwrap();
    // The keys of a file that has no hint yet are kept, compressed.
    while files(dir.path(), "hint") < files(dir.path(), "data") {
        std::thread::sleep(Duration::from_millis(10));
    }
    check(&db, "forwards", || db.scan());
    check(&db, "backwards", || db.scan().reverse());
    wait(db.close()).unwrap();
}
