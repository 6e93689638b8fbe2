//! What the partition will hold when everything staged is published: what bounds are held against.
//!
//! A bound that looked at the keydir alone would let in whatever is staged meanwhile, a thousand keys at a
//! time. So each key with a staged record is noted here, with what is published of it and with what will be;
//! the differences are added up. Only partitions with a bound keep it.

use std::collections::HashMap;

use super::groups::Effect;
use crate::types::KeyHash;

/// Keys and bytes of records, live ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) entries: i64,
    pub(super) bytes: i64,
}

impl Amount {
    pub(super) fn new(entries: u64, bytes: u64) -> Amount {
        Amount { entries: signed(entries), bytes: signed(bytes) }
    }

    /// Of a key with a record of this length, or without one.
    pub(super) fn of(len: Option<u32>) -> Amount {
        len.map_or(Amount::default(), |len| Amount { entries: 1, bytes: i64::from(len) })
    }

    pub(super) fn plus(self, other: Amount) -> Amount {
        Amount { entries: self.entries + other.entries, bytes: self.bytes + other.bytes }
    }

    pub(super) fn minus(self, other: Amount) -> Amount {
        Amount { entries: self.entries - other.entries, bytes: self.bytes - other.bytes }
    }
}

/// No store comes near to where this would saturate.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Keys with staged records.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By hashes without their route, which victims of eviction do not have.
    keys: HashMap<KeyHash, Staged>,
    /// What publishing all of it will add.
    growth: Amount,
}

#[derive(Debug)]
struct Staged {
    /// Records that are neither published nor failed.
    records: u32,
    /// Length of the newest one, `None` if it deletes.
    newest: Option<u32>,
    /// Length of the record that is published.
    published: Option<u32>,
}

impl Staged {
    fn growth(&self) -> Amount {
        Amount::of(self.newest).minus(Amount::of(self.published))
    }
}

