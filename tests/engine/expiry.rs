//! Keys that expire: hidden at once, gone from memory and disk by and by, and never a way back for what was
//! there before.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringcask::sim::SimClock;
use ringcask::{Compaction, Db, Durability, ErrorKind, Options, Ttl};

use crate::support::{Store, contents, each_disk, get, seed, wait};

const START_MS: u64 = 1_700_000_000_000;
const SECOND: Duration = Duration::from_secs(1);

/// One partition of small files, on a clock that stands still.
fn options(store: &Store, clock: &SimClock) -> Options {
    let options = store.options().partitions(1).workers(1).clock(clock.clone());
    options.data_file_len_max(4096).compaction(Compaction::off())
}

fn keys(db: &Db) -> Vec<String> {
    let mut keys = Vec::new();
    let mut scan = db.scan().keys();
    while let Some(key) = wait(scan.next()) {
        keys.push(String::from_utf8(key.unwrap().to_vec()).unwrap());
    }
    keys
}

/// Waits until the sweep has taken out `count` keys.
fn swept(db: &Db, count: u64) {
    while db.stats().total().expired < count {
        // Any request gives the worker a turn.
        wait(db.sync()).unwrap();
    }
}

#[test]
fn a_key_is_hidden_from_the_millisecond_on_that_it_expires() {
    each_disk(|store| {
        let clock = SimClock::new(START_MS);
        let db = store.open_with(options(store, &clock));
        wait(db.put("brief", "1").ttl(10 * SECOND)).unwrap();
        wait(db.put("stays", "2")).unwrap();
        clock.advance(Duration::from_millis(9_999));
        assert_eq!(get(&db, "brief").unwrap(), "1");
        assert_eq!(wait(db.ttl("brief")).unwrap(), Ttl::Left(Duration::from_millis(1)));
        let at = UNIX_EPOCH + Duration::from_millis(START_MS) + 10 * SECOND;
        assert_eq!(wait(db.entry("brief")).unwrap().unwrap().expires_at, Some(at));
        assert_eq!(keys(&db), ["brief", "stays"]);

        clock.advance(Duration::from_millis(1));
        assert_eq!(get(&db, "brief"), None);
        assert!(!wait(db.contains_key("brief")).unwrap());
        assert_eq!(wait(db.get_many(["brief", "stays"])).unwrap()[0], None);
        assert_eq!(wait(db.ttl("brief")).unwrap(), Ttl::Missing);
        assert_eq!(wait(db.entry("brief")).unwrap(), None);
        assert_eq!(keys(&db), ["stays"]);
        assert_eq!(contents(&db).len(), 1);
        assert!(!wait(db.put_if_present("brief", "no")).unwrap());
        assert!(!wait(db.expire("brief", SECOND)).unwrap());
        assert!(!wait(db.persist("brief")).unwrap());
        assert!(!wait(db.del("brief")).unwrap());
        assert_eq!(wait(db.get_and_del("brief")).unwrap(), None);
        swept(&db, 1);
        assert_eq!(db.stats().total().keys, 1);
        assert_eq!(db.stats().total().keys_mortal, 0);
        assert!(wait(db.put_if_absent("brief", "again")).unwrap());
        wait(db.close()).unwrap();
        let db = store.open_with(options(store, &clock));
        assert_eq!(get(&db, "brief").unwrap(), "again");
        wait(db.close()).unwrap();
    });
}

