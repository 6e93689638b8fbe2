//! Watching: everything that is published is told, in order, or counted where it is missing.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Context;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{FutureExt, StreamExt};
use ringcask::sim::SimClock;
use ringcask::{
    Db, Durability, ErrorKind, Eviction, Expected, Options, Result, Watch, WatchEvent, WriteBatch,
};

use crate::support::{EIO, Store, contents, each_disk, on_wake, seed, wait};

/// What is there to be taken, in words.
fn told(watch: &mut Watch) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let mut all = Vec::new();
    while let Some(Some(event)) = watch.next().now_or_never() {
        all.push(match event.unwrap() {
            WatchEvent::Put { key, value, expires_at, .. } => {
                let value = value.map_or("?".into(), |value| text(&value));
                let mortal = if expires_at.is_some() { " until" } else { "" };
                format!("{}={value}{mortal}", text(&key))
            }
            WatchEvent::Del { key, .. } => format!("del {}", text(&key)),
            WatchEvent::Expired { key, .. } => format!("expired {}", text(&key)),
            WatchEvent::Evicted { key, .. } => format!("evicted {}", text(&key)),
            WatchEvent::DelRange { range, .. } => {
                let end = range.end().map_or("end".into(), text);
                format!("range {}..{end} of {}", text(range.begin()), range.partition())
            }
            WatchEvent::Lagged { missed } => format!("missed {missed}"),
            other => format!("{other:?}"),
        });
    }
    all
}

/// One partition, so that everything is told in one order.
fn one(store: &Store) -> Options {
    store.options().partitions(1).workers(1)
}

