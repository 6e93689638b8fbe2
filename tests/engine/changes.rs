//! The change feed: a copy made of it is the store, only durable records are told, and what is lost is said.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use ringcask::sim::{Cut, SimClock};
use ringcask::{
    Change, ChangeKind, ChangePosition, Changes, ChangesSince, Compaction, Db, Durability,
    ErrorKind, Options, WriteBatch,
};

use crate::support::{Store, each_disk, seed, wait};

/// What a consumer has: of each keyspace what it was told.
#[derive(Clone, Debug, Default, PartialEq)]
struct Copy(BTreeMap<(u32, Vec<u8>), Vec<u8>>);

impl Copy {
    fn apply(&mut self, change: Change) {
        let keyspace = change.keyspace_id;
        match change.kind {
            ChangeKind::Put { key, value, .. } => {
                self.0.insert((keyspace, key.to_vec()), value.to_vec());
            }
            ChangeKind::Del { key } => {
                self.0.remove(&(keyspace, key.to_vec()));
            }
            ChangeKind::DelRange(range) => {
                self.0.retain(|(space, key), _| *space != keyspace || !range.contains(key));
            }
            other => panic!("{other:?}"),
        }
    }

    /// Applies whatever there is; how many changes that was.
    fn catch_up(&mut self, changes: &mut Changes) -> u64 {
        let mut count = 0;
        while let Some(change) = wait(changes.next()) {
            self.apply(change.unwrap());
            count += 1;
        }
        count
    }

    /// Of the default keyspace, and of the one named "other".
    fn of(db: &Db) -> Copy {
        let mut copy = Copy::default();
        let other = wait(db.keyspace("other")).unwrap();
        for (space, of) in [(0, db), (1, &*other)] {
            let mut scan = of.scan();
            while let Some(entry) = wait(scan.next()) {
                let (key, value) = entry.unwrap();
                copy.0.insert((space, key.to_vec()), value.to_vec());
            }
        }
        copy
    }
}

/// Small files, so that a few writes move the log.
fn options(store: &Store, partitions: u32, retention: u64) -> Options {
    let options = store.options().partitions(partitions).workers(1).data_file_len_max(4096);
    options.compaction(Compaction::off()).changes_retention_bytes(retention)
}

fn write_some(db: &Db, random: &mut fastrand::Rng) {
    let other = wait(db.keyspace("other")).unwrap();
    for _ in 0..random.u8(1..30) {
        let key = format!("key {:02}", random.u8(..40));
        let value = "v".repeat(random.usize(..300)) + &random.u32(..).to_string();
        let of = if random.bool() { db } else { &*other };
        match random.u8(..20) {
            0..10 => {
                let durability =
                    if random.bool() { Durability::Sync } else { Durability::Buffered };
                wait(of.put(&key, value).durability(durability)).unwrap();
            }
            10..14 => drop(wait(of.del(&key)).unwrap()),
            14 => drop(wait(of.append(&key, "+")).unwrap()),
            15 => drop(wait(of.rename(&key, "key 00")).unwrap()),
            16 => {
                let end = format!("key {:02}", random.u8(..40));
                wait(of.delete_range(key..end)).unwrap();
            }
            17 if random.u8(..4) == 0 => wait(of.clear()).unwrap(),
            _ => {
                let mut batch = WriteBatch::new();
                for _ in 0..random.u8(1..10) {
                    let key = format!("key {:02}", random.u8(..40));
                    batch = if random.bool() { batch.put(key, &value) } else { batch.del(key) };
                }
                wait(of.write(batch)).unwrap();
            }
        }
    }
}

