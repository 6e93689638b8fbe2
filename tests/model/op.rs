//! Sequences of operations, as data: drawn from a seed, made simpler, printed as code.

use crate::settings::{PLAIN, Settings};
use crate::verb::{KEYS, Key, SPACES, Space, Verb};

/// A store from its creation on, and what is done with it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    pub(crate) disk_seed: u64,
    pub(crate) partitions: u32,
    pub(crate) settings: Settings,
    pub(crate) ops: Vec<Op>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    One(Verb),
    /// All in flight at the same time.
    Together(Vec<(Verb, Fate)>),
    /// With nothing else in flight.
    Rename {
        space: Space,
        from: Key,
        to: Key,
    },
    /// A keyspace that is not the default one.
    Drop(Space),
    Scan(Selection),
    Flush,
    Compact,
    /// Of one partition those data files whose bit is set.
    CompactSome {
        partition: u32,
        files: u16,
    },
    CompactAndCancel,
    /// A future that is dropped before it is ready.
    Abandon {
        what: Task,
        polls: u8,
    },
    /// Everything is read in every way there is.
    Check,
    /// A snapshot is made, and held against what is there.
    Snapshot,
    /// A snapshot is read, and says what it said when it was made; perhaps for the last time.
    LookBack {
        /// Which one, of those that there are.
        which: u8,
        selection: Selection,
        is_last: bool,
    },
    /// The wall clock jumps there, and a second passes.
    Clock {
        wall_ms: u64,
    },
    Reopen {
        how: How,
        between: Between,
        settings: Settings,
    },
}

/// What becomes of a call's future.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Awaited,
    /// Dropped after so many polls, if it is not ready by then.
    Dropped(u8),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Task {
    Scanning,
    ScanningKeys,
    Flushing,
    Compacting,
    Cancelling,
}

/// How an open store ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum How {
    Closed,
    ClosedTwice,
    /// With these in flight.
    ClosedUnder(Vec<Verb>),
    /// By a future that is dropped after its first poll.
    CloseDropped,
    /// The last handle is dropped.
    LetGo,
    /// The process, on a simulated disk; elsewhere as `LetGo`.
    Killed,
}

/// What happens while it is not open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Between {
    Nothing,
    Verified,
    Repaired,
    /// Opened by a future that is dropped after its first poll.
    OpenDropped,
}

/// What a scan is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Selection {
    pub(crate) space: Space,
    /// So many bytes of a key.
    pub(crate) prefix: Option<(Key, usize)>,
    pub(crate) from: Edge,
    pub(crate) to: Edge,
    pub(crate) reverse: bool,
    pub(crate) limit: Option<usize>,
    pub(crate) keys_only: bool,
    /// In pages of so many entries, each with a cursor that was text meanwhile.
    pub(crate) pages_of: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Edge {
    Open,
    With(Key),
    Without(Key),
}

/// Everything.
pub(crate) const ALL: Selection = Selection {
    space: 0,
    prefix: None,
    from: Edge::Open,
    to: Edge::Open,
    reverse: false,
    limit: None,
    keys_only: false,
    pages_of: None,
};

impl Case {
    pub(crate) fn random(random: &mut fastrand::Rng, ops_max: usize) -> Case {
        let disk_seed = random.u64(..1 << 32);
        let partitions = random.u32(1..4);
        let settings = Settings::random(random);
        let count = random.usize(5..ops_max);
        Case {
            disk_seed,
            partitions,
            settings,
            ops: std::iter::repeat_with(|| Op::random(random)).take(count).collect(),
        }
    }

