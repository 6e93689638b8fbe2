//! The keydir as a whole: against a model, against its bounds, and against readers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use fastrand::Rng;

use super::*;
use crate::limits::{KEYDIR_TABLE_BUCKETS, KEYDIR_TABLE_FILL as TABLE_FILL};
use crate::types::Seqno;

const TABLE_BYTES: usize = KEYDIR_TABLE_BUCKETS * (size_of::<Entry>() + 1) + 16;

const _: () = {
    const fn is_send<T: Send>() {}
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send::<Keydir>();
    is_send_and_sync::<KeydirReader>();
};

/// The same well-mixed hash for the same number.
fn hash(key: u64) -> KeyHash {
    let mut random = Rng::with_seed(key);
    KeyHash { bucket: random.u64(..), table: random.u32(..), route: 0 }
}

/// A location that tells its key and version.
fn location(key: u64, version: u32) -> Location {
    Location {
        slot: FileSlot(key as u16),
        offset: version * 8,
        len: 128,
        has_expiry: key.is_multiple_of(2),
    }
}

fn contents(keydir: &Keydir) -> HashMap<(u64, u32), Location> {
    let mut contents = HashMap::new();
    keydir.for_each(|hash, location| {
        assert_eq!(contents.insert((hash.bucket, hash.table), location), None, "K8");
    });
    contents
}

fn assert_ram_is_exact(keydir: &Keydir) {
    let entries: usize = keydir.directory.tables().map(|table| table.read().bytes()).sum();
    assert_eq!(keydir.ram_bytes(), (entries + keydir.directory.heads_bytes()) as u64);
}

#[test]
fn every_operation_agrees_with_a_hash_map() {
    const KEYS: u64 = 400_000;
    let mut random = Rng::with_seed(1);
    let mut model = HashMap::new();
    let mut keydir = Keydir::new();
    let reader = keydir.reader();
    for version in 0..900_000 {
        let key = random.u64(..KEYS);
        let (hash, new) = (hash(key), location(key, version));
        match random.u8(..8) {
            0 => assert_eq!(keydir.remove(hash), model.remove(&key)),
            1 => {
                let expected = model.get(&key).copied().unwrap_or(new);
                assert_eq!(keydir.replace_if(hash, expected, new), model.contains_key(&key));
                model.entry(key).and_modify(|known| *known = new);
                assert!(!keydir.replace_if(hash, expected, new) || expected == new);
            }
            _ => assert_eq!(keydir.upsert(hash, new), model.insert(key, new)),
        }
        assert_eq!(keydir.get(hash), model.get(&key).copied());
        assert_eq!(reader.len(), model.len() as u64);
    }
    assert!(keydir.directory.current.len() >= 20);
    for key in 0..KEYS {
        assert_eq!(reader.lookup(hash(key), |found| found), model.get(&key).copied());
    }
    let model = model.into_iter().map(|(key, at)| ((hash(key).bucket, hash(key).table), at));
    assert_eq!(contents(&keydir), model.collect());
    assert_ram_is_exact(&keydir);
}

#[test]
fn a_fresh_keydir_is_small() {
    let mut keydir = Keydir::new();
    assert!(keydir.ram_bytes() < 256);
    for key in 0..100 {
        keydir.upsert(hash(key), location(key, 0));
    }
    assert!(keydir.ram_bytes() < 5_000);
}

/// Doubling tables would cost 35 bytes per key on average and 48 at worst.
#[test]
fn ram_per_key_is_bounded_at_every_size() {
    let mut keydir = Keydir::new();
    let mut printed_len = 100_000;
    for key in 0..1_000_000 {
        keydir.upsert(hash(key), location(key, 0));
        let per_key = keydir.ram_bytes() as f64 / keydir.len() as f64;
        if keydir.len() == printed_len {
            println!("{printed_len:9} keys: {per_key:.2} bytes per key");
            printed_len += printed_len / 2;
        }
        assert!(key < 200_000 || per_key <= 29.0, "{per_key} at {} keys", keydir.len());
    }
    for table in keydir.directory.tables() {
        assert!(table.read().bytes() <= TABLE_BYTES, "K7");
    }
    assert_ram_is_exact(&keydir);
}

/// Marks of removed entries fill a table's buckets; hashbrown's answer to that is to double it.
#[test]
fn churn_at_a_constant_size_takes_no_more_ram() {
    const LIVE: u64 = 100_000;
    let mut keydir = Keydir::new();
    for key in 0..LIVE {
        keydir.upsert(hash(key), location(key, 0));
    }
    let ram_bytes = keydir.ram_bytes();
    for key in LIVE..10 * LIVE {
        keydir.remove(hash(key - LIVE)).unwrap();
        keydir.upsert(hash(key), location(key, 0));
    }
    assert_eq!(keydir.len(), LIVE);
    assert!(keydir.ram_bytes() <= ram_bytes + TABLE_BYTES as u64);
    assert_ram_is_exact(&keydir);
}

