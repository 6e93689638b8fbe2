//! Time is what the clock says that the store was given, and nothing else.

use std::time::Duration;

use ringcask::sim::SimClock;
use ringcask::{Compaction, Db};

use crate::support::{Store, contents, each_disk, get, wait};

/// So many milliseconds since 1970 at this hour of a day in 2027.
fn at_hour(hour: u64) -> u64 {
    (20_800 * 24 + hour) * 3_600_000
}

/// Leaves something that counts in every file of 4 KiB, the last one included, because files without anything
/// go at any hour.
fn overwrite(db: &Db, rounds: std::ops::Range<u32>) {
    for round in rounds {
        for _ in 0..4 {
            wait(db.put("overwritten", [7_u8; 500])).unwrap();
        }
        wait(db.put(format!("kept {round}"), "v")).unwrap();
    }
}

/// Breaks if the window is judged by another clock, or by none.
#[test]
fn compaction_begins_at_the_hours_of_the_stores_clock() {
    let store = Store::sim(0);
    let clock = SimClock::new(at_hour(5));
    let options = || {
        let compaction = Compaction::new().dead_bytes(1).hours_utc(2, 4);
        let options = store.options().partitions(1).clock(clock.clone());
        options.data_file_len_max(4096).compaction(compaction)
    };
    let db = store.open_with(options());
    overwrite(&db, 0..50);
    wait(db.close()).unwrap();
    assert_eq!(db.stats().total().compactions, 0);
    clock.set(at_hour(24 + 1));
    let db = store.open_with(options());
    overwrite(&db, 50..100);
    assert_eq!(db.stats().total().compactions, 0);
    clock.advance(Duration::from_secs(3600));
    let mut round = 100;
    while db.stats().total().compactions == 0 {
        overwrite(&db, round..round + 1);
        round += 1;
        assert!(round < 20_000, "no compaction, although it is the hour");
    }
    wait(db.close()).unwrap();
}

/// Breaks if some file takes the time from elsewhere.
#[test]
fn a_store_says_when_it_was_created_by_its_clock() {
    each_disk(|store| {
        let clock = SimClock::new(1_234_567_890_123);
        let db = store.open_with(store.options().clock(clock));
        wait(db.put("k", "v")).unwrap();
        wait(db.close()).unwrap();
        let manifest = String::from_utf8(store.read("MANIFEST")).unwrap();
        assert!(manifest.contains("1234567890123"), "{manifest}");
        let file = store.read(&store.data_files()[0]);
        let time = 1_234_567_890_123_u64.to_le_bytes();
        assert!(file[..128].windows(8).any(|bytes| bytes == time));
    });
}

/// A clock that was set wrong says nothing about what is stored.
#[test]
fn a_clock_that_jumps_changes_nothing() {
    each_disk(|store| {
        let clock = SimClock::new(0);
        for wall_ms in [u64::MAX, 0, at_hour(0), 1, u64::MAX / 2] {
            let db = store.open_with(store.options().clock(clock.clone()));
            let before = contents(&db);
            clock.set(wall_ms);
            assert_eq!(contents(&db), before);
            wait(db.put(format!("{wall_ms}"), "v")).unwrap();
            assert!(get(&db, format!("{wall_ms}")).is_some());
            wait(db.close()).unwrap();
        }
        let db = store.open_with(store.options());
        assert_eq!(contents(&db).len(), 5);
        wait(db.close()).unwrap();
    });
}
