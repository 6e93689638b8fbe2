//! What was asked of each partition, when, and what it may therefore hold after a crash.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;

use ringcask::Db;

use crate::support::{Oracle, contents};

pub(crate) const PARTITION_COUNT: usize = 2;

/// Written to every store that was recovered; its value, one byte, is how many crashes came before.
pub(crate) const AFTER: &[u8] = b"after";

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// What no sync has covered may be gone.
    PowerCut,
    /// What was written is there.
    Kill,
}

/// What a store holds: of each partition a number that stands for its keys and values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Found {
    pub(crate) partitions: [u64; PARTITION_COUNT],
    /// The value of [`AFTER`], 0 if there is none.
    pub(crate) after: u8,
}

impl Found {
    pub(crate) fn of(db: &Db) -> Found {
        let mut found = Found::default();
        for (key, value) in contents(db) {
            if key == AFTER {
                found.after = value[0];
            } else {
                found.partitions[db.partition_of(&key)] ^= fingerprint(&key, &value);
            }
        }
        found
    }
}

/// Combined by exclusive or, it stands for a set of keys and values.
fn fingerprint(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

/// How many writes of each partition a store may hold.
pub(crate) type Bounds = [RangeInclusive<usize>; PARTITION_COUNT];

/// Everything sent, in order, with the operation of the disk before which it was sent and answered.
#[derive(Clone, Default)]
pub(crate) struct History {
    partitions: [Timeline; PARTITION_COUNT],
    /// What every answer so far makes of the store.
    visible: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of this session only.
    events: Vec<(u64, Event)>,
    /// How many writes of each partition were sent, acknowledged, durable, when the session began.
    begin: [Progress; PARTITION_COUNT],
    /// Writes of several partitions that happen together: of each its last one.
    batches: Vec<Vec<Place>>,
    /// For what fails half way: what each key may hold.
    pub(crate) oracle: Oracle,
}

#[derive(Clone, Default)]
struct Timeline {
    /// The state after so many writes, but for the first, which is nothing.
    states: Vec<u64>,
    /// What stands for each key's value now.
    keys: BTreeMap<Vec<u8>, u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    sent: usize,
    written: usize,
    durable: usize,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Sent(Place),
    Written(Place),
    /// So many writes of the partition.
    Durable(Place),
}

/// A partition, and how many of its writes.
#[derive(Clone, Copy, Debug)]
struct Place {
    partition: usize,
    count: usize,
}

/// One write, for telling how it ended.
#[derive(Clone)]
pub(crate) struct Sent {
    place: Place,
    /// One, unless it deletes a range.
    writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Sent {
    /// What it does, if it is about one key.
    pub(crate) fn only(&self) -> (&Vec<u8>, Option<&Vec<u8>>) {
        let [(key, value)] = &self.writes[..] else { panic!("it deletes a range") };
        (key, value.as_ref())
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.writes.iter().map(|(key, _)| key)
    }

    /// Of every two writes of a partition one.
    pub(crate) fn is_odd(&self) -> bool {
        self.place.count % 2 == 1
    }
}

/// A batch, for telling how it ended: its places, and what it does to which key.
pub(crate) struct SentBatch {
    places: Vec<Place>,
    writes: Vec<(usize, Vec<u8>, Option<Vec<u8>>)>,
}

impl History {
    /// Notes a batch that is about to be sent: one step of each partition's history.
    pub(crate) fn send_batch(
        &mut self,
        at: u64,
        writes: Vec<(usize, Vec<u8>, Option<Vec<u8>>)>,
    ) -> SentBatch {
        let mut places = Vec::new();
        for partition in 0..PARTITION_COUNT {
            let of_partition = writes.iter().filter(|(of, ..)| *of == partition);
            let changes: Vec<_> =
                of_partition.map(|(_, key, value)| (key.clone(), value.clone())).collect();
            if changes.is_empty() {
                continue;
            }
            let timeline = &mut self.partitions[partition];
            timeline.push(&changes);
            let place = Place { partition, count: timeline.states.len() };
            self.events.push((at, Event::Sent(place)));
            places.push(place);
        }
        for (_, key, value) in &writes {
            self.oracle.attempt(key, value.as_deref());
        }
        self.batches.push(places.clone());
        SentBatch { places, writes }
    }

    /// A batch was acknowledged.
    pub(crate) fn acknowledge_batch(&mut self, at: u64, sent: &SentBatch, durable: bool) {
        for place in &sent.places {
            self.events.push((at, Event::Written(*place)));
            if durable {
                self.events.push((at, Event::Durable(*place)));
            }
        }
        for (_, key, value) in &sent.writes {
            self.oracle.acknowledge(key, durable);
            match value {
                Some(value) => self.visible.insert(key.clone(), value.clone()),
                None => self.visible.remove(key),
            };
        }
    }

    /// Notes a write that is about to be sent; those of one partition in the order of their sending.
    pub(crate) fn send(
        &mut self,
        at: u64,
        partition: usize,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    ) -> Sent {
        self.send_all(at, partition, vec![(key, value)])
    }

    /// Notes that a range is about to be deleted, in which the partition may have these keys.
    pub(crate) fn send_del(&mut self, at: u64, partition: usize, keys: Vec<Vec<u8>>) -> Sent {
        self.send_all(at, partition, keys.into_iter().map(|key| (key, None)).collect())
    }

    fn send_all(
        &mut self,
        at: u64,
        partition: usize,
        writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Sent {
        let timeline = &mut self.partitions[partition];
        timeline.push(&writes);
        let place = Place { partition, count: timeline.states.len() };
        self.events.push((at, Event::Sent(place)));
        for (key, value) in &writes {
            self.oracle.attempt(key, value.as_deref());
        }
        Sent { place, writes }
    }

    /// A write was acknowledged.
    pub(crate) fn acknowledge(&mut self, at: u64, sent: &Sent, durable: bool) {
        self.events.push((at, Event::Written(sent.place)));
        if durable {
            self.events.push((at, Event::Durable(sent.place)));
        }
        for (key, value) in &sent.writes {
            self.oracle.acknowledge(key, durable);
            match value {
                Some(value) => self.visible.insert(key.clone(), value.clone()),
                None => self.visible.remove(key),
            };
        }
    }

    /// A deletion that failed as a whole was done all the same where this key is.
    pub(crate) fn gone(&mut self, key: &[u8]) {
        self.visible.remove(key);
    }

    /// Everything sent so far is durable, as after `sync` and `close`; also what recovery found.
    pub(crate) fn all_durable(&mut self, at: u64) {
        for (partition, timeline) in self.partitions.iter().enumerate() {
            let place = Place { partition, count: timeline.states.len() };
            self.events.extend([(at, Event::Written(place)), (at, Event::Durable(place))]);
        }
        self.oracle.all_durable();
    }

    pub(crate) fn sent_count(&self) -> usize {
        self.partitions.iter().map(|timeline| timeline.states.len()).sum()
    }

    /// What a store shows that has answered everything.
    pub(crate) fn visible(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.visible
    }

    /// Another session begins, on a disk that counts from 0.
    pub(crate) fn begin_session(&mut self) {
        self.begin = self.progress(u64::MAX);
        self.events.clear();
    }

    fn progress(&self, at: u64) -> [Progress; PARTITION_COUNT] {
        let mut all = self.begin;
        for (_, event) in self.events.iter().filter(|(event_at, _)| *event_at <= at) {
            let (Event::Sent(place) | Event::Written(place) | Event::Durable(place)) = event;
            let progress = &mut all[place.partition];
            let reached = match event {
                Event::Sent(_) => &mut progress.sent,
                Event::Written(_) => &mut progress.written,
                Event::Durable(_) => &mut progress.durable,
            };
            *reached = (*reached).max(place.count);
        }
        all
    }

    /// What a store may hold that crashed right before operation `at` of this session.
    pub(crate) fn bounds(&self, at: u64, crash: Crash) -> Bounds {
        self.progress(at).map(|Progress { sent, written, durable }| match crash {
            Crash::PowerCut => durable..=sent,
            Crash::Kill => written..=sent,
        })
    }

    /// I1, I1b, I3: each partition holds a beginning of its history, with what was acknowledged.
    pub(crate) fn check(&self, found: &Found, bounds: &Bounds, crash: Crash, what: &str) {
        let partitions = self.partitions.iter().zip(bounds).zip(found.partitions);
        for (partition, ((timeline, bounds), state)) in partitions.enumerate() {
            if bounds.clone().any(|count| timeline.state_after(count) == state) {
                continue;
            }
            let all = 0..=timeline.states.len();
            let held = all.rev().find(|&count| timeline.state_after(count) == state);
            let (lost, kind) = match crash {
                Crash::PowerCut => ("I1", "durable"),
                Crash::Kill => ("I1b", "acknowledged"),
            };
            match held {
                Some(count) if count < *bounds.start() => panic!(
                    "{lost}: {what}: partition {partition} holds {count} writes, {} were {kind}",
                    bounds.start()
                ),
                _ => panic!(
                    "I3: {what}: partition {partition} does not hold a beginning of its history with \
                     {bounds:?} writes, but {held:?}"
                ),
            }
        }
        self.check_batches(found, bounds, what);
    }

    /// B1: of a batch over partitions each partition holds its part, or none does.
    fn check_batches(&self, found: &Found, bounds: &Bounds, what: &str) {
        let held = |partition: usize| -> Vec<usize> {
            let timeline = &self.partitions[partition];
            let counts = bounds[partition].clone();
            counts
                .filter(|count| timeline.state_after(*count) == found.partitions[partition])
                .collect()
        };
        let is_whole = |counts: [usize; PARTITION_COUNT]| {
            self.batches.iter().all(|places| {
                let mut holds = places.iter().map(|place| counts[place.partition] >= place.count);
                let first = holds.next();
                holds.all(|holds| Some(holds) == first)
            })
        };
        let (first, second) = (held(0), held(1));
        let mut pairs = first.iter().flat_map(|a| second.iter().map(|b| [*a, *b]));
        assert!(
            pairs.any(is_whole),
            "B1: {what}: a part of a batch: partitions hold {first:?} and {second:?} writes, batches are {:?}",
            self.batches
        );
    }
}

impl Timeline {
    fn push(&mut self, writes: &[(Vec<u8>, Option<Vec<u8>>)]) {
        let mut state = self.state_after(self.states.len());
        for (key, value) in writes {
            if let Some(before) = self.keys.remove(key) {
                state ^= before;
            }
            if let Some(value) = value {
                let fingerprint = fingerprint(key, value);
                self.keys.insert(key.clone(), fingerprint);
                state ^= fingerprint;
            }
        }
        self.states.push(state);
    }

    fn state_after(&self, count: usize) -> u64 {
        count.checked_sub(1).map_or(0, |last| self.states[last])
    }
}