    /// The same with less in it, those first that leave out most.
    pub(crate) fn simpler(&self) -> Vec<Case> {
        let with_ops = |ops| Case { ops, ..self.clone() };
        let mut simpler = Vec::new();
        let mut len = self.ops.len();
        while len > 0 {
            for start in (0..self.ops.len()).step_by(len).rev() {
                let end = (start + len).min(self.ops.len());
                simpler.push(with_ops([&self.ops[..start], &self.ops[end..]].concat()));
            }
            len /= 2;
        }
        for settings in self.settings.simpler() {
            simpler.push(Case { settings, ..self.clone() });
        }
        if self.partitions > 1 {
            simpler.push(Case { partitions: 1, ..self.clone() });
        }
        for (at, op) in self.ops.iter().enumerate() {
            for instead in op.simpler() {
                let mut ops = self.ops.clone();
                ops[at] = instead;
                simpler.push(with_ops(ops));
            }
        }
        simpler
    }

    /// As a test that can be pasted into `regressions.rs`.
    pub(crate) fn code(&self) -> String {
        let case = format!("{self:?}").replace('[', "vec![");
        format!("#[test]\nfn what_it_shows() {{\n    replay(&{case});\n}}\n")
    }
}

impl Op {
    fn random(random: &mut fastrand::Rng) -> Op {
        let verbs = |random: &mut fastrand::Rng, count| {
            std::iter::repeat_with(|| Verb::random(random)).take(count).collect::<Vec<_>>()
        };
        match random.u8(..100) {
            0..46 => Op::One(Verb::random(random)),
            46..49 => {
                let space = if random.bool() { 0 } else { random.u8(..SPACES) };
                Op::Rename { space, from: random.u8(..KEYS), to: random.u8(..KEYS) }
            }
            49 => Op::Drop(random.u8(1..SPACES)),
            50..68 => {
                let count = random.usize(1..7);
                let mut fate = || match random.u8(..8) {
                    0..5 => Fate::Awaited,
                    5 => Fate::Dropped(0),
                    6 => Fate::Dropped(1),
                    _ => Fate::Dropped(random.u8(2..40)),
                };
                let fates: Vec<Fate> = (0..count).map(|_| fate()).collect();
                // A sync does not wait for what waits for its key, and the model takes it to settle what was
                // dropped.
                let calls = verbs(random, count).into_iter().zip(fates).map(|(verb, fate)| {
                    let fate = if verb.may_wait() { Fate::Awaited } else { fate };
                    (verb, fate)
                });
                Op::Together(calls.collect())
            }
            68..74 => Op::Scan(Selection::random(random)),
            74 => Op::Snapshot,
            75 => Op::LookBack {
                which: random.u8(..),
                selection: Selection::random(random),
                is_last: random.u8(..3) == 0,
            },
            76 => Op::Flush,
            77..79 => Op::Compact,
            79..82 => Op::CompactSome { partition: random.u32(..3), files: random.u16(..) },
            82 => Op::CompactAndCancel,
            83..86 => {
                let tasks = [
                    Task::Scanning,
                    Task::ScanningKeys,
                    Task::Flushing,
                    Task::Compacting,
                    Task::Cancelling,
                ];
                Op::Abandon {
                    what: tasks[random.usize(..5)],
                    polls: random.u8(..20) >> random.u8(..5),
                }
            }
            86..88 => Op::Check,
            88..91 => {
                let wall_ms = match random.u8(..3) {
                    0 => 0,
                    1 => random.u64(1_600_000_000_000..2_600_000_000_000),
                    _ => random.u64(..),
                };
                Op::Clock { wall_ms }
            }
            _ => {
                let how = match random.u8(..8) {
                    0 | 1 => How::Closed,
                    2 => How::ClosedTwice,
                    3 => {
                        let count = random.usize(1..7);
                        How::ClosedUnder(verbs(random, count))
                    }
                    4 => How::CloseDropped,
                    5 => How::LetGo,
                    _ => How::Killed,
                };
                let between = match random.u8(..8) {
                    0..5 => Between::Nothing,
                    5 => Between::Verified,
                    6 => Between::Repaired,
                    _ => Between::OpenDropped,
                };
                Op::Reopen { how, between, settings: Settings::random(random) }
            }
        }
    }

