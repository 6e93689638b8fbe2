//! What a store may hold after a crash: of each partition a beginning of what was sent to it, in the
//! order in which it was sent, with everything in it that was promised; and never a byte that nobody
//! wrote.
//!
//! That is more than every key being in a state that it may be in: two keys may not be at two moments.

use std::sync::Mutex;

use futures::TryStreamExt;
use ringcask::{Db, Durability, Error};

use super::wait;

/// Grows with every write to a key; the value follows from it.
pub(crate) type Version = u64;

/// A version, or `None` for a key that is absent.
type State = Option<Version>;

/// How long values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lens {
    /// From nothing to a few pages, so that groups end anywhere.
    Mixed,
    /// All the same, so that a new group ends exactly where an old one did.
    Same,
}

/// Everything sent to a store since it was last checked. One writer a key, one thread for all: what
/// it sends first comes first in the log of a partition (W1).
pub(crate) struct Model {
    lens: Lens,
    history: Mutex<History>,
}

#[derive(Clone)]
struct History {
    /// Of each key what it held when the store was last checked.
    base: Vec<State>,
    newest: Vec<Version>,
    sent: Vec<Sent>,
    /// Of each key; empty until a store has been asked.
    partition_of: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Sent {
    index: usize,
    version: Version,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Unknown,
    /// Acknowledged, at some durability.
    Answered,
    Durable,
}

/// A write that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    at: usize,
    pub(crate) version: Version,
}

/// Of all that was sent, what a store must hold.
pub(crate) struct Promised {
    /// What had been sent by then.
    sent_count: usize,
    /// Positions of what is durable; the last ones of each partition would do.
    durable: Vec<usize>,
}

/// How much of what was sent a store still had.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Survived {
    pub(crate) kept: usize,
    pub(crate) lost: usize,
}

impl Model {
    pub(crate) fn new(key_count: usize, lens: Lens) -> Model {
        let history = History {
            base: vec![None; key_count],
            newest: vec![0; key_count],
            sent: Vec::new(),
            partition_of: Vec::new(),
        };
        Model { lens, history: Mutex::new(history) }
    }

    pub(crate) fn key_count(&self) -> usize {
        self.history.lock().unwrap().base.len()
    }

    /// The version to write next; from now on it may be there.
    pub(crate) fn attempt(&self, index: usize) -> Ticket {
        let mut history = self.history.lock().unwrap();
        history.newest[index] += 1;
        let version = history.newest[index];
        history.sent.push(Sent { index, version, fate: Fate::Unknown });
        Ticket { at: history.sent.len() - 1, version }
    }

    /// It was acknowledged, which a killed process does not change.
    pub(crate) fn answered(&self, ticket: Ticket) {
        self.learn(ticket, Fate::Answered);
    }

    /// It was acknowledged as durable, and so was everything sent to its partition before.
    pub(crate) fn durable(&self, ticket: Ticket) {
        self.learn(ticket, Fate::Durable);
    }

    fn learn(&self, ticket: Ticket, fate: Fate) {
        let sent = &mut self.history.lock().unwrap().sent[ticket.at];
        sent.fate = sent.fate.max(fate);
    }

    /// From now on everything that was acknowledged, at any durability, must be there.
    pub(crate) fn everything_is_durable(&self) {
        for sent in &mut self.history.lock().unwrap().sent {
            if sent.fate == Fate::Answered {
                sent.fate = Fate::Durable;
            }
        }
    }

    /// The newest version attempted of any key.
    pub(crate) fn newest(&self) -> Version {
        self.history.lock().unwrap().newest.iter().copied().max().unwrap_or(0)
    }

    /// A process that is not this one goes on with every key, from the version that is returned.
    pub(crate) fn go_on(&self) -> Version {
        let base = self.newest();
        self.history.lock().unwrap().newest.fill(base);
        base
    }

    /// Writes the next version of a key; an acknowledgement that `counts` is held against the store.
    pub(crate) async fn write(
        &self,
        db: &Db,
        index: usize,
        durability: Durability,
        counts: bool,
    ) -> Result<Ticket, Error> {
        let ticket = self.attempt(index);
        write(db, self.lens, index, ticket.version, durability).await?;
        self.answered(ticket);
        if counts {
            self.durable(ticket);
        }
        Ok(ticket)
    }

    /// What a copy of the disk that is made from now on must hold.
    pub(crate) fn promised(&self) -> Promised {
        let history = self.history.lock().unwrap();
        let is_durable = |at: &usize| history.sent[*at].fate == Fate::Durable;
        let sent_count = history.sent.len();
        Promised { sent_count, durable: (0..sent_count).filter(is_durable).collect() }
    }

    /// Holds a store against the model; what it holds is what it must hold from now on.
    pub(crate) fn check(&self, db: &Db) -> Survived {
        let found = self.read(db);
        self.learn_partitions(db);
        let promised = self.promised();
        let mut history = self.history.lock().unwrap();
        let survived = history.hold(self.lens, &found, &promised);
        history.base = found;
        history.sent.clear();
        survived
    }

    /// Holds a store against the model that refused the last of what was sent, and has to be without it.
    pub(crate) fn check_refused(&self, db: &Db) {
        self.history.lock().unwrap().sent.retain(|sent| sent.fate != Fate::Unknown);
        self.check(db);
    }

    /// Holds a copy of the store against what had been promised before it was made; the store itself
    /// may have gone on.
    pub(crate) fn check_copy(&self, copy: &Db, promised: &Promised) -> Survived {
        let found = self.read(copy);
        self.learn_partitions(copy);
        // Not under the lock, which writers wait for.
        let history = self.history.lock().unwrap().clone();
        history.hold(self.lens, &found, promised)
    }

