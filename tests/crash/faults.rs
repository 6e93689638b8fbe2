//! Every operation, read and open of a script fails, once and for good, with every error.

use std::sync::atomic::{AtomicU64, Ordering};

use ringcask::sim::{Cut, Moment, OpKind, SimDisk};
use ringcask::{Db, ErrorKind};

use crate::cores::on_all_cores;
use crate::history::History;
use crate::run::{Player, expected_error, record};
use crate::script::{self, Session, Settings, Step};
use crate::support::{
    EAGAIN, EDQUOT, EINTR, EIO, EMFILE, ENOSPC, Store, contents, counted, seed, wait,
};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Op {
        errno: i32,
        forever: bool,
    },
    /// A write of several bytes transfers only some of them.
    Short,
    /// And then the rest of it fails.
    Half {
        errno: i32,
    },
    Read {
        errno: i32,
        forever: bool,
    },
    Open {
        errno: i32,
        forever: bool,
    },
}

impl Fault {
    fn set(self, disk: &SimDisk, nth: u64) {
        match self {
            Fault::Op { errno, forever } => disk.fail_op(nth, errno, forever),
            Fault::Short => disk.shorten_op(nth),
            Fault::Half { errno } => {
                disk.shorten_op(nth);
                disk.fail_op(nth + 1, errno, false);
            }
            Fault::Read { errno, forever } => disk.fail_read(nth, errno, forever),
            Fault::Open { errno, forever } => disk.fail_open(nth, errno, forever),
        }
    }

    /// How many there were of what it counts.
    fn count(self, disk: &SimDisk) -> u64 {
        match self {
            Fault::Op { .. } | Fault::Short | Fault::Half { .. } => disk.ops(),
            Fault::Read { .. } => disk.reads(),
            Fault::Open { .. } => disk.opens(),
        }
    }

    /// Whether nobody may notice.
    fn is_harmless(self) -> bool {
        self == Fault::Short
    }
}

/// A session, and what it begins with.
struct Beginning {
    session: Session,
    disk: SimDisk,
    history: History,
}

struct Faults {
    store: Store,
    beginnings: Vec<Beginning>,
    runs: AtomicU64,
}

impl Faults {
    fn new() -> Faults {
        let store = Store::sim(seed());
        let mut disk = store.disk().kill();
        let (mut history, mut beginnings) = (History::default(), Vec::new());
        for session in script::brief() {
            let before = disk.kill();
            beginnings.push(Beginning {
                session: session.clone(),
                disk: before,
                history: history.clone(),
            });
            disk = record(&store.on(disk), &session, &mut history).end;
        }
        Faults { store, beginnings, runs: AtomicU64::new(0) }
    }

    /// Runs every session with every one of `faults` at every place there is.
    fn everywhere(&self, faults: &[Fault]) {
        on_all_cores(self.beginnings.len() * faults.len(), |index| {
            let beginning = &self.beginnings[index / faults.len()];
            let fault = faults[index % faults.len()];
            let mut nth = 0;
            while self.run(beginning, fault, nth) {
                nth += 1;
            }
            let is_op = matches!(fault, Fault::Op { .. } | Fault::Short | Fault::Half { .. });
            let least = if is_op { 30 } else { 2 };
            assert!(nth > least, "{fault:?}: the session has {nth} of them");
        });
    }

    /// False if there is no such place.
    fn run(&self, beginning: &Beginning, fault: Fault, nth: u64) -> bool {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let what = format!("{fault:?} at {nth}");
        let store = self.store.on(beginning.disk.kill());
        let disk = store.disk();
        let mut history = beginning.history.clone();
        history.begin_session();
        fault.set(disk, nth);
        disk.record();
        let opened = wait(beginning.session.settings.options(&store).open(store.path()));
        let (mut killed, mut is_poisoned) = (None, false);
        let mut was_reached = fault.count(disk) > nth;
        match opened {
            Err(error) => {
                assert!(!fault.is_harmless(), "{what}: {error}");
                expected_error(error);
            }
            Ok(db) => {
                let opened_at = disk.ops();
                history.all_durable(opened_at);
                let settings = beginning.session.settings;
                let mut player =
                    Player { db: &db, disk, settings, history: &mut history, errors: Vec::new() };
                player.play(&beginning.session.steps);
                assert!(
                    player.errors.is_empty() || !fault.is_harmless(),
                    "{what}: {:?}",
                    player.errors
                );
                was_reached = fault.count(disk) > nth;
                killed = Some((disk.kill(), history.clone()));
                disk.clear_faults();
                assert_eq!(
                    &contents(&db),
                    history.visible(),
                    "{what}: what is seen is what was told"
                );
                is_poisoned = check_healed(&db, disk, &mut history, beginning, &what);
                if was_reached {
                    let Settings { prewrite, .. } = settings;
                    check_failed_sync(&db, fault, &disk.moments(), opened_at, nth, prewrite, &what);
                }
                let closed = wait(db.close());
                match closed {
                    Ok(()) => history.oracle.all_durable(),
                    Err(error) => {
                        assert!(is_poisoned, "{what}: {error}");
                        assert_eq!(error.kind(), ErrorKind::Poisoned, "{what}: {error}");
                    }
                }
            }
        }
        disk.clear_faults();
        if let Some((disk, mut history)) = killed {
            for cut in [Cut::DropUnsynced, Cut::Random { seed: nth }] {
                let left = self.store.on(disk.power_cut(cut));
                check_reopened(&left, &history, beginning, &format!("{what}, {cut:?}"));
            }
            if !is_poisoned {
                history.oracle.all_durable();
            }
            check_reopened(&store.on(disk), &history, beginning, &format!("{what}, killed"));
        }
        check_reopened(&store, &history, beginning, &what);
        was_reached
    }
}