/// Random operations with rotation, compaction and reopening between: a copy that catches up now and then, from a
/// position that it has kept as text, is the store every time.
#[test]
fn a_copy_that_is_kept_up_is_the_store() {
    let rounds = if crate::support::is_long() { 40 } else { 6 };
    for round in 0..rounds {
        let random = &mut fastrand::Rng::with_seed(seed() + round);
        let store = Store::sim(random.u64(..));
        let partitions = random.u32(1..4);
        let open = || store.open_with(options(&store, partitions, 1 << 40));
        let mut db = open();
        let mut copy = Copy::default();
        let mut position: Option<String> = None;
        for step in 0..12 {
            write_some(&db, random);
            if random.bool() {
                let since = position.as_ref().map_or(ChangesSince::Beginning, |text| {
                    text.parse::<ChangePosition>().unwrap().into()
                });
                let mut changes = db.changes(since);
                if random.bool() && step > 0 {
                    // Stops on the way, and goes on from there.
                    for _ in 0..random.u8(..20) {
                        let Some(change) = wait(changes.next()) else { break };
                        copy.apply(change.unwrap());
                    }
                    changes = db.changes(changes.position());
                }
                wait(db.sync()).unwrap();
                copy.catch_up(&mut changes);
                assert_eq!(copy, Copy::of(&db), "round {round}, step {step}");
                assert_eq!(copy.catch_up(&mut changes), 0);
                position = Some(changes.position().to_string());
            }
            match random.u8(..4) {
                0 => drop(wait(db.compact()).unwrap()),
                1 => {
                    wait(db.close()).unwrap();
                    drop(db);
                    db = open();
                }
                _ => {}
            }
        }
        wait(db.close()).unwrap();
    }
}

/// Breaks if the beginning has an older value after a newer one, or lacks what compaction has moved.
#[test]
fn from_the_beginning_a_copy_is_the_store_whatever_compaction_did() {
    let random = &mut fastrand::Rng::with_seed(seed());
    for _ in 0..5 {
        let store = Store::sim(random.u64(..));
        let db = store.open_with(options(&store, 2, 0));
        for _ in 0..8 {
            write_some(&db, random);
            wait(db.compact()).unwrap();
        }
        let mut changes = db.changes(ChangesSince::Beginning);
        let mut copy = Copy::default();
        for _ in 0..random.u8(..30) {
            if let Some(change) = wait(changes.next()) {
                copy.apply(change.unwrap());
            }
        }
        // While the walk is under way.
        write_some(&db, random);
        wait(db.sync()).unwrap();
        copy.catch_up(&mut changes);
        assert_eq!(copy, Copy::of(&db));
        // A stream that has read everything keeps nothing from going, and misses nothing.
        write_some(&db, random);
        copy.catch_up(&mut changes);
        wait(db.compact()).unwrap();
        write_some(&db, random);
        wait(db.sync()).unwrap();
        copy.catch_up(&mut changes);
        assert_eq!(copy, Copy::of(&db));
        wait(db.close()).unwrap();
    }
}

/// Breaks if a follower whose part of the log was compacted goes on as if nothing had happened.
#[test]
fn what_is_gone_is_never_passed_over() {
    each_disk(|store| {
        for retention in [0, 1 << 30] {
            let db = store.open_with(options(store, 1, retention));
            wait(db.put("first", "1")).unwrap();
            let position = {
                let mut changes = db.changes(ChangesSince::Now);
                assert!(wait(changes.next()).is_none());
                changes.position()
            };
            for n in 0..60 {
                wait(db.put(format!("key {}", n % 3), vec![n; 500])).unwrap();
            }
            wait(db.del("first")).unwrap();
            wait(db.compact()).unwrap();
            wait(db.close()).unwrap();
            let db = store.open_with(options(store, 1, retention));
            let mut changes = db.changes(position);
            if retention > 0 {
                let mut seen = Vec::new();
                while let Some(change) = wait(changes.next()) {
                    seen.push(change.unwrap());
                }
                assert_eq!(seen.len(), 61, "every one of them, superseded or not");
                assert!(seen.windows(2).all(|two| two[0].seqno < two[1].seqno));
            } else {
                let error = wait(changes.next()).unwrap().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PositionGone, "{error}");
                assert!(wait(changes.next()).is_none());
            }
            wait(db.clear()).unwrap();
            wait(db.close()).unwrap();
        }
    });
}

/// Breaks if the log that a stream begins with is let go because nobody has polled the stream yet.
#[test]
fn a_stream_keeps_what_it_begins_with() {
    for since in [ChangesSince::Beginning, ChangesSince::Now] {
        let store = Store::sim(seed());
        let db = store.open_with(options(&store, 1, 0));
        for n in 0..5 {
            wait(db.put("k", [n])).unwrap();
        }
        let mut changes = db.changes(since);
        wait(db.put("k", "last")).unwrap();
        wait(db.compact()).unwrap();
        let mut copy = Copy::default();
        copy.catch_up(&mut changes);
        assert_eq!(copy, Copy::of(&db));
        wait(db.close()).unwrap();
    }
}