/// Breaks if a verb changes a key behind a watcher's back.
#[test]
fn every_way_to_change_a_key_is_told() {
    each_disk(|store| {
        let db = store.open_with(one(store));
        wait(db.put("before", "0")).unwrap();
        let mut watch = db.watch().begin().unwrap();
        let ttl = Duration::from_secs(60);
        let mut expect = |expected: &[&str]| assert_eq!(told(&mut watch), expected);

        wait(db.put("k", "1")).unwrap();
        expect(&["k=1"]);
        wait(db.put("k", "2").ttl(ttl)).unwrap();
        expect(&["k=2 until"]);
        assert!(wait(db.persist("k")).unwrap());
        expect(&["k=2"]);
        assert!(wait(db.expire("k", ttl)).unwrap());
        expect(&["k=2 until"]);
        assert!(!wait(db.put_if_absent("k", "no")).unwrap());
        expect(&[]);
        assert!(wait(db.put_if_present("k", "3")).unwrap());
        wait(db.compare_and_swap("k", Expected::Value("3".into()), "4")).unwrap();
        wait(db.compare_and_del("k", Expected::Value("3".into()))).unwrap();
        wait(db.get_and_put("k", "5")).unwrap();
        expect(&["k=3", "k=4", "k=5"]);
        wait(db.incr("k", 7)).unwrap();
        wait(db.append("k", "!")).unwrap();
        wait(db.update("k", |old| old.map(|old| [old, b"?"].concat()))).unwrap();
        expect(&["k=12", "k=12!", "k=12!?"]);
        assert!(wait(db.del("k")).unwrap());
        assert!(!wait(db.del("k")).unwrap());
        expect(&["del k"]);
        wait(db.put("k", "6")).unwrap();
        assert!(wait(db.rename("k", "l")).unwrap());
        let mut renamed = told(&mut watch);
        renamed.sort();
        assert_eq!(renamed, ["del k", "k=6", "l=6"]);
        let mut expect = |expected: &[&str]| assert_eq!(told(&mut watch), expected);
        wait(db.write(WriteBatch::new().put("a", "1").del("before").put_with_ttl("b", "2", ttl)))
            .unwrap();
        expect(&["a=1", "del before", "b=2 until"]);
        let mut transaction = db.transaction();
        wait(transaction.get("a")).unwrap();
        transaction.put("a", "9");
        wait(transaction.commit()).unwrap();
        expect(&["a=9"]);
        wait(db.get_and_del("a")).unwrap();
        wait(db.delete_prefix("b")).unwrap();
        wait(db.clear()).unwrap();
        expect(&["del a", "range b..c of 0", "range \0..end of 0"]);
        wait(db.put("", "")).unwrap_err();
        wait(db.compact()).unwrap();
        expect(&[]);
        wait(db.close()).unwrap();
        assert!(wait(watch.next()).is_none());
        assert_eq!(db.watch().begin().err().unwrap().kind(), ErrorKind::Closed);
        assert_eq!(wait(db.watch().next()).unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
}

/// What there is to be taken in the moment in which a write is acknowledged, sorted. Whoever is woken is on the worker's
/// thread then, which tells nothing while he looks.
fn told_when_acknowledged<T>(
    store: &Store,
    watch: &Arc<Mutex<Watch>>,
    write: impl IntoFuture<Output = Result<T>>,
) -> Vec<String> {
    let watch = watch.clone();
    let (sender, mut seen) = mpsc::unbounded();
    let look = on_wake(move || {
        let _nobody_waits = sender.unbounded_send(told(&mut watch.lock().unwrap()));
    });
    let mut write = pin!(write.into_future());
    // It is not acknowledged before somebody waits for that.
    store.disk().stall_syncs(true);
    assert!(write.as_mut().poll(&mut Context::from_waker(&look)).is_pending());
    store.disk().stall_syncs(false);
    let mut seen = wait(seen.next()).unwrap();
    wait(write).unwrap();
    seen.sort();
    seen
}

/// Breaks if a write is acknowledged before its events can be taken.
#[test]
fn what_is_acknowledged_was_told() {
    for partitions in [1, 2] {
        let store = Store::sim(seed());
        let options = store.options().partitions(partitions).workers(1);
        let db = store.open_with(options.prewrite(false));
        let watch = Arc::new(Mutex::new(db.watch().begin().unwrap()));
        for _ in 0..5 {
            let told = told_when_acknowledged(&store, &watch, db.put("k", "1"));
            assert_eq!(told, ["k=1"]);
            let told = told_when_acknowledged(&store, &watch, db.incr("k", 6));
            assert_eq!(told, ["k=7"]);
            let told = told_when_acknowledged(&store, &watch, db.del("k"));
            assert_eq!(told, ["del k"]);
            let keys = || (0..8).map(|n| format!("key {n}"));
            let batch = keys().fold(WriteBatch::new(), |batch, key| batch.put(key, "v"));
            let told = told_when_acknowledged(&store, &watch, db.write(batch));
            assert!(told.into_iter().eq(keys().map(|key| format!("{key}=v"))));
        }
        wait(db.close()).unwrap();
    }
}

/// Breaks if a watch is told of other keys, or of a value that it does not want.
#[test]
fn a_watch_is_about_what_it_was_asked_for() {
    let store = Store::sim(seed());
    let db = store.open_with(one(&store));
    let users = wait(db.keyspace("users")).unwrap();
    let mut prefix = db.watch().prefix("a:").value_len_max(3).begin().unwrap();
    let mut key = db.watch().key("b").begin().unwrap();
    let mut other = users.watch().begin().unwrap();
    for (key, value) in [("a:1", "123"), ("a:2", "1234"), ("a", "0"), ("b", "1"), ("b:1", "2")] {
        wait(db.put(key, value)).unwrap();
    }
    wait(users.put("a:1", "user")).unwrap();
    wait(db.delete_range("c"..)).unwrap();
    wait(db.delete_range("a:5".."b\0")).unwrap();
    wait(users.clear()).unwrap();
    assert_eq!(told(&mut prefix), ["a:1=123", "a:2=?", "range a:5..b\0 of 0"]);
    assert_eq!(told(&mut key), ["b=1", "range a:5..b\0 of 0"]);
    assert_eq!(told(&mut other), ["a:1=user", "range \0..end of 0"]);
    wait(db.drop_keyspace("users")).unwrap();
    let error = users.watch().begin().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::KeyspaceDropped);
    wait(db.close()).unwrap();
}

/// Breaks if a batch over partitions is told with wrong numbers, or only in part.
#[test]
fn a_batch_over_partitions_is_told_with_its_numbers() {
    each_disk(|store| {
        let db = store.open_with(store.options().partitions(3).workers(2));
        let mut watch = db.watch().begin().unwrap();
        for round in 0..5 {
            let mut batch = WriteBatch::new();
            for n in 0..20 {
                batch = batch.put(format!("key {n}"), format!("value {round} {n}"));
            }
            batch = batch.del(format!("gone {round}")).put(format!("gone {}", round + 1), "x");
            wait(db.write(batch)).unwrap();
            let mut told = BTreeMap::new();
            while let Some(Some(event)) = watch.next().now_or_never() {
                match event.unwrap() {
                    WatchEvent::Put { key, value, seqno, .. } => {
                        assert_eq!(wait(db.entry(&key)).unwrap().unwrap().seqno, seqno);
                        told.insert(key, value.unwrap());
                    }
                    WatchEvent::Del { key, .. } => {
                        assert_eq!(key, format!("gone {round}"));
                        assert!(round > 0);
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(told.len(), 21);
            for (key, value) in told {
                assert_eq!(wait(db.get(&key)).unwrap().unwrap(), value);
            }
        }
        wait(db.close()).unwrap();
    });
}

/// Breaks if the sweep forgets to say what it took out, or says it of a key that was put again.
#[test]
fn keys_that_expire_are_told() {
    each_disk(|store| {
        let clock = SimClock::new(1_700_000_000_000);
        let db = store.open_with(one(store).clock(clock.clone()));
        let mut watch = db.watch().value_len_max(0).begin().unwrap();
        for n in 0..300 {
            let put = db.put(format!("brief {n:03}"), "v").ttl(Duration::from_secs(10));
            wait(put.durability(Durability::Buffered)).unwrap();
        }
        wait(db.put("long", "v").ttl(Duration::from_secs(1000))).unwrap();
        wait(db.put("again", "v").ttl(Duration::from_secs(10))).unwrap();
        wait(db.put("again", "w")).unwrap();
        wait(db.put("cleared", "w").ttl(Duration::from_secs(10))).unwrap();
        wait(db.delete_prefix("cleared")).unwrap();
        assert_eq!(told(&mut watch).len(), 305);
        if store.is_sim() {
            store.disk().would_block(0.8);
        }
        clock.advance(Duration::from_secs(10));
        let mut expired = Vec::new();
        while expired.len() < 300 {
            wait(db.sync()).unwrap();
            expired.extend(told(&mut watch));
        }
        expired.sort();
        let expected: Vec<String> = (0..300).map(|n| format!("expired brief {n:03}")).collect();
        assert_eq!(expired, expected);
        while db.stats().total().keys_mortal > 1 {
            wait(db.sync()).unwrap();
        }
        wait(db.put("brief 000", "again")).unwrap();
        assert_eq!(told(&mut watch), ["brief 000=?"]);
        wait(db.close()).unwrap();
        assert_eq!(told(&mut watch), [""; 0]);
    });
}

#[test]
fn keys_that_are_evicted_are_told() {
    each_disk(|store| {
        let options = one(store).entries_max(50).eviction(Eviction::Lru);
        let db = store.open_with(options);
        let mut watch = db.watch().begin().unwrap();
        let mut there = BTreeMap::new();
        for n in 0..200 {
            wait(db.put(format!("key {n}"), "v")).unwrap();
        }
        let mut evicted = 0;
        while evicted < 150 {
            wait(db.sync()).unwrap();
            while let Some(Some(event)) = watch.next().now_or_never() {
                match event.unwrap() {
                    WatchEvent::Put { key, value, .. } => {
                        there.insert(key.to_vec(), value.unwrap().to_vec());
                    }
                    WatchEvent::Evicted { key, .. } => {
                        evicted += 1;
                        there.remove(&key[..]).unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(contents(&db), there);
        wait(db.close()).unwrap();
    });
}

/// What one watcher makes of what it is told.
#[derive(Default)]
struct Replica {
    keys: HashMap<Bytes, (u64, Option<Bytes>)>,
    told: u64,
    missed: u64,
}

impl Replica {
    fn take(&mut self, event: WatchEvent) {
        let (key, seqno, value) = match event {
            WatchEvent::Put { key, seqno, value, .. } => (key, seqno, Some(value.unwrap())),
            WatchEvent::Del { key, seqno } => (key, seqno, None),
            WatchEvent::Lagged { missed } => {
                assert!(missed > 0);
                self.missed += missed;
                return;
            }
            other => panic!("{other:?}"),
        };
        self.told += 1;
        let before = self.keys.insert(key, (seqno, value));
        assert!(before.is_none_or(|(before, _)| before < seqno), "in commit order");
    }

    async fn run(mut watch: Watch, pause: bool) -> Replica {
        let mut replica = Replica::default();
        while let Some(event) = watch.next().await {
            replica.take(event.unwrap());
            if pause && replica.told.is_multiple_of(16) {
                thread::sleep(Duration::from_micros(300));
            }
        }
        replica
    }
}

/// Several writers, each with keys of its own, and watchers with buffers from tiny to ample: what a watcher was told
/// and what it was told to have missed is everything, and who missed nothing has a copy of the store.
#[test]
fn nothing_is_missed_that_is_not_reported() {
    each_disk(|store| {
        let options = store.options().partitions(3).workers(2).durability(Durability::Buffered);
        let db = store.open_with(options.data_file_len_max(64 << 10));
        let rounds = if store.is_sim() { 300 } else { 1000 };
        let buffers = [(1, 1 << 20), (7, 1 << 20), (100, 900), (1 << 20, 1 << 30)];
        let watchers: Vec<_> = buffers
            .into_iter()
            .map(|(events, bytes)| {
                let watch = db.watch().buffer(events, bytes).begin().unwrap();
                thread::spawn(move || wait(Replica::run(watch, events < 1000)))
            })
            .collect();
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let db = db.clone();
                let mut random = fastrand::Rng::with_seed(seed() + writer);
                thread::spawn(move || {
                    let mut events = 0;
                    for round in 0..rounds {
                        events += wait(write_some(&db, writer, round, &mut random));
                    }
                    events
                })
            })
            .collect();
        let events: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        let there = contents(&db);
        wait(db.close()).unwrap();
        for (watcher, (buffer, _)) in watchers.into_iter().zip(buffers) {
            let replica = watcher.join().unwrap();
            assert_eq!(replica.told + replica.missed, events, "buffer of {buffer} events");
            if buffer == 1 << 20 {
                assert_eq!(replica.missed, 0);
                let copy = replica.keys.into_iter().filter_map(|(key, (_, value))| {
                    value.map(|value| (key.to_vec(), value.to_vec()))
                });
                assert_eq!(copy.collect::<BTreeMap<_, _>>(), there);
            }
        }
    });
}

/// Returns how many events that makes.
async fn write_some(db: &Db, writer: u64, round: u64, random: &mut fastrand::Rng) -> u64 {
    let mut key = || format!("{writer}:{}", random.u8(..20));
    let (a, b, c) = (key(), key(), key());
    match round % 5 {
        0 => db.del(&a).await.unwrap().into(),
        1 => {
            let puts = (0..30).map(|n| db.put(format!("{writer}:more {n}"), format!("{round}")));
            futures::future::try_join_all(puts).await.unwrap();
            30
        }
        2 if a != b && a != c && b != c => {
            let batch = WriteBatch::new().put(&a, "batch").put(&b, format!("{round}")).put(&c, "c");
            db.write(batch).await.unwrap();
            3
        }
        _ => {
            db.put(&a, format!("value {round}")).await.unwrap();
            1
        }
    }
}

/// Breaks if watchers are told what did not happen, or what no sync vouches for.
#[test]
fn what_failed_is_not_told() {
    let store = Store::sim(seed());
    let db = store.open_with(one(&store).prewrite(false));
    wait(db.put("first", "1")).unwrap();
    let mut watch = db.watch().begin().unwrap();
    loop {
        store.disk().fail_op(store.disk().ops(), EIO, false);
        if wait(db.put("second", "2").durability(Durability::Buffered)).is_err() {
            break;
        }
        // The one that failed was upkeep's.
        assert_eq!(told(&mut watch), ["second=2"]);
    }
    wait(db.put("third", "3")).unwrap();
    assert_eq!(told(&mut watch), ["third=3"]);
    store.disk().fail_syncs(EIO, false);
    wait(db.put("fourth", "4")).unwrap_err();
    assert_eq!(told(&mut watch), [""; 0]);
    let _poisoned = wait(db.close());
    assert!(wait(watch.next()).is_none());
}

/// Breaks if whoever waits is not woken, by an event or by the end.
#[test]
fn a_waiting_watcher_is_woken() {
    each_disk(|store| {
        let db = store.open();
        let mut watch = db.watch().begin().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiting = thread::spawn(move || {
            while let Some(event) = wait(watch.next()) {
                sender.send(event.unwrap()).unwrap();
            }
        });
        for n in 0..100 {
            wait(db.put(format!("key {n}"), "v")).unwrap();
            assert!(matches!(receiver.recv().unwrap(), WatchEvent::Put { .. }));
        }
        wait(db.close()).unwrap();
        waiting.join().unwrap();
    });
}

/// Breaks if values are told as they are stored.
#[cfg(all(feature = "encryption", feature = "zstd"))]
#[test]
fn values_are_told_as_they_were_put() {
    let store = Store::sim(seed()).encrypted([7; 32]);
    let options =
        store.options().partitions(2).compression(ringcask::Compression::Zstd { level: 3 });
    let db = store.open_with(options);
    let mut watch = db.watch().value_len_max(5000).begin().unwrap();
    let long = "abc".repeat(1666);
    for value in ["", "short", &long] {
        wait(db.put("k", value)).unwrap();
        assert_eq!(told(&mut watch), [format!("k={value}")]);
        wait(db.write(WriteBatch::new().put("a", value).put("b", value).put("c", value))).unwrap();
        let mut batch = told(&mut watch);
        batch.sort();
        assert_eq!(batch, ["a", "b", "c"].map(|key| format!("{key}={value}")));
    }
    wait(db.put("k", "x".repeat(5001))).unwrap();
    wait(db.delete_prefix("k")).unwrap();
    let all = told(&mut watch);
    assert_eq!(all[0], "k=?");
    assert!(all[1].starts_with("range k..l of "));
    wait(db.close()).unwrap();
}

/// Breaks if what waits for a watcher, or what was left out for it, is not counted.
#[test]
fn stats_count_who_watches_and_what_is_missed() {
    let store = Store::sim(seed());
    let db = store.open_with(one(&store));
    let mut watch = db.watch().buffer(4, 1 << 20).begin().unwrap();
    let other = db.watch().prefix("none").begin().unwrap();
    for n in 0..10 {
        wait(db.put(format!("{n}"), "v")).unwrap();
    }
    let stats = db.stats();
    assert_eq!((stats.watchers, stats.watch_events_queued, stats.watch_events_missed), (2, 4, 6));
    assert!(stats.watch_bytes_queued > 0);
    drop(other);
    let mut missed = 0;
    while let Some(Some(event)) = watch.next().now_or_never() {
        if let WatchEvent::Lagged { missed: count } = event.unwrap() {
            missed += count;
        }
    }
    assert_eq!(missed, db.stats().watch_events_missed);
    drop(watch);
    let stats = db.stats();
    let queued = stats.watch_events_queued + stats.watch_bytes_queued;
    assert_eq!((stats.watchers, queued, stats.watch_events_missed), (0, 0, 6));
    wait(db.close()).unwrap();
}