/// Breaks if a value keeps or loses its time to live where it should not.
#[test]
fn every_verb_says_what_becomes_of_the_time_to_live() {
    let store = Store::sim(seed());
    let clock = SimClock::new(START_MS);
    let db = store.open_with(options(&store, &clock).default_ttl(60 * SECOND));
    wait(async {
        let left = |seconds: u32| Ttl::Left(seconds * SECOND);
        db.put("k", "1").await?;
        assert_eq!(db.ttl("k").await?, left(60));
        db.put("k", "1").forever().await?;
        assert_eq!(db.ttl("k").await?, Ttl::Forever);
        assert!(!db.persist("k").await?);
        assert_eq!(db.incr("k", 1).await?, 2);
        assert_eq!(db.ttl("k").await?, Ttl::Forever);
        db.put("k", "1").ttl(5 * SECOND).await?;
        db.incr("k", 1).await?;
        db.append("k", "0").await?;
        assert_eq!(db.ttl("k").await?, left(5));
        assert_eq!(db.incr("k", 1).ttl(7 * SECOND).await?, 21);
        assert_eq!(db.ttl("k").await?, left(7));
        assert_eq!(db.incr("new", 1).await?, 1);
        assert_eq!(db.ttl("new").await?, left(60));
        db.get_and_put("k", "2").await?;
        assert_eq!(db.ttl("k").await?, left(60));
        assert!(db.expire("k", 9 * SECOND).await?);
        assert_eq!(db.ttl("k").await?, left(9));
        assert!(db.compare_and_swap("k", "2", "3").ttl(SECOND).await?.is_done());
        assert_eq!(db.ttl("k").await?, left(1));
        assert!(db.persist("k").await?);
        assert_eq!(db.ttl("k").await?, Ttl::Forever);
        let at = UNIX_EPOCH + Duration::from_millis(START_MS) + 11 * SECOND;
        assert!(db.expire_at("k", at).await?);
        assert_eq!(db.ttl("k").await?, left(11));
        assert_eq!(db.get("k").await?.unwrap(), "3");
        assert!(db.expire_at("k", UNIX_EPOCH).await?);
        assert_eq!(db.get("k").await?, None);
        assert_eq!(db.ttl("k").await?, Ttl::Missing);

        // Neither a wrap nor a surprise.
        for ttl in [Duration::ZERO, Duration::MAX, Duration::from_secs(u64::MAX)] {
            let errors = [
                db.put("k", "v").ttl(ttl).await.map(drop),
                db.put_if_absent("k", "v").ttl(ttl).await.map(drop),
                db.expire("new", ttl).await.map(drop),
            ];
            for error in errors {
                assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidArgument, "{ttl:?}");
            }
        }
        assert_eq!(db.get("k").await?, None);
        assert!(db.expire_at("new", SystemTime::now() + Duration::from_secs(1 << 40)).await?);
        db.put("long", "v").ttl(Duration::from_nanos(1)).await?;
        assert_eq!(db.ttl("long").await?, Ttl::Left(Duration::from_millis(1)));
        db.close().await
    })
    .unwrap();
}

/// Breaks if what expired lets an older value through: a file that was loaded before it, a compaction that
/// dropped it too early, a hint that does not know of it, a sweep that forgot it.
#[test]
fn an_expired_key_keeps_hiding_what_was_there_before() {
    let seed = seed();
    for variant in 0..64_u32 {
        let has = |bit: u32| variant & (1 << bit) != 0;
        let store = Store::sim(seed);
        let clock = SimClock::new(START_MS);
        let mut db = store.open_with(options(&store, &clock));
        wait(db.put("k", "v1")).unwrap();
        wait(db.put("other", vec![1; 5000])).unwrap(); // The next record goes into another file.
        wait(db.put("k", "v2").ttl(SECOND)).unwrap();
        wait(db.put("other", vec![2; 5000])).unwrap();
        if has(0) {
            // Written anew, into a third file.
            assert!(wait(db.expire("k", 2 * SECOND)).unwrap());
            wait(db.put("other", vec![3; 5000])).unwrap();
        }
        let reopen = |db: Db| {
            wait(db.close()).unwrap();
            if has(1) {
                store.spoil_hints();
            }
            store.open_with(options(&store, &clock))
        };
        if has(2) {
            db = reopen(db);
        }
        clock.advance(5 * SECOND);
        assert_eq!(get(&db, "k"), None);
        if has(3) {
            swept(&db, 1);
        }
        if has(4) {
            // Only the file with the expired record: the older one is still there.
            let _nothing_to_gain = wait(db.compact_files(0, &[3]));
            let _nothing_to_gain = wait(db.compact_files(0, &[5]));
        }
        assert_eq!(get(&db, "k"), None, "variant {variant:b}");
        db = reopen(db);
        assert_eq!(get(&db, "k"), None, "variant {variant:b}, reopened");
        if has(5) {
            wait(db.compact()).unwrap();
            db = reopen(db);
            assert_eq!(get(&db, "k"), None, "variant {variant:b}, compacted and reopened");
        }
        assert_eq!(keys(&db), ["other"]);
        wait(db.close()).unwrap();
    }
}

/// What has expired is no longer anybody's: its space comes back, all of it.
#[test]
fn compaction_gives_back_what_has_expired() {
    let store = Store::sim(seed());
    let clock = SimClock::new(START_MS);
    let db = store.open_with(options(&store, &clock));
    for n in 0..200 {
        wait(db.put(format!("{n}"), vec![1; 100]).ttl((1 + n % 2) * 10 * SECOND)).unwrap();
    }
    wait(db.put("stays", "v")).unwrap();
    clock.advance(10 * SECOND);
    swept(&db, 100);
    let before = db.stats().total();
    assert_eq!((before.keys, before.keys_mortal), (101, 100));
    // Again, because a compaction that was under way by itself may have left a tombstone in its output.
    wait(db.compact()).unwrap();
    wait(db.compact()).unwrap();
    let after = db.stats().total();
    assert!(after.log_bytes < before.log_bytes * 6 / 10, "{before:?} {after:?}");
    assert_eq!((after.shadow_bytes, after.dead_bytes, after.live_bytes), (0, 0, before.live_bytes));
    clock.advance(10 * SECOND);
    swept(&db, 200);
    wait(db.compact()).unwrap();
    assert_eq!(db.stats().total().files, 1);
    assert_eq!(keys(&db), ["stays"]);
    wait(db.close()).unwrap();
}