#[test]
fn an_emptied_keydir_grows_again() {
    let mut keydir = Keydir::new();
    for _ in 0..3 {
        for key in 0..60_000 {
            assert_eq!(keydir.upsert(hash(key), location(key, 1)), None);
        }
        for key in 0..60_000 {
            assert_eq!(keydir.remove(hash(key)), Some(location(key, 1)));
        }
        assert_eq!(keydir.len(), 0);
    }
    assert!(contents(&keydir).is_empty());
}

/// Every insertion around a step must find its entry again, in whichever table it is now.
#[test]
fn entries_are_found_with_the_frontier_at_every_table() {
    let mut keydir = Keydir::new();
    let mut frontier_before = (0, 0);
    let mut checks = 0;
    for key in 0..60_000 {
        keydir.upsert(hash(key), location(key, 0));
        let frontier = (keydir.directory.current.len(), keydir.directory.next.len());
        let built = keydir.directory.next.iter().filter(|table| table.read().bytes() > 0).count();
        if (frontier.0, built) != frontier_before {
            frontier_before = (frontier.0, built);
            checks += 1;
            assert_eq!(contents(&keydir).len() as u64, keydir.len());
            assert!((0..=key).all(|key| keydir.get(hash(key)) == Some(location(key, 0))));
        }
    }
    assert!(checks >= 10, "{checks}");
}

#[test]
fn loading_agrees_with_a_hash_map_in_any_order() {
    let mut random = Rng::with_seed(2);
    for (keys, offers) in [(10, 10), (1_000, 3_000), (20_000, 30_000), (150_000, 400_000)] {
        let mut seqnos: Vec<_> = (1..=offers).collect();
        random.shuffle(&mut seqnos);
        let mut model: HashMap<u64, (u32, Option<Location>)> = HashMap::new();
        let mut loader = KeydirLoader::new();
        for seqno in seqnos {
            let key = random.u64(..keys);
            let what = (random.u8(..4) > 0).then(|| location(key, seqno));
            loader.offer(hash(key), Seqno(u64::from(seqno) << 30), what);
            let newest = model.entry(key).or_insert((seqno, what));
            if newest.0 < seqno {
                *newest = (seqno, what);
            }
        }
        for (key, (seqno, what)) in &mut model {
            // Whoever is newer than the range keeps what it put.
            let hidden = *seqno - random.u32(..2);
            if random.u8(..4) == 0 {
                loader.hide(hash(*key), Seqno(u64::from(hidden) << 30));
                *what = what.filter(|_| hidden < *seqno);
            }
        }
        let live: HashMap<_, _> =
            model.iter().filter_map(|(key, (_, what))| Some((*key, (*what)?))).collect();

        let mut counted = 0;
        let mut keydir = loader.finish(Aging::Off, |_| counted += 1);
        assert_eq!((counted, keydir.len()), (live.len(), live.len() as u64));
        for key in 0..keys {
            assert_eq!(keydir.get(hash(key)), live.get(&key).copied());
        }
        assert_ram_is_exact(&keydir);
        assert!(keydir.growth.is_none());

        // It goes on growing like one that was filled by its writer.
        for key in keys..keys + 100_000 {
            assert_eq!(keydir.upsert(hash(key), location(key, 0)), None);
        }
        assert_eq!(contents(&keydir).len() as u64, live.len() as u64 + 100_000);
        assert!(keydir.directory.current.len() as u64 * TABLE_FILL < keydir.len() * 2);
    }
}

#[test]
fn an_empty_load_is_an_empty_keydir() {
    let mut loader = KeydirLoader::new();
    loader.offer(hash(1), Seqno(2), None);
    loader.offer(hash(1), Seqno(1), Some(location(1, 1)));
    let keydir = loader.finish(Aging::Off, |at| panic!("{at:?} is deleted"));
    assert_eq!(keydir.len(), 0);
    assert!(keydir.ram_bytes() < 256);
}

/// Callers clone the file in `f`; were the entry replaced meanwhile, the file could be gone.
#[test]
fn the_table_stays_locked_while_the_caller_takes_the_file() {
    let mut keydir = Keydir::new();
    keydir.upsert(hash(1), location(1, 1));
    let table = keydir.directory.table(hash(1).table);
    assert_eq!(keydir.reader().lookup(hash(1), |_| table.is_locked()), Some(true));
    assert!(!table.is_locked());
}

/// What the writer has begun and finished with each key, so that readers know which answers are
/// right: version `v` is absent if `v % 4 == 0` and a location with that version otherwise.
struct History {
    begun: Vec<AtomicU32>,
    done: Vec<AtomicU32>,
}

impl History {
    fn new(keys: usize) -> Self {
        let zeros = || (0..keys).map(|_| AtomicU32::new(0)).collect();
        Self { begun: zeros(), done: zeros() }
    }

    fn advance(&self, keydir: &mut Keydir, key: usize) {
        let version = self.done[key].load(Ordering::Relaxed) + 1;
        self.begun[key].store(version, Ordering::SeqCst);
        if version.is_multiple_of(4) {
            assert!(keydir.remove(hash(key as u64)).is_some());
        } else {
            keydir.upsert(hash(key as u64), location(key as u64, version));
        }
        self.done[key].store(version, Ordering::SeqCst);
    }

