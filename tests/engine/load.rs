//! Bulk loads: many puts, packed.

use std::collections::BTreeMap;
use std::time::Duration;

use ringcask::sim::{Cut, SimClock};
use ringcask::{Db, Durability, ErrorKind, Options, WatchEvent, WriteBatch};

use crate::support::{Store, bytes_of, contents, each_disk, get, seed, wait};

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

fn options(store: &Store) -> Options {
    store.options().partitions(3).durability(Durability::Buffered).data_file_len_max(256 << 10)
}

/// Records of few keys, so that most are replaced by later ones, and of all lengths.
fn records(random: &mut fastrand::Rng, count: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let record = |random: &mut fastrand::Rng| {
        let len = match random.u8(..100) {
            0 => random.usize(60_000..80_000),
            1..5 => random.usize(4000..6000),
            _ => random.usize(..200),
        };
        (bytes_of(random, 2), bytes_of(random, len))
    };
    (0..count).map(|_| record(random)).collect()
}

fn check(db: &Db, expected: &Contents) {
    assert!(contents(db) == *expected, "{} keys expected", expected.len());
}

/// LO1: breaks if a record is left out, or an earlier one stays.
#[test]
fn every_key_has_its_last_record() {
    let seed = seed();
    each_disk(|store| {
        let random = &mut fastrand::Rng::with_seed(seed);
        let db = store.open_with(options(store));
        wait(db.put("untouched", "v")).unwrap();
        assert_eq!(wait(db.load(Vec::<(&str, &str)>::new())).unwrap(), 0);
        let mut expected = Contents::from([(b"untouched".to_vec(), b"v".to_vec())]);
        for count in [1, 7, 5000] {
            let records = records(random, count);
            let loaded = wait(db.load(records.iter().map(|(key, value)| (key, value)))).unwrap();
            assert_eq!(loaded, count as u64);
            expected.extend(records);
            check(&db, &expected);
        }
        assert_eq!(db.stats().total().puts, 5009);
        let space = wait(db.keyspace("space")).unwrap();
        assert_eq!(wait(space.load([("a", "1"), ("a", "2")])).unwrap(), 2);
        assert_eq!(get(&space, "a").as_deref(), Some(b"2".as_slice()));
        assert_eq!(db.blocking().load([("untouched", "w")]).unwrap(), 1);
        expected.insert(b"untouched".to_vec(), b"w".to_vec());
        wait(db.close()).unwrap();
        let db = store.open_with(options(store));
        check(&db, &expected);
        wait(db.close()).unwrap();
    });
}

/// Breaks if a load returns before all of it is durable, whatever the store says of other writes.
#[test]
fn what_was_loaded_survives_a_power_cut() {
    for round in 0..20 {
        let random = &mut fastrand::Rng::with_seed(seed() + round);
        let store = Store::sim(round);
        let db = store.open_with(options(&store));
        let records = records(random, 400);
        wait(db.load(records.clone())).unwrap();
        let after = store.on(store.disk().power_cut(Cut::DropUnsynced));
        wait(db.close()).unwrap();
        let db = after.open_with(options(&after));
        check(&db, &records.into_iter().collect());
        wait(db.close()).unwrap();
    }
}

/// Breaks if what came before a record that is refused is lost, or the sentence does not say which it was.
#[test]
fn a_record_that_is_refused_ends_the_load() {
    let store = Store::sim(seed());
    let db = store.open_with(options(&store).value_len_max(1000));
    for (bad, about) in
        [(("", vec![1]), "the key is empty"), (("long", vec![1; 1001]), "1001 bytes")]
    {
        let mut taken = 0;
        let good = (0..1500_u32).map(|n| (format!("key {n}"), n.to_le_bytes().to_vec()));
        let bad = std::iter::once((bad.0.to_owned(), bad.1));
        let records = good.clone().chain(bad).chain(good).inspect(|_| taken += 1);
        let error = wait(db.load(records)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("record 1501 of the load: "), "{error}");
        assert!(error.to_string().contains(about), "{error}");
        assert_eq!(taken, 1501);
        assert_eq!(contents(&db).len(), 1500);
        wait(db.clear()).unwrap();
    }
    wait(db.close()).unwrap();
    assert_eq!(wait(db.load([("k", "v")])).unwrap_err().kind(), ErrorKind::Closed);
}