impl Ledger {
    pub(super) fn growth(&self) -> Amount {
        self.growth
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn is_staged(&self, hash: KeyHash) -> bool {
        self.keys.contains_key(&without_route(hash))
    }

    /// What there will be of the key: what is staged of it, or else what is published.
    pub(super) fn newest(
        &self,
        hash: KeyHash,
        published: impl FnOnce() -> Option<u32>,
    ) -> Option<u32> {
        self.keys.get(&without_route(hash)).map_or_else(published, |staged| staged.newest)
    }

    /// A record was staged, of a key of which this is published.
    pub(super) fn staged(&mut self, effect: Effect, published: Option<u32>) {
        let Some((hash, newest)) = outcome(effect) else { return };
        let new = || Staged { records: 0, newest: published, published };
        let staged = self.keys.entry(hash).or_insert_with(new);
        self.growth = self.growth.minus(staged.growth());
        staged.records += 1;
        staged.newest = newest;
        self.growth = self.growth.plus(staged.growth());
    }

    /// A staged record was published.
    pub(super) fn published(&mut self, effect: Effect) {
        if let Some((hash, now)) = outcome(effect) {
            self.change(hash, |staged| staged.published = now);
            self.unstaged(effect);
        }
    }

    /// A staged record is one no more: it failed, or was published.
    pub(super) fn unstaged(&mut self, effect: Effect) {
        let Some((hash, _)) = outcome(effect) else { return };
        let Some(staged) = self.keys.get_mut(&hash) else { return };
        staged.records -= 1;
        if staged.records == 0 {
            self.growth = self.growth.minus(staged.growth());
            self.keys.remove(&hash);
        }
    }

    /// What was published of the key has expired, or was in a range that is deleted.
    pub(super) fn expired(&mut self, hash: KeyHash) {
        self.change(without_route(hash), |staged| staged.published = None);
    }

    fn change(&mut self, hash: KeyHash, change: impl FnOnce(&mut Staged)) {
        if let Some(staged) = self.keys.get_mut(&hash) {
            self.growth = self.growth.minus(staged.growth());
            change(staged);
            self.growth = self.growth.plus(staged.growth());
        }
    }
}

/// What the effect leaves of which key.
fn outcome(effect: Effect) -> Option<(KeyHash, Option<u32>)> {
    match effect {
        Effect::Put { hash, len, .. } => Some((without_route(hash), Some(len))),
        Effect::Del { hash, .. } => Some((without_route(hash), None)),
        // What a range hides is there until it is worked off, and leaves as what expires does. The keys of a batch
        // over partitions are locked: nothing else is staged of them before they are published.
        Effect::RangeDel { .. }
        | Effect::Intent { .. }
        | Effect::Copy { .. }
        | Effect::Seen { .. }
        | Effect::Decision { .. }
        | Effect::Resolve { .. }
        | Effect::None => None,
    }
}

fn without_route(hash: KeyHash) -> KeyHash {
    KeyHash { route: 0, ..hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(n: u64, len: u32) -> Effect {
        Effect::Put { hash: hash(n), at: 0, len, expires_at: None }
    }

    fn del(n: u64) -> Effect {
        Effect::Del { hash: hash(n), len: 40 }
    }

    fn hash(n: u64) -> KeyHash {
        KeyHash { bucket: n, table: 7, route: n as u32 }
    }

    fn growth(ledger: &Ledger) -> (i64, i64) {
        (ledger.growth().entries, ledger.growth().bytes)
    }

    #[test]
    fn only_the_newest_record_of_a_key_counts() {
        let mut ledger = Ledger::default();
        ledger.staged(put(1, 100), None);
        ledger.staged(put(1, 60), None);
        ledger.staged(put(2, 80), Some(200));
        ledger.staged(del(3), Some(50));
        assert_eq!(growth(&ledger), (0, 60 - 120 - 50));
        let newest = |n| ledger.newest(hash(n), || Some(7));
        assert_eq!((newest(1), newest(3), newest(9)), (Some(60), None, Some(7)));
        ledger.published(put(1, 100));
        assert_eq!(growth(&ledger), (-1, -40 - 120 - 50));
        ledger.published(put(1, 60));
        ledger.published(put(2, 80));
        assert!(ledger.is_staged(hash(3)) && !ledger.is_staged(hash(1)));
        ledger.published(del(3));
        assert_eq!((growth(&ledger), ledger.is_empty()), ((0, 0), true));
    }

    /// Breaks if what fails, or expires meanwhile, is counted for good.
    #[test]
    fn what_fails_or_expires_leaves_nothing() {
        let mut ledger = Ledger::default();
        ledger.staged(put(1, 100), Some(100));
        ledger.expired(hash(1));
        assert_eq!(growth(&ledger), (1, 100));
        ledger.unstaged(put(1, 100));
        assert_eq!((growth(&ledger), ledger.is_empty()), ((0, 0), true));
        // A put fails, and the deletion before it in the same group does not.
        ledger.staged(del(2), Some(80));
        ledger.staged(put(2, 90), Some(80));
        ledger.unstaged(put(2, 90));
        ledger.published(del(2));
        assert_eq!((growth(&ledger), ledger.is_empty()), ((0, 0), true));
        ledger.expired(hash(9));
        ledger.unstaged(del(9));
        assert_eq!(growth(&ledger), (0, 0));
    }

    /// Random histories against the sums themselves.
    #[test]
    fn the_sum_is_what_publishing_everything_makes() {
        let random = &mut fastrand::Rng::with_seed(3);
        for _ in 0..300 {
            let mut ledger = Ledger::default();
            let mut keydir: HashMap<KeyHash, u32> = HashMap::new();
            let mut queue: std::collections::VecDeque<Effect> = std::collections::VecDeque::new();
            for _ in 0..60 {
                let n = random.u64(..5);
                match random.u8(..10) {
                    0..5 => {
                        let effect = if random.bool() { put(n, random.u32(1..9)) } else { del(n) };
                        ledger.staged(effect, keydir.get(&hash(n)).copied());
                        queue.push_back(effect);
                    }
                    5..8 => {
                        let Some(effect) = queue.pop_front() else { continue };
                        match effect {
                            Effect::Put { hash, len, .. } => drop(keydir.insert(hash, len)),
                            Effect::Del { hash, .. } => drop(keydir.remove(&hash)),
                            _ => {}
                        }
                        ledger.published(effect);
                    }
                    8 => {
                        // The group in flight fails: always the oldest.
                        if let Some(effect) = queue.pop_front() {
                            ledger.unstaged(effect);
                        }
                    }
                    _ => {
                        keydir.remove(&hash(n));
                        ledger.expired(hash(n));
                    }
                }
                let mut after = keydir.clone();
                for effect in &queue {
                    match *effect {
                        Effect::Put { hash, len, .. } => drop(after.insert(hash, len)),
                        Effect::Del { hash, .. } => drop(after.remove(&hash)),
                        _ => {}
                    }
                }
                let sum = |keys: &HashMap<KeyHash, u32>| {
                    let bytes = keys.values().map(|len| i64::from(*len)).sum::<i64>();
                    (signed(keys.len() as u64), bytes)
                };
                let (now, after) = (sum(&keydir), sum(&after));
                assert_eq!(growth(&ledger), (after.0 - now.0, after.1 - now.1));
            }
        }
    }
}
