//! A store in memory: the same API, no disk, and memory that comes back. What the verbs do is the model's to test.

use ringcask::{Durability, ErrorKind, Eviction, Io, Memory, Options};

use crate::support::{contents, get, wait};

fn options(memory: &Memory) -> Options {
    Options::new().pin_workers(false).partitions(2).io(Io::Memory(memory.clone()))
}

#[test]
fn nothing_is_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let db = wait(Options::new().in_memory().open(&path)).unwrap();
    assert_eq!(db.stats().io, "memory");
    assert_eq!(db.path(), path);
    wait(db.put("k", "v").durability(Durability::Sync)).unwrap();
    wait(db.sync()).unwrap();
    assert_eq!(get(&db, "k").as_deref(), Some(b"v".as_slice()));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    wait(db.close()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_closed_store_is_there_as_long_as_its_memory() {
    let memory = Memory::new();
    let open = |path: &str| wait(options(&memory).open(path)).unwrap();
    let [one, other] = [open("/memory-one"), open("/memory-other")];
    wait(one.put("k", "one")).unwrap();
    wait(other.put("k", "other")).unwrap();
    let refused = wait(options(&memory).open("/memory-one")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked);
    wait(one.close()).unwrap();
    let one = open("/memory-one");
    assert_eq!(get(&one, "k").as_deref(), Some(b"one".as_slice()));
    assert_eq!(get(&other, "k").as_deref(), Some(b"other".as_slice()));
    let elsewhere = wait(options(&Memory::new()).open("/memory-one")).unwrap();
    assert_eq!(get(&elsewhere, "k"), None);
    for db in [one, other, elsewhere] {
        wait(db.close()).unwrap();
    }
}

/// Breaks if a file's bytes outlive its name, or if space is written ahead or kept in reserve where that is worth
/// nothing.
#[test]
fn memory_comes_back_with_compaction() {
    let memory = Memory::new();
    let db = wait(options(&memory).data_file_len_max(1 << 20).open("/memory")).unwrap();
    for round in 0..8 {
        for key in 0..64_u32 {
            wait(db.put(key.to_le_bytes(), vec![round; 16 << 10])).unwrap();
        }
    }
    let live = db.stats().total().live_bytes;
    assert!(live > 64 * (16 << 10));
    wait(db.compact()).unwrap();
    // What was compacted is let go of a little later.
    while db.stats().total().log_bytes > 2 * live || memory.used_bytes() > 4 * live {
        std::thread::yield_now();
    }
    assert_eq!(contents(&db).len(), 64);
    wait(db.clear()).unwrap();
    wait(db.compact()).unwrap();
    while memory.used_bytes() > live {
        std::thread::yield_now();
        wait(db.compact()).unwrap();
    }
    wait(db.close()).unwrap();
}

#[test]
fn a_cache_holds_what_it_may() {
    let options = Options::new().in_memory().partitions(1).bytes_max(1 << 20);
    let db = wait(options.eviction(Eviction::Lru).open("cache")).unwrap();
    for key in 0..4096_u32 {
        wait(db.put(key.to_le_bytes(), vec![7; 1024])).unwrap();
    }
    let total = db.stats().total();
    assert!(total.live_bytes <= 1 << 20 && total.keys > 500, "{total:?}");
    assert!(get(&db, 4095_u32.to_le_bytes()).is_some());
    wait(db.close()).unwrap();
}

/// Breaks if a backup of what is in memory is in memory too, and gone with it.
#[test]
fn a_backup_is_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("backup");
    let db = wait(options(&Memory::new()).open("/memory")).unwrap();
    wait(db.put("k", "v")).unwrap();
    assert!(!wait(db.backup(&to)).unwrap().is_incremental);
    wait(db.put("k", "later")).unwrap();
    wait(db.put("other", "v")).unwrap();
    assert!(wait(db.backup(&to)).unwrap().is_incremental);
    wait(db.del("k")).unwrap();
    wait(db.close()).unwrap();
    let db = wait(Options::new().open(&to)).unwrap();
    assert_eq!(get(&db, "k").as_deref(), Some(b"later".as_slice()));
    assert_eq!(get(&db, "other").as_deref(), Some(b"v".as_slice()));
    wait(db.close()).unwrap();
}