    /// What each key holds, by gets and by a scan.
    fn read(&self, db: &Db) -> Vec<State> {
        let get = |index| {
            let value = wait(db.get(key_name(index))).unwrap();
            value.map(|value| version_in(self.lens, index, &value))
        };
        let found: Vec<State> = (0..self.key_count()).map(get).collect();
        let entries: Vec<_> = wait(db.scan().try_collect()).unwrap();
        assert_eq!(entries.len(), found.iter().flatten().count(), "a scan finds what gets do");
        for (key, value) in entries {
            let name = std::str::from_utf8(&key).unwrap();
            let index = name.strip_prefix("key-").and_then(|index| index.parse().ok());
            let index = index.expect("only keys of the model");
            assert_eq!(Some(version_in(self.lens, index, &value)), found[index], "{name}");
        }
        found
    }

    /// Where keys belong, as a store that counts gets for each partition gives away.
    fn learn_partitions(&self, db: &Db) {
        if !self.history.lock().unwrap().partition_of.is_empty() {
            return;
        }
        let gets = || db.stats().partitions.iter().map(|one| one.gets).collect::<Vec<_>>();
        let partition_of = |index| {
            let before = gets();
            wait(db.get(key_name(index))).unwrap();
            let counted = before.iter().zip(gets()).position(|(before, after)| *before < after);
            counted.expect("a get is counted")
        };
        let partition_of = (0..self.key_count()).map(partition_of).collect();
        self.history.lock().unwrap().partition_of = partition_of;
    }
}

impl History {
    /// Finds for each partition a beginning of its history that ends in what was found.
    fn hold(&self, lens: Lens, found: &[State], promised: &Promised) -> Survived {
        let partition_count = self.partition_of.iter().max().map_or(0, |last| last + 1);
        let mut survived = Survived::default();
        for partition in 0..partition_count {
            let is_here = |at: &usize| self.partition_of[self.sent[*at].index] == partition;
            let here: Vec<usize> = (0..self.sent.len()).filter(is_here).collect();
            let durable = promised.durable.iter().copied().rfind(is_here);
            let required = here.partition_point(|at| Some(*at) <= durable);
            let kept = self.kept(lens, partition, &here, required, found);
            survived.kept += kept;
            // What was sent after a copy was made was never in it.
            let in_time = here.partition_point(|at| *at < promised.sent_count);
            survived.lost += in_time.saturating_sub(kept);
        }
        survived
    }

    /// The longest beginning of `here`, with `required` writes or more, that ends in what was found.
    fn kept(
        &self,
        lens: Lens,
        partition: usize,
        here: &[usize],
        required: usize,
        found: &[State],
    ) -> usize {
        let mut state = self.base.clone();
        let keys = (0..found.len()).filter(|key| self.partition_of[*key] == partition);
        let mut different = keys.filter(|key| state[*key] != found[*key]).count();
        let mut kept = None;
        let mut closest = (usize::MAX, 0, Vec::new());
        for count in 0..=here.len() {
            if count > 0 {
                let Sent { index, version, .. } = self.sent[here[count - 1]];
                different -= usize::from(state[index] != found[index]);
                state[index] = state_after(lens, version);
                different += usize::from(state[index] != found[index]);
            }
            if count >= required && different < closest.0 {
                closest = (different, count, state.clone());
            }
            if count >= required && different == 0 {
                kept = Some(count);
            }
        }
        kept.unwrap_or_else(|| {
            let (_, count, state) = closest;
            let wrong = |key: &usize| {
                self.partition_of[*key] == partition && state[*key] != found[*key]
            };
            let wrong: Vec<String> = (0..found.len())
                .filter(wrong)
                .map(|key| format!("{}: {:?}, found {:?}", key_name(key), state[key], found[key]))
                .collect();
            panic!(
                "partition {partition} is no beginning of what was sent: of {} writes {required} or \
                 more must be there, and closest is what {count} of them leave: {wrong:?}",
                here.len()
            )
        })
    }
}

/// Some versions are deletions, unless lengths are to stay the same.
pub(crate) fn is_deletion(lens: Lens, version: Version) -> bool {
    lens == Lens::Mixed && version % 7 == 3
}

fn state_after(lens: Lens, version: Version) -> State {
    (!is_deletion(lens, version)).then_some(version)
}

pub(crate) async fn write(
    db: &Db,
    lens: Lens,
    index: usize,
    version: Version,
    durability: Durability,
) -> Result<(), Error> {
    if is_deletion(lens, version) {
        db.del(key_name(index)).await?;
        return Ok(());
    }
    db.put(key_name(index), value_of(lens, index, version)).durability(durability).await
}

pub(crate) fn key_name(index: usize) -> String {
    format!("key-{index:04}")
}

pub(crate) fn value_of(lens: Lens, index: usize, version: Version) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(version.wrapping_mul(0x9E37_79B9) ^ index as u64);
    let filler_len = match lens {
        Lens::Same => 200,
        Lens::Mixed if rng.u8(..8) == 0 => rng.usize(..12_000),
        Lens::Mixed => rng.usize(..400),
    };
    let mut value = format!("{index:04}@{version:012}:").into_bytes();
    value.extend((0..filler_len).map(|_| rng.u8(..)));
    value
}

/// The version a value is of; panics if it is no value that was ever written to this key.
pub(crate) fn version_in(lens: Lens, index: usize, value: &[u8]) -> Version {
    let digits = value.get(5..17).and_then(|digits| std::str::from_utf8(digits).ok());
    let version = digits.and_then(|digits| digits.parse().ok());
    let version = version.unwrap_or_else(|| panic!("{}: an invented value", key_name(index)));
    assert!(
        value == value_of(lens, index, version),
        "{}: not the bytes of version {version}",
        key_name(index)
    );
    version
}
