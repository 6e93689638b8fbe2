//! What was acknowledged survives: killed processes, power cuts at any operation, recovery that is
//! cut short as well.

use futures::future::join_all;
use ringcask::sim::{Cut, SimDisk};
use ringcask::{Db, Durability, Options};

use crate::support::{Oracle, Store, bytes_of, contents, get, seed, wait};

/// Batches of concurrent writes over a few keys, with rotations, deletions and syncs. Goes on after
/// errors; the oracle learns what was acknowledged.
fn workload(db: &Db, oracle: &mut Oracle, random: &mut fastrand::Rng, batches: usize) {
    for batch in 0..batches {
        let mut keys: Vec<u32> = (0..12).collect();
        random.shuffle(&mut keys);
        keys.truncate(random.usize(1..=4));
        let mut writes = Vec::new();
        for key in keys {
            let key = format!("key {key}").into_bytes();
            let durable = random.u8(..3) > 0;
            let value = (random.u8(..5) > 0).then(|| {
                let len_max = if random.u8(..8) == 0 { 6000 } else { 500 };
                let len = random.usize(..len_max);
                bytes_of(random, len)
            });
            oracle.attempt(&key, value.as_deref());
            writes.push(async move {
                let answer = match value {
                    None => db.del(&key).await.map(|_| true),
                    Some(value) => {
                        let durability =
                            if durable { Durability::Sync } else { Durability::Buffered };
                        db.put(&key, value).durability(durability).await.map(|()| durable)
                    }
                };
                (key, answer)
            });
        }
        for (key, answer) in wait(join_all(writes)) {
            if let Ok(durable) = answer {
                oracle.acknowledge(&key, durable);
            }
        }
        if batch % 10 == 9 && wait(db.sync()).is_ok() {
            oracle.all_durable();
        }
    }
}

fn options(store: &Store, seed: u64) -> Options {
    let options = store.options().partitions(2).workers(1).data_file_len_max(4096);
    options.prewrite(!seed.is_multiple_of(3)).durability(Durability::Sync)
}