/// Retention by age: what was written within it is kept and told, also when the store was closed meanwhile; and what is
/// older is not, nor what goes beyond the bytes. Breaks if a jump of the clock takes what somebody still needs.
#[test]
fn what_is_younger_than_the_retention_is_kept() {
    let store = Store::sim(seed());
    let clock = SimClock::new(1_800_000_000_000);
    let hour = Duration::from_secs(3600);
    let aged = |bytes: Option<u64>| {
        let options = store.options().partitions(1).workers(1).data_file_len_max(4096);
        let options = options.compaction(Compaction::off()).clock(clock.clone());
        let options = options.changes_retention_age(24 * hour);
        bytes.map_or(options.clone(), |bytes| options.changes_retention_bytes(bytes))
    };
    // Each hour two files.
    let write = |db: &Db, hours: u8| {
        for n in 0..hours * 16 {
            wait(db.put("k", vec![n; 500])).unwrap();
            clock.advance(hour / 16);
        }
    };
    let kept = |db: &Db| {
        wait(db.compact()).unwrap();
        db.stats().total().log_bytes
    };
    let db = store.open_with(aged(None));
    write(&db, 10);
    let ten = kept(&db);
    assert!(ten > 10 * 16 * 500, "{ten}");
    let mut follower = db.changes(ChangesSince::Now);
    assert!(wait(follower.next()).is_none());
    let position = follower.position();
    drop(follower);
    wait(db.close()).unwrap();

    clock.advance(10 * hour);
    let db = store.open_with(aged(None));
    write(&db, 2);
    let twelve = kept(&db);
    assert!(twelve > 12 * 16 * 500, "{twelve}");
    let mut changes = db.changes(position.clone());
    let mut told = 0;
    while let Some(change) = wait(changes.next()) {
        change.unwrap();
        told += 1;
    }
    assert_eq!(told, 32);
    drop(changes);
    // Somebody sets the clock, and that is no reason to let go of anything.
    let before = clock.wall_ms();
    clock.set(before + 1_000_000_000_000);
    assert_eq!(kept(&db), twelve);
    clock.set(before);
    clock.advance(14 * hour);
    write(&db, 1);
    let left = kept(&db);
    assert!((3 * 16 * 500..5 * 16 * 500).contains(&left), "{left} of {twelve}");
    wait(db.close()).unwrap();
    clock.advance(48 * hour);
    let db = store.open_with(aged(None));
    wait(db.put("k", "v")).unwrap();
    let left = kept(&db);
    assert!(left < 5000, "{left}");
    let error = wait(db.changes(position).next()).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PositionGone, "{error}");
    wait(db.close()).unwrap();

    let db = store.open_with(aged(Some(20_000)));
    write(&db, 10);
    let left = kept(&db);
    assert!((20_000..40_000).contains(&left), "both count: {left} bytes");
    wait(db.close()).unwrap();
}

/// Breaks if a stream that is gone is counted for ever, or one that waits is not.
#[test]
fn stats_count_who_follows() {
    let store = Store::sim(seed());
    let db = store.open_one();
    let counts = || (db.stats().change_streams, db.stats().change_followers);
    assert_eq!(counts(), (0, 0));
    let stream = db.changes(ChangesSince::Now);
    let follower = db.changes(ChangesSince::Now).follow();
    assert_eq!(counts(), (2, 1));
    drop(stream);
    assert_eq!(counts(), (1, 1));
    drop(follower);
    assert_eq!(counts(), (0, 0));
    wait(db.close()).unwrap();
}

/// Retention is what is kept, and no more.
#[test]
fn what_is_older_than_the_retention_is_compacted() {
    let store = Store::sim(seed());
    let db = store.open_with(options(&store, 1, 20_000));
    for n in 0..200_u32 {
        wait(db.put("k", vec![n as u8; 500])).unwrap();
    }
    wait(db.compact()).unwrap();
    let left = db.stats().total().log_bytes;
    assert!((20_000..40_000).contains(&left), "{left} bytes");
    wait(db.close()).unwrap();
}

#[test]
fn a_position_of_another_store_is_refused() {
    let (one, other) = (Store::sim(seed()), Store::sim(seed() + 1));
    let db = one.open_one();
    let position = db.changes(ChangesSince::Now).position();
    wait(db.close()).unwrap();
    let db = other.open_one();
    let mut changes = db.changes(position);
    let error = wait(changes.next()).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ForeignPosition, "{error}");
    assert!(wait(changes.next()).is_none());
    wait(db.close()).unwrap();
    assert!(wait(db.changes(ChangesSince::Now).next()).unwrap().unwrap_err().is_closed());
}

