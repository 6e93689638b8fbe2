//! Threads that read and write a few keys while the store rotates, compacts, closes and is killed: what they
//! saw of each key must be what some order of their calls explains. Reads without a hop race with all of
//! that, which no sequence from one thread does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

use futures::future::join_all;
use ringcask::sim::{SimClock, SimDisk};
use ringcask::{Db, ErrorKind};

use crate::history::{Finish, Seen, Time, call, judge, scan};
use crate::op::Fate;
use crate::run::On;
use crate::sequences::effort;
use crate::settings::{Compacting, Holding, Settings};
use crate::support::{Store, counted, seed, wait};
use crate::verb::Verb;

const KEYS: u8 = 3;
/// Reads of one thread that does nothing else, at most.
const READS_MAX: usize = 2000;

/// What one life of a store is disturbed by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// Nothing, until everybody is done.
    Late,
    /// It is closed under its callers.
    Closed,
    /// It is killed under them.
    Killed,
}

/// What all threads of a history share.
struct Scene<'a> {
    time: &'a Time,
    db: &'a Db,
    /// Writers are done, or the store is closed.
    over: &'a AtomicBool,
}

fn settings(random: &mut fastrand::Rng) -> Settings {
    let compacting = if random.u8(..3) > 0 { Compacting::Always } else { Compacting::Never };
    let mut settings = Settings::random(random);
    settings.holding = match settings.holding {
        Holding::LeastRecent(_) => Holding::LeastRecent(1 + u64::from(KEYS) / 2),
        Holding::ByChance(_) => Holding::ByChance(1),
        _ => Holding::All,
    };
    Settings { file_len_log2: random.u32(12..15), compacting, ..settings }
}

fn verb(random: &mut fastrand::Rng) -> Verb {
    let len = match random.u8(..100) {
        // Too long for a read without a hop.
        0 => random.u32(65_000..70_000),
        1..10 => random.u32(1000..5000),
        _ => random.u32(8..200),
    };
    Verb::among(random, KEYS, len)
}

impl Scene<'_> {
    /// Some calls at a time, until enough is done or the store is closed.
    fn write(&self, random: &mut fastrand::Rng, first: u64) -> Vec<Seen> {
        let mut history = Vec::new();
        let mut numbers = first..;
        for _ in 0..random.usize(5..30) {
            let calls: Vec<(Verb, u64, Fate)> = (0..random.usize(1..4))
                .map(|_| {
                    let verb = verb(random);
                    let fate = match random.u8(..12) {
                        // As in sequences: a later call says nothing of what waits for its key.
                        0 if !verb.may_wait() => Fate::Dropped(random.u8(..4)),
                        _ => Fate::Awaited,
                    };
                    (verb, numbers.next().unwrap_or_default(), fate)
                })
                .collect();
            let calls = calls
                .iter()
                .map(|(verb, number, fate)| call(self.time, self.db, verb, *number, *fate));
            let mut is_open = true;
            for (seen, answered) in wait(join_all(calls)) {
                history.extend(seen);
                is_open &= answered;
            }
            if !is_open {
                break;
            }
        }
        history
    }

    /// One read after the other, as fast as can be.
    fn read(&self, random: &mut fastrand::Rng) -> Vec<Seen> {
        let mut history = Vec::new();
        for _ in 0..READS_MAX {
            let key = random.u8(..KEYS);
            let verb = if random.u8(..8) == 0 { Verb::Contains { key } } else { Verb::Get { key } };
            let (seen, is_open) = wait(call(self.time, self.db, &verb, 0, Fate::Awaited));
            history.extend(seen);
            if !is_open || self.over.load(Ordering::SeqCst) {
                break;
            }
        }
        history
    }

    /// Everything else that a store can be asked for meanwhile.
    fn disturb(&self, random: &mut fastrand::Rng) -> Vec<Seen> {
        let mut history = Vec::new();
        while !self.over.load(Ordering::SeqCst) {
            let done = match random.u8(..8) {
                0..3 => wait(self.db.compact()).map(drop),
                3 => wait(self.db.cancel_compaction()),
                4 => wait(self.db.sync()),
                5 => {
                    assert!(self.db.stats().total().keys <= u64::from(KEYS));
                    Ok(())
                }
                _ => {
                    history.extend(wait(scan(self.time, self.db, KEYS, random.bool())));
                    Ok(())
                }
            };
            match done {
                Err(error) if error.kind() == ErrorKind::Closed => break,
                Err(error) if error.kind() == ErrorKind::Cancelled => {}
                done => done.unwrap(),
            }
        }
        history
    }
}