    /// Requests in it.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Op::Together(verbs) => verbs.len() as u64,
            Op::Reopen { how: How::ClosedUnder(verbs), .. } => 1 + verbs.len() as u64,
            _ => 1,
        }
    }

    fn simpler(&self) -> Vec<Op> {
        let without = |verbs: &[Verb]| {
            let shorter = |at| [&verbs[..at], &verbs[at + 1..]].concat();
            (0..verbs.len()).map(shorter).collect::<Vec<_>>()
        };
        match self {
            Op::One(verb) => verb.simpler().into_iter().map(Op::One).collect(),
            Op::Together(calls) => {
                let mut simpler = Vec::new();
                if let [(verb, Fate::Awaited)] = &calls[..] {
                    simpler.push(Op::One(verb.clone()));
                }
                for at in 0..calls.len() {
                    simpler.push(Op::Together([&calls[..at], &calls[at + 1..]].concat()));
                }
                for (at, (verb, fate)) in calls.iter().enumerate() {
                    let with = |verb, fate| {
                        let mut calls = calls.clone();
                        calls[at] = (verb, fate);
                        Op::Together(calls)
                    };
                    if *fate != Fate::Awaited {
                        simpler.push(with(verb.clone(), Fate::Awaited));
                    }
                    simpler.extend(verb.simpler().into_iter().map(|verb| with(verb, *fate)));
                }
                simpler
            }
            Op::Scan(_) | Op::CompactSome { .. } if *self != Op::Scan(ALL) => {
                vec![Op::Scan(ALL), Op::Compact]
            }
            Op::LookBack { which, selection, is_last } if *selection != ALL => {
                vec![Op::LookBack { which: *which, selection: ALL, is_last: *is_last }]
            }
            Op::Rename { space, from, to } => {
                let renames = [(0, *from, *to), (*space, 0, *to), (*space, *from, 1)];
                let renames = renames.map(|(space, from, to)| Op::Rename { space, from, to });
                renames.into_iter().filter(|op| op != self).collect()
            }
            Op::Drop(space) if *space > 1 => vec![Op::Drop(1)],
            Op::Scan(_) | Op::CompactAndCancel => vec![Op::Compact],
            Op::Abandon { what, polls } if *polls > 0 => {
                vec![Op::Abandon { what: *what, polls: polls - 1 }]
            }
            Op::Reopen { how, between, settings } => {
                let with = |how: &How, between: Between, settings: &Settings| Op::Reopen {
                    how: how.clone(),
                    between,
                    settings: settings.clone(),
                };
                let mut simpler = vec![
                    with(&How::Closed, *between, settings),
                    with(how, Between::Nothing, settings),
                    with(how, *between, &PLAIN),
                ];
                simpler.extend(
                    settings.simpler().iter().map(|settings| with(how, *between, settings)),
                );
                if let How::ClosedUnder(verbs) = how {
                    let shorter = without(verbs).into_iter();
                    simpler.extend(
                        shorter.map(|verbs| with(&How::ClosedUnder(verbs), *between, settings)),
                    );
                }
                simpler.into_iter().filter(|op| op != self).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Selection {
    fn random(random: &mut fastrand::Rng) -> Selection {
        let edge = |random: &mut fastrand::Rng| match random.u8(..4) {
            0 => Edge::With(random.u8(..KEYS)),
            1 => Edge::Without(random.u8(..KEYS)),
            _ => Edge::Open,
        };
        let (from, to) = (edge(random), edge(random));
        Selection {
            space: if random.u8(..4) == 0 { random.u8(..SPACES) } else { 0 },
            prefix: (random.u8(..3) == 0).then(|| (random.u8(..KEYS), random.usize(..3))),
            from,
            to,
            reverse: random.bool(),
            limit: (random.u8(..3) == 0).then(|| random.usize(..8)),
            keys_only: random.bool(),
            pages_of: (random.u8(..3) == 0).then(|| random.usize(1..6)),
        }
    }
}