/// CF1: whatever was told is there after a power cut, or a change of the same partition that came later is.
#[test]
fn what_a_power_cut_takes_was_never_told() {
    let random = &mut fastrand::Rng::with_seed(seed());
    for round in 0..20 {
        let store = Store::sim(random.u64(..));
        let db = store.open_with(options(&store, 1, 1 << 40));
        let since = if random.bool() { ChangesSince::Now } else { ChangesSince::Beginning };
        for n in 0..random.u32(..20) {
            wait(db.put("k", format!("0 {n}")).durability(Durability::Buffered)).unwrap();
        }
        let mut changes = db.changes(since);
        let mut told = None;
        let mut written = 0;
        for _ in 0..random.u8(1..40) {
            match random.u8(..5) {
                0 => wait(db.sync()).unwrap(),
                1 => {
                    if let Some(Some(change)) = changes.next().now_or_never() {
                        told = Some(change.unwrap().seqno).max(told);
                    }
                }
                _ => {
                    written += 1;
                    let put = db.put("k", format!("{written}"));
                    wait(put.durability(Durability::Buffered)).unwrap();
                }
            }
        }
        let position = changes.position();
        let after = store.on(store.disk().power_cut(Cut::DropUnsynced));
        drop((changes, db));
        let db = after.open_with(options(&after, 1, 1 << 40));
        let there = wait(db.entry("k")).unwrap().map(|entry| entry.seqno);
        assert!(
            told.is_none() || there >= told,
            "round {round}: told {told:?}, there is {there:?}"
        );
        // And whoever goes on misses nothing.
        wait(db.put("k", "after")).unwrap();
        let mut changes = db.changes(position);
        let mut last = None;
        while let Some(change) = wait(changes.next()) {
            last = Some(change.unwrap());
        }
        assert_eq!(
            Some(last.unwrap().seqno),
            wait(db.entry("k")).unwrap().map(|entry| entry.seqno)
        );
        wait(db.close()).unwrap();
    }
}

/// Breaks if a follower sleeps through a change, or for ever when the store closes.
#[test]
fn a_follower_is_woken_for_every_change_and_at_the_end() {
    each_disk(|store| {
        let db = store.open_with(store.options().partitions(2).data_file_len_max(16 << 10));
        let mut changes = db.changes(ChangesSince::Now).follow();
        let (sender, receiver) = std::sync::mpsc::channel();
        let follower = thread::spawn(move || {
            while let Some(change) = wait(changes.next()) {
                sender.send(change.unwrap()).unwrap();
            }
        });
        for n in 0..300 {
            wait(db.put(format!("key {n}"), vec![0; 200])).unwrap();
            let change = receiver.recv_timeout(Duration::from_secs(60)).expect("it was woken");
            let ChangeKind::Put { key, .. } = change.kind else { panic!() };
            assert_eq!(key, format!("key {n}"));
            if n == 150 {
                wait(db.compact()).unwrap();
            }
        }
        wait(db.close()).unwrap();
        follower.join().unwrap();
    });
}

/// Breaks if what is told of compressed and encrypted records is what is stored, or not all of a long one.
#[cfg(all(feature = "encryption", feature = "zstd"))]
#[test]
fn values_are_told_as_they_were_put() {
    let store = Store::sim(seed()).encrypted([9; 32]);
    let compression = ringcask::Compression::Zstd { level: 3 };
    let db = store.open_with(store.options().partitions(2).compression(compression));
    let mut changes = db.changes(ChangesSince::Now);
    let random = &mut fastrand::Rng::with_seed(seed());
    let noise = crate::support::bytes_of(random, 3 << 20);
    for (key, value) in [("short", b"v".to_vec()), ("same", vec![7; 2 << 20]), ("noise", noise)] {
        wait(db.put(key, value.clone())).unwrap();
        let change = wait(changes.next()).unwrap().unwrap();
        let ChangeKind::Put { key: found, value: told, .. } = change.kind else { panic!() };
        assert_eq!((&found[..], &told[..]), (key.as_bytes(), &value[..]));
    }
    wait(db.delete_range("n".."o")).unwrap();
    let mut ranges = Vec::new();
    while let Some(change) = wait(changes.next()) {
        let ChangeKind::DelRange(range) = change.unwrap().kind else { panic!() };
        ranges.push((range.begin().clone(), range.end().cloned(), range.contains("noise")));
    }
    assert_eq!(ranges.iter().filter(|range| range.2).count(), 1);
    assert!(
        ranges.iter().all(|range| (&range.0[..], range.1.as_deref()) == (b"n", Some(&b"o"[..])))
    );
    wait(db.close()).unwrap();
}

