//! Scans and reads beside writers, over many more keys than a history has: a key that is there throughout is
//! found exactly once, with a value it had meanwhile; one that was never put is never found.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::StreamExt;
use ringcask::{Compaction, Db, Durability};

use crate::history::Finish;
use crate::run::On;
use crate::sequences::effort;
use crate::support::{counted, seed, wait};

/// Put once, before everything else.
const STILL: u64 = 60;
/// Overwritten all the time.
const MOVING: u64 = 20;
/// Put and deleted all the time.
const BLINKING: u64 = 10;

/// What a key is for is in its name, and which version a value is is in the value.
fn key(kind: &str, n: u64) -> String {
    format!("{n:03} {kind}")
}

fn value(n: u64, version: u64) -> Vec<u8> {
    let head = format!("{n} {version} ");
    [head.as_bytes(), &vec![b'.'; (n * 37 % 300) as usize]].concat()
}

/// The version; panics if it is not this key's value.
fn version_of(n: u64, bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).unwrap();
    let version = text.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(bytes == value(n, version), "the value of another key, or half of one: {text}");
    version
}

/// Of each moving key the last version that was sent, and the last one that was answered.
struct Versions {
    sent: Vec<AtomicU64>,
    done: Vec<AtomicU64>,
}

impl Versions {
    fn new() -> Versions {
        let zeros = || (0..MOVING).map(|_| AtomicU64::new(0)).collect();
        Versions { sent: zeros(), done: zeros() }
    }

    fn now(of: &[AtomicU64]) -> Vec<u64> {
        of.iter().map(|version| version.load(Ordering::SeqCst)).collect()
    }
}

struct Scene<'a> {
    db: &'a Db,
    versions: &'a Versions,
    over: &'a AtomicBool,
}

impl Scene<'_> {
    fn write(&self, random: &mut fastrand::Rng, rounds: u64) {
        for _ in 0..rounds {
            let n = random.u64(..MOVING);
            let version = self.versions.sent[n as usize].fetch_add(1, Ordering::SeqCst) + 1;
            wait(self.db.put(key("moving", n), value(n, version))).unwrap();
            self.versions.done[n as usize].store(version, Ordering::SeqCst);
            let n = random.u64(..BLINKING);
            wait(self.db.put(key("blinking", n), value(n, 0))).unwrap();
            wait(self.db.del(key("blinking", n))).unwrap();
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Reads what must be there, and what must not, as fast as can be.
    fn read(&self, random: &mut fastrand::Rng) -> u64 {
        let mut count = 0;
        while !self.is_over() {
            let n = random.u64(..STILL);
            let found = wait(self.db.get(key("still", n))).unwrap();
            assert!(
                found.is_some_and(|found| version_of(n, &found) == 0),
                "a key was not there for a moment"
            );
            let n = random.u64(..MOVING);
            let least = self.versions.done[n as usize].load(Ordering::SeqCst);
            let found = wait(self.db.get(key("moving", n))).unwrap().expect("it is never deleted");
            let most = self.versions.sent[n as usize].load(Ordering::SeqCst);
            assert!(
                (least..=most).contains(&version_of(n, &found)),
                "an old value, or one from nowhere"
            );
            assert_eq!(wait(self.db.get(key("never", n))).unwrap(), None);
            count += 3;
        }
        count
    }

    fn scan(&self, is_reverse: bool) {
        let least = Versions::now(&self.versions.done);
        let scan = if is_reverse { self.db.scan().reverse() } else { self.db.scan() };
        let mut found: Vec<_> = wait(scan.map(Result::unwrap).collect());
        let most = Versions::now(&self.versions.sent);
        if is_reverse {
            found.reverse();
        }
        assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "out of order, or a key twice");
        let (mut still, mut moving) = (0, 0);
        for (key, value) in &found {
            let (n, kind) = std::str::from_utf8(key).unwrap().split_once(' ').unwrap();
            let n: u64 = n.parse().unwrap();
            let version = version_of(n, value);
            match kind {
                "still" => still += 1,
                "moving" => {
                    moving += 1;
                    let at = n as usize;
                    assert!(
                        (least[at]..=most[at]).contains(&version),
                        "an old value, or one from nowhere"
                    );
                }
                "blinking" => {}
                _ => panic!("a key that was never put: {kind}"),
            }
        }
        assert_eq!((still, moving), (STILL, MOVING), "a key that is there is missing");
    }
}

fn beside(on: On, rounds: u64) {
    let random = &mut fastrand::Rng::with_seed(seed());
    let store = on.store(random.u64(..));
    let options = store
        .options()
        .partitions(2)
        .data_file_len_max(8 << 10)
        .open_files_max(random.usize(1..20));
    let options = options.durability(Durability::Buffered).compaction(Compaction::off());
    let db = store.open_with(options);
    for n in 0..STILL {
        wait(db.put(key("still", n), value(n, 0))).unwrap();
        wait(db.put(key("moving", n % MOVING), value(n % MOVING, 0))).unwrap();
    }
    let (versions, over) = (Versions::new(), AtomicBool::new(false));
    let scene = &Scene { db: &db, versions: &versions, over: &over };
    let mut forks: Vec<fastrand::Rng> = (0..3).map(|_| random.fork()).collect();
    let (mut writer, mut readers) = (forks.remove(0), forks);
    let mut scans = 0;
    let reads: u64 = std::thread::scope(|scope| {
        let finish = Finish(&over);
        let readers: Vec<_> = readers
            .drain(..)
            .map(|mut random| scope.spawn(move || scene.read(&mut random)))
            .collect();
        let compacting = scope.spawn(|| {
            while !scene.is_over() {
                wait(db.compact()).unwrap();
            }
        });
        let writing = scope.spawn(move || scene.write(&mut writer, rounds));
        while !writing.is_finished() {
            scans += 1;
            scene.scan(scans % 2 == 0);
        }
        writing.join().unwrap();
        drop(finish);
        compacting.join().unwrap();
        readers.into_iter().map(|reading| reading.join().unwrap()).sum()
    });
    scene.scan(false);
    let total = db.stats().total();
    assert!(total.compactions > 0 && total.rotations > 0, "nothing moved: {total:?}");
    wait(db.close()).unwrap();
    counted("scans beside writers", scans);
    counted("reads beside writers", reads);
}

/// Breaks if a walk misses a key that moves while it goes, or has it twice; or if compaction takes a key away
/// for a moment.
#[test]
fn what_is_there_throughout_is_found_beside_writers() {
    beside(On::Sim, 1500 * effort());
}

#[test]
fn what_is_there_throughout_is_found_beside_writers_on_a_ring() {
    beside(On::Uring, 1000 * effort());
}

#[test]
fn what_is_there_throughout_is_found_beside_writers_on_helper_threads() {
    beside(On::Blocking, 1000 * effort());
}

#[test]
fn what_is_there_throughout_is_found_beside_writers_in_memory() {
    beside(On::Memory, 1000 * effort());
}