/// Breaks if one failed put among hundreds is taken for done, or the others for failed.
#[test]
fn a_load_that_fails_says_so() {
    let store = Store::sim(seed());
    let db = store.open_with(options(&store));
    wait(db.put("before", "v")).unwrap();
    store.disk().capacity_bytes(Some(900_000));
    let mut taken = Vec::new();
    let endless = (0_u32..).map(|n| (n.to_le_bytes(), vec![n as u8; 300]));
    let error = wait(db.load(endless.inspect(|(key, _)| taken.push(*key)))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    store.disk().capacity_bytes(None);
    let found = contents(&db);
    assert!(found.len() > 500 && found.len() < taken.len() + 1, "{} keys", found.len());
    assert_eq!(wait(db.load([("after", "v")])).unwrap(), 1);
    wait(db.close()).unwrap();
}

/// Breaks if a loaded record is less of a put than others: its time to live, what watches, what bounds.
#[test]
fn a_loaded_record_is_a_put() {
    let store = Store::sim(seed());
    let clock = SimClock::new(1_700_000_000_000);
    let ttl = Duration::from_secs(9);
    let db = store.open_with(options(&store).clock(clock.clone()).default_ttl(ttl));
    let mut watch = db.watch().begin().unwrap();
    wait(db.load([("a", "long"), ("b", "short")])).unwrap();
    for _ in 0..2 {
        assert!(matches!(wait(watch.next()), Some(Ok(WatchEvent::Put { .. }))));
    }
    assert_eq!(get(&db, "a").as_deref(), Some(b"long".as_slice()));
    clock.advance(ttl);
    assert!(contents(&db).is_empty());
    wait(db.close()).unwrap();

    let store = Store::sim(seed());
    let db = store.open_with(options(&store).entries_max(300));
    let error = wait(db.load((0_u32..1000).map(|n| (n.to_le_bytes(), "v")))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(contents(&db).len() <= 300);
    wait(db.close()).unwrap();
}

/// Breaks if values that are worth it are loaded as they are, or short ones beside them are not found.
#[cfg(feature = "lz4")]
#[test]
fn what_is_loaded_is_compressed() {
    let store = Store::sim(seed());
    let options = options(&store).compression(ringcask::Compression::Lz4).compression_len_min(64);
    let db = store.open_with(options);
    let text = "abc".repeat(100);
    wait(db.load([("a", text.as_str()), ("b", "short")])).unwrap();
    let total = db.stats().total();
    assert!(total.put_stored_bytes < total.put_value_bytes / 2, "nothing was compressed");
    assert_eq!(get(&db, "a").as_deref(), Some(text.as_bytes()));
    assert_eq!(get(&db, "b").as_deref(), Some(b"short".as_slice()));
    wait(db.close()).unwrap();
}

/// Breaks if a load passes a batch or an update that waits for the same keys, or waits for it for ever.
#[test]
fn loads_beside_everything_else_lose_nothing() {
    each_disk(|store| {
        let db = store.open_with(options(store));
        let keys: Vec<String> = (0..50).map(|n| format!("key {n}")).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..30_u64 {
                    let records = keys.iter().map(|key| (key, (round << 32).to_le_bytes()));
                    wait(db.load(records)).unwrap();
                }
            });
            scope.spawn(|| {
                for _ in 0..30 {
                    for key in &keys {
                        wait(db.update(key, |old| old.map(<[u8]>::to_vec))).unwrap();
                    }
                }
            });
            scope.spawn(|| {
                for n in 0..100_u64 {
                    let batch =
                        WriteBatch::new().put("x", n.to_le_bytes()).put(&keys[7], n.to_le_bytes());
                    wait(db.write(batch)).unwrap();
                }
            });
        });
        wait(db.load(keys.iter().map(|key| (key, "last")))).unwrap();
        assert!(keys.iter().all(|key| get(&db, key).as_deref() == Some(b"last")));
        wait(db.close()).unwrap();
    });
}