/// Power cuts at any moment, with batches over partitions on their way, which the next open completes or forgets: a copy that
/// goes on from its position is the store again (CF1, CF4).
#[test]
fn a_copy_goes_on_after_power_cuts() {
    let rounds = if crate::support::is_long() { 200 } else { 20 };
    for round in 0..rounds {
        let random = &mut fastrand::Rng::with_seed(seed() + round);
        let mut store = Store::sim(random.u64(..));
        let mut copy = Copy::default();
        let mut since = ChangesSince::Beginning;
        for step in 0..4 {
            let db = store.open_with(options(&store, 3, 1 << 40));
            let mut changes = db.changes(since);
            wait(db.sync()).unwrap();
            copy.catch_up(&mut changes);
            assert_eq!(copy, Copy::of(&db), "round {round}, step {step}");
            write_some(&db, random);
            if random.bool() {
                copy.catch_up(&mut changes);
            }
            for n in 0..random.u8(1..6) {
                let mut batch = WriteBatch::new();
                for _ in 0..random.u8(2..8) {
                    let key = format!("key {:02}", random.u8(..40));
                    batch = batch.put(key, format!("{round} {step} {n}"));
                }
                // Sent, and nobody waits for it.
                drop(db.write(batch).now_or_never());
            }
            for _ in 0..random.u8(..20) {
                if let Some(Some(change)) = changes.next().now_or_never() {
                    copy.apply(change.unwrap());
                }
                if random.bool() {
                    thread::yield_now();
                }
            }
            since = changes.position().into();
            let cut = Cut::Random { seed: random.u64(..) };
            let after = store.on(store.disk().power_cut(cut));
            drop((changes, db));
            store = after;
        }
    }
}

/// Breaks if an open that has lost a hint completes a batch once more, which has been deleted since, and tells that to those
/// who began behind it (CF4).
#[test]
fn what_is_completed_twice_is_no_news() {
    let store = Store::sim(seed());
    let options = |store: &Store| options(store, 2, 0).data_file_records_max(2);
    let db = store.open_with(options(&store));
    let partition = |key: &String| db.partition_of(key);
    let mut keys: Vec<String> = (0..20).map(|n| format!("key {n}")).collect();
    keys.sort_by_key(partition);
    keys.dedup_by_key(|key| partition(key));
    let batch = keys.iter().fold(WriteBatch::new(), |batch, key| batch.put(key, "once"));
    wait(db.write(batch)).unwrap();
    wait(db.delete_range("a".."z")).unwrap();
    wait(db.sync()).unwrap();
    // The intents stay, what says that they were resolved goes.
    let file = |partition: usize, id: u64| format!("partition-{partition:03}/{id:09}.data");
    for partition in 0..2 {
        wait(db.compact_files(partition, &[2])).unwrap();
        assert!(store.data_files().contains(&file(partition, 1)));
        assert!(!store.data_files().contains(&file(partition, 2)));
    }
    let mut copies = [ChangesSince::Beginning, ChangesSince::Now].map(|since| {
        let (mut changes, mut copy) = (db.changes(since), Copy::default());
        copy.catch_up(&mut changes);
        (changes.position(), copy)
    });
    let after = store.on(store.disk().kill());
    drop(db);
    for hint in (0..2).map(|partition| file(partition, 1).replace(".data", ".hint")) {
        let (dir, name) = hint.split_once('/').unwrap();
        // It may not have been written yet.
        if after.list(dir).iter().any(|there| there == name) {
            after.remove(&hint);
        }
    }
    let db = after.open_with(options(&after));
    for (position, copy) in &mut copies {
        let mut changes = db.changes(position.clone());
        assert!(copy.catch_up(&mut changes) > 0, "nothing was completed");
        assert_eq!(*copy, Copy::default());
    }
    wait(db.close()).unwrap();
}