/// One life of the store from opening it to its end; returns what was seen, and what is left of the disk if
/// it was killed.
fn live(
    store: &Store,
    time: &Time,
    random: &mut fastrand::Rng,
    life: u64,
    end: End,
    settings: &Settings,
) -> (Vec<Seen>, Option<SimDisk>) {
    let options = settings.options(store, &SimClock::new(0));
    let options = if life == 0 { options.partitions(random.u32(1..3)) } else { options };
    let db = store.open_with(options);
    let over = AtomicBool::new(false);
    let scene = Scene { time, db: &db, over: &over };
    let writers = random.u64(1..4);
    let mut forks: Vec<fastrand::Rng> = (0..writers + 2).map(|_| random.fork()).collect();
    let (mut reader, mut disturber) = (forks.remove(0), forks.remove(0));
    let (mut history, killed) = std::thread::scope(|scope| {
        let scene = &scene;
        let finish = Finish(&over);
        let reading = scope.spawn(move || scene.read(&mut reader));
        let disturbing = scope.spawn(move || scene.disturb(&mut disturber));
        let writing: Vec<_> = (1..)
            .zip(forks)
            .map(|(writer, mut random)| {
                let first = (life * 100 + writer) << 32;
                scope.spawn(move || scene.write(&mut random, first))
            })
            .collect();
        // As many calls later as the numbers say, whatever time that takes.
        let moment = time.now() + random.u64(..150);
        while end != End::Late
            && time.passed() < moment
            && !writing.iter().all(ScopedJoinHandle::is_finished)
        {
            std::thread::yield_now();
        }
        let killed = match end {
            End::Late => None,
            End::Closed => {
                wait(db.close()).unwrap();
                None
            }
            End::Killed => {
                let at = time.now();
                Some((at, store.disk().kill(), time.now()))
            }
        };
        let mut history: Vec<Seen> = Vec::new();
        for writing in writing {
            history.extend(writing.join().unwrap());
        }
        drop(finish);
        history.extend(reading.join().unwrap());
        history.extend(disturbing.join().unwrap());
        (history, killed)
    });
    let left = killed.map(|(at, left, until)| {
        history.retain(|call| call.begun < until);
        for call in &mut history {
            call.kill(at);
        }
        left
    });
    match (end, random.bool()) {
        (End::Late, true) => drop(db),
        _ => wait(db.close()).unwrap(),
    }
    let expired = time.now();
    for call in &mut history {
        call.expired = Some(expired);
    }
    (history, left)
}

/// Some lives of one store.
fn history(mut store: Store, random: &mut fastrand::Rng) -> u64 {
    let time = Time::default();
    let mut history = Vec::new();
    let lives = random.u64(1..4);
    let mut evicts = false;
    for life in 0..lives {
        let end = match random.u8(..4) {
            0 => End::Late,
            1 => End::Closed,
            _ if store.is_sim() => End::Killed,
            _ => End::Late,
        };
        let settings = settings(random);
        evicts |= settings.holding.evicts();
        let (seen, left) = live(&store, &time, random, life, end, &settings);
        history.extend(seen);
        if let Some(left) = left {
            store = store.on(left);
        }
    }
    let settings = Settings { holding: Holding::All, ..settings(random) };
    let db = store.open_with(settings.options(&store, &SimClock::new(0)));
    let all = Verb::GetMany { keys: (0..KEYS).collect() };
    history.extend(wait(call(&time, &db, &all, 0, Fate::Awaited)).0);
    history.extend(wait(scan(&time, &db, KEYS, false)));
    wait(db.close()).unwrap();
    for key in 0..KEYS {
        let seen: Vec<Seen> = history.iter().filter(|call| call.key == key).cloned().collect();
        let states = judge(&seen, evicts)
            .unwrap_or_else(|what| panic!("{}: key {key}: {what}", store.name()));
        assert_eq!(states.len(), 1, "read at the end, and so decided");
    }
    history.len() as u64
}

fn histories(on: On, count: u64) {
    let random = &mut fastrand::Rng::with_seed(seed());
    let count = count * effort();
    let calls: u64 = (0..count).map(|_| history(on.store(random.u64(..)), random)).sum();
    counted("histories", count);
    counted("calls in histories", calls);
}

/// Breaks if a read races with a write, a rotation, a compaction or a close and loses: a stale value, one
/// that comes back, one that is not there for a moment; or if a crash takes what was acknowledged.
#[test]
fn whatever_threads_see_some_order_explains() {
    histories(On::Sim, 250);
}

#[test]
fn whatever_threads_see_some_order_explains_on_a_ring() {
    histories(On::Uring, 60);
}

#[test]
fn whatever_threads_see_some_order_explains_on_helper_threads() {
    histories(On::Blocking, 60);
}

#[test]
fn whatever_threads_see_some_order_explains_in_memory() {
    histories(On::Memory, 60);
}