/// Once nothing fails any more, partitions that are not poisoned take writes, without another open (I7).
/// Returns whether one is.
fn check_healed(
    db: &Db,
    disk: &SimDisk,
    history: &mut History,
    beginning: &Beginning,
    what: &str,
) -> bool {
    let settings = beginning.session.settings;
    let poisoned = || -> Vec<bool> {
        db.stats().partitions.iter().map(|partition| partition.poisoned.is_some()).collect()
    };
    for key in 0..4 {
        let before = poisoned();
        let mut player = Player { db, disk, settings, history: &mut *history, errors: Vec::new() };
        player.play(&[Step::Put { key, len: 50, durable: true }]);
        let of_key = before[db.partition_of(crate::run::key_of(key))];
        match player.errors.first() {
            None => assert!(!of_key, "I6: {what}: a poisoned partition took a write"),
            Some(error) => {
                assert!(of_key, "I7: {what}: refused after the fault was over: {error}");
                assert_eq!(error.kind(), ErrorKind::Poisoned, "I6: {what}: {error}");
            }
        }
    }
    assert_eq!(&contents(db), history.visible(), "{what}: after it was over");
    poisoned().contains(&true)
}

/// I6: a data file whose sync failed is not synced again; its partition is poisoned, or the file was not
/// needed and is gone.
fn check_failed_sync(
    db: &Db,
    fault: Fault,
    moments: &[Moment],
    opened_at: u64,
    nth: u64,
    prewrite: bool,
    what: &str,
) {
    let is_sync = |moment: &Moment| {
        matches!(moment.kind, OpKind::Sync | OpKind::WriteDsync)
            && moment.path.extension().is_some_and(|end| end == "data")
    };
    let Fault::Op { errno, .. } = fault else { return };
    let (_, failed) = moments.split_at(nth as usize);
    let Some((first, later)) = failed.split_first().filter(|(first, _)| is_sync(first)) else {
        return;
    };
    // A write that was interrupted has done nothing yet, and is done again.
    if nth < opened_at || (errno == EINTR && first.kind == OpKind::WriteDsync) {
        return;
    }
    let path = &first.path;
    let again = later.iter().filter(|moment| is_sync(moment) && moment.path == *path).count();
    // Zeros ahead of the log are synced through a descriptor of their own, at the same time.
    let in_flight = usize::from(prewrite);
    let around = (nth as usize).saturating_sub(14)..moments.len().min(nth as usize + 8);
    let around: Vec<_> = moments[around].iter().map(|moment| (moment.kind, &moment.path)).collect();
    assert!(again <= in_flight, "I6: {what}: synced {again} times more: {around:?}");
    let is_poisoned = db.stats().total().poisoned.is_some();
    let is_gone = later.iter().any(|moment| moment.kind == OpKind::Remove && moment.path == *path);
    assert!(is_poisoned || is_gone, "I6: {what}: a failed sync of {} is no matter", path.display());
}

/// Everything acknowledged is there, twice.
fn check_reopened(store: &Store, history: &History, beginning: &Beginning, what: &str) {
    let mut oracle = history.oracle.clone();
    for again in 0..2 {
        let what = format!("{what}, reopened {again}");
        let opened = store.try_open(beginning.session.settings.options(store));
        let db = opened.unwrap_or_else(|error| panic!("I5: {what}: {error}"));
        oracle.check(&db, &what);
        oracle.settle(&db);
        oracle.attempt(b"after", Some(b"v"));
        wait(db.put("after", "v")).unwrap();
        oracle.acknowledge(b"after", true);
        wait(db.close()).unwrap();
    }
}

/// Breaks if any single failure of the disk, or a disk that fails for good, makes the store panic, hang,
/// lose something that was acknowledged, or stay refusing when it is over.
#[test]
fn every_operation_may_fail_with_every_error() {
    let faults = Faults::new();
    let mut kinds = vec![Fault::Short, Fault::Op { errno: EINTR, forever: false }];
    for errno in [EIO, ENOSPC, EDQUOT, EMFILE, EAGAIN] {
        kinds.push(Fault::Half { errno });
        // Interrupted for ever would be repeated for ever.
        kinds.extend([false, true].map(|forever| Fault::Op { errno, forever }));
    }
    faults.everywhere(&kinds);
    counted("runs with a failing operation", faults.runs.into_inner());
}

/// Breaks if a read that fails looks like a missing key, another value, or damage.
#[test]
fn every_read_and_open_may_fail() {
    let faults = Faults::new();
    let mut kinds = vec![Fault::Read { errno: EINTR, forever: false }];
    for forever in [false, true] {
        kinds.push(Fault::Read { errno: EIO, forever });
        kinds.extend([EMFILE, EIO].map(|errno| Fault::Open { errno, forever }));
    }
    faults.everywhere(&kinds);
    counted("runs with a failing read or open", faults.runs.into_inner());
}
