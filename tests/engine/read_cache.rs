//! Records that were read are kept in memory, and never say what is not so any more.

use std::time::Duration;

use ringcask::Options;
use ringcask::sim::SimClock;

use crate::support::{EIO, Store, contents, each_disk, get, wait};

const ROOM: u64 = 1 << 20;

fn cached(store: &Store) -> Options {
    store.options().partitions(2).data_file_len_max(16 << 10).read_cache_bytes(ROOM)
}

/// Breaks if what was read once is read from the disk again.
#[test]
fn what_was_read_is_read_from_memory() {
    let store = Store::sim(7);
    let db = store.open_with(cached(&store));
    for n in 0..50 {
        wait(db.put(format!("key {n}"), format!("value {n}"))).unwrap();
    }
    let before = contents(&db);
    let reads = store.disk().reads();
    store.disk().fail_read(reads, EIO, true);
    // By a scan, by gets, and by a get of many.
    assert_eq!(contents(&db), before);
    let keys: Vec<_> = (0..50).map(|n| format!("key {n}")).collect();
    for (n, value) in wait(db.get_many(&keys)).unwrap().into_iter().enumerate() {
        assert_eq!(value.unwrap(), format!("value {n}"));
        assert_eq!(get(&db, format!("key {n}")).unwrap(), format!("value {n}"));
    }
    let stats = db.stats();
    assert_eq!(stats.read_cache_hits, 150);
    assert_eq!(stats.total().gets, stats.total().gets_hop_free);
    wait(db.close()).unwrap();
}

/// Breaks if a record is believed because it is in memory.
#[test]
fn what_is_gone_is_not_there_because_it_was_read() {
    each_disk(|store| {
        let clock = SimClock::new(1_800_000_000_000);
        let db = store.open_with(cached(store).clock(clock.clone()));
        let keys = ["written again", "deleted", "in a range", "expired", "moved"];
        for round in 0..20 {
            for key in keys {
                wait(db.put(key, format!("{key} {round}")).ttl(Duration::from_secs(60))).unwrap();
                assert_eq!(get(&db, key).unwrap(), format!("{key} {round}"));
            }
            let snapshot = wait(db.snapshot()).unwrap();
            wait(db.put("written again", "anew")).unwrap();
            assert!(wait(db.del("deleted")).unwrap());
            wait(db.delete_range("in".."in a s")).unwrap();
            wait(db.persist("moved")).unwrap();
            wait(db.compact()).unwrap();
            assert_eq!(get(&db, "written again").unwrap(), "anew");
            assert_eq!(get(&db, "deleted"), None);
            assert_eq!(get(&db, "in a range"), None);
            assert!(get(&db, "expired").is_some());
            clock.advance(Duration::from_secs(61));
            assert_eq!(get(&db, "expired"), None);
            assert_eq!(get(&db, "moved").unwrap(), format!("moved {round}"));
            // Who looks back sees what was, from memory or not.
            let then = wait(snapshot.get("deleted")).unwrap().unwrap();
            assert_eq!(then, format!("deleted {round}"));
        }
        wait(db.close()).unwrap();
    });
}

/// Breaks if the bound is not kept, or nothing is what it begins with.
#[test]
fn it_takes_what_it_may() {
    each_disk(|store| {
        let db = store.open_with(cached(store));
        for n in 0..1000 {
            wait(db.put(format!("key {n}"), vec![7; 4000])).unwrap();
        }
        contents(&db);
        let taken = db.stats().read_cache_bytes;
        assert!(taken > ROOM / 2 && taken <= ROOM, "{taken}");
        wait(db.close()).unwrap();

        // Room that no machine has is not taken before there is something to keep.
        let db = store.open_with(cached(store).read_cache_bytes(u64::MAX));
        let before = contents(&db);
        assert_eq!(contents(&db), before);
        assert_eq!(db.stats().read_cache_hits, 1000);
        wait(db.close()).unwrap();

        let db = store.open();
        contents(&db);
        assert_eq!((db.stats().read_cache_bytes, db.stats().read_cache_hits), (0, 0));
        wait(db.close()).unwrap();
    });
}