/// K5: the same after a reopen, whether the sweep came by before or not, with hints or without.
#[test]
fn live_bytes_are_the_same_after_a_reopen() {
    for variant in 0..4 {
        let store = Store::sim(seed());
        let clock = SimClock::new(START_MS);
        let db = store.open_with(options(&store, &clock));
        for n in 0..100 {
            wait(db.put(format!("{}", n % 60), vec![1; 90]).ttl((1 + n % 7) * SECOND)).unwrap();
        }
        clock.advance(4 * SECOND);
        swept(&db, 1);
        while db.stats().total().keys > 30 && variant >= 2 {
            wait(db.sync()).unwrap();
        }
        let found = keys(&db);
        wait(db.close()).unwrap();
        let before = db.stats().total();
        if variant % 2 == 1 {
            store.spoil_hints();
        }
        let db = store.open_with(options(&store, &clock));
        let after = db.stats().total();
        assert_eq!(keys(&db), found);
        assert_eq!(after.keys as usize, found.len());
        if before.keys == after.keys {
            assert_eq!(
                (after.live_bytes, after.keys_mortal),
                (before.live_bytes, before.keys_mortal)
            );
        }
        wait(db.close()).unwrap();
    }
}

/// A put and an expiry of the same key at the same time: whichever is last counts, and never an older value.
#[test]
fn an_expiry_beside_a_put_never_brings_back_the_older_value() {
    each_disk(|store| {
        let clock = SimClock::new(START_MS);
        let options = options(store, &clock).durability(Durability::Buffered);
        let db = store.open_with(options.compaction(Compaction::new().dead_ratio(0.1)));
        let rounds = 200_u32;
        for round in 0..rounds {
            let (value, before) = (format!("{round}"), format!("{}", round.wrapping_sub(1)));
            let (put, expired) = wait(async {
                let later = db.expire("k", SECOND);
                if round % 2 == 0 {
                    futures::join!(db.put("k", &value), later)
                } else {
                    let (expired, put) = futures::join!(later, db.put("k", &value));
                    (put, expired)
                }
            });
            put.unwrap();
            expired.unwrap();
            assert_eq!(get(&db, "k").unwrap(), value);
            clock.advance(2 * SECOND);
            let found = get(&db, "k");
            assert!(found.is_none() || found.as_deref() == Some(value.as_bytes()), "{before}");
        }
        wait(db.close()).unwrap();
    });
}

/// T1: a clock that stands still, or is set back, brings nothing back; one that jumps ahead hides what it
/// must and deletes nothing, so that setting it right loses nothing.
#[test]
fn a_wrong_clock_brings_nothing_back_and_deletes_nothing() {
    let store = Store::sim(seed());
    let clock = SimClock::new(START_MS);
    let compacting = options(&store, &clock).compaction(Compaction::new().dead_ratio(0.01));
    let db = store.open_with(compacting);
    for n in 0..50 {
        wait(db.put(format!("soon {n}"), vec![1; 100]).ttl(60 * SECOND)).unwrap();
        wait(db.put(format!("late {n}"), vec![1; 100]).ttl(7200 * SECOND)).unwrap();
    }
    clock.advance(100 * SECOND);
    assert_eq!(keys(&db).len(), 50);
    swept(&db, 50);
    // Set back by an hour: the boot clock knows better.
    clock.set(START_MS + 100_000 - 3_600_000);
    assert_eq!(keys(&db).len(), 50);
    assert_eq!(get(&db, "soon 1"), None);
    wait(db.put("new", "v").ttl(SECOND)).unwrap();
    clock.advance(SECOND);
    assert_eq!(get(&db, "new"), None, "what expires while the clock is wrong");

    // Ahead by ten hours: hidden, and neither taken out nor compacted away.
    clock.set(START_MS + 36_000_000);
    assert_eq!(keys(&db).len(), 0);
    wait(db.compact()).unwrap();
    assert_eq!(db.stats().total().expired, 50);
    clock.set(START_MS + 101_000);
    wait(db.close()).unwrap();
    let db = store.open_with(options(&store, &clock));
    let late: Vec<_> = keys(&db).into_iter().filter(|key| key.starts_with("late")).collect();
    assert_eq!(late.len(), 50);
    wait(db.close()).unwrap();
}