/// Opens what is left, or says what could not be opened.
fn recover(store: &Store, disk: SimDisk, what: &str) -> Db {
    let store = store.on(disk);
    let opened = store.try_open(store.options().data_file_len_max(4096).workers(1));
    opened.unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn policies(seed: u64) -> [Cut; 4] {
    let random = |n: u64| Cut::Random { seed: seed.wrapping_mul(31).wrapping_add(n) };
    [Cut::DropUnsynced, Cut::KeepAll, random(1), random(2)]
}

/// As above with other seeds and random moments, killed as well: what one workload never does,
/// another may.
#[test]
fn crashes_at_random_moments_lose_nothing_durable() {
    let seed = seed();
    let random = &mut fastrand::Rng::with_seed(seed);
    for round in 0..150 {
        let seed = random.u64(..);
        let store = Store::sim(seed);
        let mut oracle = Oracle::default();
        let db = store.open_with(options(&store, seed));
        workload(&db, &mut oracle, random, 8);
        // Buffered writes are lost in a power cut, kept when killed: two ways to look at one moment.
        store.disk().crash_at(store.disk().ops() + random.u64(..60));
        store.disk().short_transfers(f64::from(round % 3) * 0.3);
        workload(&db, &mut oracle, random, 12);
        for cut in 0..4 {
            let policy = Cut::Random { seed: random.u64(..) };
            let what = format!("round {round}, seed {seed}, cut {cut}");
            let db = recover(&store, store.disk().power_cut(policy), &what);
            oracle.check(&db, &what);
        }
        let mut killed = oracle.clone();
        killed.all_durable();
        let what = format!("round {round}, seed {seed}, killed");
        killed.check(&recover(&store, store.disk().kill(), &what), &what);
        drop(db);
    }
}

/// A second crash, and a third, each after a few more writes: what one recovery left must be good
/// enough for the next.
#[test]
fn crash_after_crash_loses_nothing_durable() {
    let seed = seed();
    let random = &mut fastrand::Rng::with_seed(seed);
    for round in 0..15 {
        let mut store = Store::sim(random.u64(..));
        let mut oracle = Oracle::default();
        for crash in 0..8 {
            let what = format!("round {round}, crash {crash} opened");
            if random.u8(..3) == 0 {
                // In the middle of an open, or of what upkeep does right after it.
                store.disk().crash_at(random.u64(..60));
                drop(store.try_open(options(&store, round)));
            } else {
                let db = store.open_with(options(&store, round));
                oracle.check(&db, &what);
                oracle.settle(&db);
                store.disk().crash_at(store.disk().ops() + random.u64(..150));
                workload(&db, &mut oracle, random, 12);
            }
            let policy = Cut::Random { seed: random.u64(..) };
            let is_killed = random.u8(..4) == 0;
            let disk = store.disk();
            store = store.on(if is_killed { disk.kill() } else { disk.power_cut(policy) });
            let what = format!("{what}, killed: {is_killed}, {policy:?}");
            let mut after = oracle.clone();
            if is_killed {
                after.all_durable();
            }
            after.check(&recover(&store, store.disk().kill(), &what), &what);
            // The next crash may come before recovery is through, and then the page cache is lost.
            oracle.forget_acknowledgements();
        }
    }
}

/// A DSYNC write makes only its own range durable: acknowledged alone, it would stand behind a hole
/// (W2).
#[test]
fn a_durable_put_takes_everything_before_it_along() {
    for (buffered, len) in [(1, 4 << 20), (400, 10 << 10), (3, 100), (5000, 10)] {
        for prewrite in [true, false] {
            let store = Store::sim(seed());
            let db = store.open_with(store.options().partitions(1).prewrite(prewrite));
            // Small durable ones first, so that zeros are there to write into.
            for n in 0..30 {
                wait(db.put(format!("first {n}"), "v")).unwrap();
            }
            let puts = (0..buffered).map(|n| {
                db.put(format!("buffered {n}"), vec![1; len]).durability(Durability::Buffered)
            });
            assert!(wait(join_all(puts)).iter().all(Result::is_ok));
            wait(db.put("durable", "v").durability(Durability::Sync)).unwrap();
            for policy in policies(1) {
                let db = recover(&store, store.disk().power_cut(policy), "W2");
                assert_eq!(db.stats().total().keys, 31 + buffered);
                assert_eq!(get(&db, "durable").unwrap(), "v");
            }
            wait(db.close()).unwrap();
        }
    }
}

/// Nothing in a newer file counts before the older one is durable (W4): what a power cut leaves of
/// buffered writes is the beginning of them, however many files they filled.
#[test]
fn buffered_writes_survive_as_a_beginning() {
    let seed = seed();
    let random = &mut fastrand::Rng::with_seed(seed);
    for durability in
        [Durability::Buffered, Durability::Interval(std::time::Duration::from_hours(1))]
    {
        for round in 0..40 {
            let store = Store::sim(random.u64(..));
            let options = store.options().partitions(1).data_file_len_max(4096);
            let db = store.open_with(options.durability(durability));
            let values: Vec<_> = (0..40)
                .map(|_| {
                    let len = random.usize(..900);
                    bytes_of(random, len)
                })
                .collect();
            store.disk().crash_at(store.disk().ops() + 10 + random.u64(..100));
            let mut acknowledged = 0;
            for (n, value) in values.iter().enumerate() {
                if wait(db.put(format!("{n:03}"), value)).is_ok() {
                    assert_eq!(n, acknowledged, "a gap in what was acknowledged");
                    acknowledged += 1;
                }
            }
            for policy in policies(random.u64(..)) {
                let db = recover(&store, store.disk().power_cut(policy), "W4");
                let found = contents(&db);
                for (n, (key, value)) in found.iter().enumerate() {
                    assert_eq!(key, format!("{n:03}").as_bytes(), "round {round}, {policy:?}");
                    assert_eq!(value, &values[n]);
                }
                assert!(found.len() <= acknowledged + 1);
            }
            let killed = recover(&store, store.disk().kill(), "killed");
            assert!(killed.stats().total().keys as usize >= acknowledged);
            drop(db);
        }
    }
}

/// Each write has the durability it was given, whatever the store was opened with.
#[test]
fn a_put_may_choose_its_own_durability() {
    let store = Store::sim(seed());
    let db = store
        .open_with(store.options().partitions(8).durability(Durability::Buffered).prewrite(false));
    let survivors = || {
        let db = recover(&store, store.disk().power_cut(Cut::DropUnsynced), "cut");
        contents(&db).into_keys().map(|key| String::from_utf8(key).unwrap()).collect::<Vec<_>>()
    };
    for n in 0..30 {
        let key = format!("{n}");
        wait(db.put(&key, "v")).unwrap();
        assert!(!survivors().contains(&key), "buffered, and not more than that");
        wait(db.put(&key, "w").durability(Durability::Sync)).unwrap();
        assert!(survivors().contains(&key));
    }
    wait(db.close()).unwrap();
}

/// `sync` is the promise that batch loaders rely on, close and drop make it too.
#[test]
fn sync_close_and_drop_make_everything_durable() {
    for way in ["sync", "close", "drop"] {
        let store = Store::sim(seed());
        let options = store.options().partitions(3).data_file_len_max(8 << 10);
        let db = store.open_with(options.durability(Durability::Buffered));
        let puts = (0..200).map(|n| db.put(format!("{n}"), vec![1; 200]));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
        assert!(wait(db.del("7")).unwrap());
        match way {
            "sync" => wait(db.sync()).unwrap(),
            "close" => wait(db.close()).unwrap(),
            _ => {
                drop(db);
                // Opening waits for the instance that closes.
                wait(store.open().close()).unwrap();
            }
        }
        for policy in policies(3) {
            let db = recover(&store, store.disk().power_cut(policy), way);
            assert_eq!(db.stats().total().keys, 199, "{way}, {policy:?}");
        }
    }
}

/// Breaks if the timer of `Interval` does not reach a worker that sleeps.
#[test]
fn an_interval_syncs_without_being_asked() {
    let store = Store::sim(seed());
    let interval = Durability::Interval(std::time::Duration::from_millis(1));
    let db = store.open_with(store.options().partitions(2).durability(interval));
    for n in 0..10 {
        wait(db.put(format!("{n}"), "v")).unwrap();
    }
    loop {
        let db = recover(&store, store.disk().power_cut(Cut::DropUnsynced), "interval");
        if db.stats().total().keys == 10 {
            break;
        }
        std::thread::yield_now();
    }
    wait(db.close()).unwrap();
}

/// "It is gone" is a promise too: a deletion that is acknowledged stays done, also when the key was
/// missing because of a deletion that was not durable yet.
#[test]
fn an_acknowledged_deletion_survives_a_power_cut() {
    let store = Store::sim(seed());
    let db = store.open_with(store.options().partitions(1).durability(Durability::Sync));
    for n in 0..20 {
        let key = format!("{n}");
        wait(db.put(&key, "v")).unwrap();
        assert!(wait(db.del(&key)).unwrap());
        assert!(!wait(db.del(&key)).unwrap());
        for policy in policies(n) {
            let db = recover(&store, store.disk().power_cut(policy), "deleted");
            assert_eq!(get(&db, &key), None);
        }
    }
    wait(db.close()).unwrap();
}

/// A store that was killed while it was created looks finished to the next process, though a power cut
/// could still take its names away, and with them whatever was written since.
#[test]
fn a_creation_that_was_killed_is_made_durable_before_it_is_used() {
    let seed = seed();
    for crash_at in 0.. {
        let store = Store::sim(seed);
        store.disk().crash_at(crash_at);
        if let Ok(db) = store.try_open(store.options().partitions(2)) {
            wait(db.close()).unwrap();
        }
        let killed = store.on(store.disk().kill());
        let db = killed.open();
        wait(db.put("k", "v")).unwrap();
        let cut = recover(&killed, killed.disk().power_cut(Cut::DropUnsynced), "cut");
        assert_eq!(get(&cut, "k").unwrap(), "v", "crashed at {crash_at}");
        if !store.disk().crashed() {
            assert!(crash_at > 10);
            break;
        }
    }
}