    fn check(&self, reader: &KeydirReader, key: usize) {
        let oldest = self.done[key].load(Ordering::SeqCst);
        let found = reader.lookup(hash(key as u64), |found| self.is_fresh(key, found));
        self.judge(key, oldest, found);
    }

    fn check_together(&self, reader: &KeydirReader, keys: &[usize]) {
        let oldest: Vec<_> =
            keys.iter().map(|key| self.done[*key].load(Ordering::SeqCst)).collect();
        let hashes: Vec<_> = keys.iter().map(|key| hash(*key as u64)).collect();
        let mut found = vec![None; keys.len()];
        reader.lookup_many(&hashes, |number, location| {
            let before = found[number].replace(location.map(|at| self.is_fresh(keys[number], at)));
            assert_eq!(before, None, "told twice");
        });
        for ((key, oldest), found) in keys.iter().zip(oldest).zip(found) {
            self.judge(*key, oldest, found.expect("each is told"));
        }
    }

    /// While a reader is told of it, the writer cannot have finished a later version.
    fn is_fresh(&self, key: usize, found: Location) -> Location {
        let version = found.offset / 8;
        assert!(self.done[key].load(Ordering::SeqCst) <= version, "a stale entry of {key}");
        found
    }

    fn judge(&self, key: usize, oldest: u32, found: Option<Location>) {
        let newest = self.begun[key].load(Ordering::SeqCst);
        match found {
            Some(found) => {
                let version = found.offset / 8;
                assert_eq!(found, location(key as u64, version));
                assert!((oldest..=newest).contains(&version), "{key}: {oldest} {version} {newest}");
            }
            None => assert!(
                (oldest..=newest).any(|v| v.is_multiple_of(4)),
                "{key} is missing at {oldest}"
            ),
        }
    }
}

/// Readers look up random keys, and keys right at the frontier, where tables change hands, while
/// the writer inserts, overwrites and removes. Without K11 this fails within the first steps.
#[test]
fn readers_see_the_present_while_tables_change_hands() {
    const KEYS: usize = 300_000;
    let mut by_table: Vec<_> = (0..KEYS).map(|key| (hash(key as u64).table, key)).collect();
    by_table.sort_unstable();
    let history = History::new(KEYS);
    let mut keydir = Keydir::new();
    let is_done = AtomicBool::new(false);

    thread::scope(|scope| {
        for seed in 0..3 {
            let reader = keydir.reader();
            let (history, is_done, by_table) = (&history, &is_done, &by_table);
            scope.spawn(move || {
                let mut random = Rng::with_seed(seed);
                while !is_done.load(Ordering::Relaxed) {
                    history.check(&reader, random.usize(..KEYS));
                    let frontier = reader.shared.directory.load().frontier();
                    let at = by_table.partition_point(|(table, _)| u64::from(*table) < frontier);
                    let near = (at + random.usize(..64)).saturating_sub(32).min(KEYS - 1);
                    history.check(&reader, by_table[near].1);
                    let some = by_table[near..].iter().step_by(3).take(40).map(|(_, key)| *key);
                    let some: Vec<_> = some.collect();
                    history.check_together(&reader, &some);
                }
            });
        }

        let mut random = Rng::with_seed(9);
        for key in 0..KEYS {
            history.advance(&mut keydir, key);
            history.advance(&mut keydir, random.usize(..=key));
        }
        is_done.store(true, Ordering::Relaxed);
    });

    for key in 0..KEYS {
        history.check(&keydir.reader(), key);
    }
    history.check_together(&keydir.reader(), &(0..KEYS).collect::<Vec<_>>());
}

/// Nobody waits for a table while he holds others: two that wait for each other would wait for ever.
#[test]
fn a_table_that_is_written_to_is_waited_for_alone() {
    let mut keydir = Keydir::new();
    for key in 0..60_000 {
        keydir.upsert(hash(key), location(key, 1));
    }
    let table_of = |key: &KeyHash| keydir.directory.table(key.table);
    let written = table_of(&hash(1));
    let is_other = |key: &&KeyHash| !std::ptr::eq(table_of(key), written);
    let reader = keydir.reader();
    let hashes: Vec<_> = (0..16).map(hash).collect();
    let told = AtomicU32::new(0);
    thread::scope(|scope| {
        let lock = written.write();
        let others = hashes.iter().filter(is_other).count() as u32;
        assert!(others < 16);
        let looking = scope.spawn(|| {
            reader.lookup_many(&hashes, |_, location| {
                assert!(location.is_some());
                told.fetch_add(1, Ordering::SeqCst);
            });
        });
        while told.load(Ordering::SeqCst) < others {
            thread::yield_now();
        }
        hashes.iter().filter(is_other).for_each(|key| drop(table_of(key).write()));
        drop(lock);
        looking.join().unwrap();
    });
    assert_eq!(told.load(Ordering::SeqCst), 16);
}
