//! Entries taken at random: what eviction chooses among.

use super::entry::{Entry, Location};
use super::{Ages, Keydir};
use crate::types::KeyHash;

/// Places that are looked at for one entry: a table may be emptier than others, or half moved.
const PLACES_MAX: usize = 8;

/// A key that may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Without its route, which no entry has.
    pub(crate) hash: KeyHash,
    pub(crate) location: Location,
}

impl Ages {
    /// The key of `entry` was used.
    pub(super) fn note_used(&self, entry: &Entry) {
        entry.set_age(self.used(entry.age(), |below| fastrand::u32(..below)));
    }
}

impl Keydir {
    /// Of `count` entries taken at random the one to evict; those that are to be spared do not count.
    /// `None` if all are, or there are none.
    pub(crate) fn worst_of(
        &self,
        count: usize,
        random: &mut fastrand::Rng,
        mut is_spared: impl FnMut(&Candidate) -> bool,
    ) -> Option<Candidate> {
        let ages = &self.shared.ages;
        let mut worst: Option<(u8, Candidate)> = None;
        let mut left = count;
        for _ in 0..count * PLACES_MAX {
            let slots = self.directory.table(random.u32(..)).read();
            let Some(entry) = slots.any(&mut |below| random.usize(..below)) else { continue };
            let hash = KeyHash { bucket: entry.bucket(), table: entry.table(), route: 0 };
            let candidate = Candidate { hash, location: entry.location() };
            if is_spared(&candidate) {
                continue;
            }
            let badness = ages.badness(entry.age());
            entry.set_age(ages.compared(entry.age(), |below| random.u32(..below)));
            if worst.is_none_or(|(worst, _)| badness > worst) {
                worst = Some((badness, candidate));
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
        worst.map(|(_, candidate)| candidate)
    }

    /// A key was evicted: time passes by that.
    pub(crate) fn note_evicted(&mut self) {
        if self.turnover.went(self.len()) {
            self.shared.ages.hour_passed();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::keydir::{Aging, FileSlot, KeydirLoader};

    fn hash(random: &mut fastrand::Rng) -> KeyHash {
        KeyHash { bucket: random.u64(..), table: random.u32(..), route: 0 }
    }

    fn keydir(aging: Aging) -> Keydir {
        KeydirLoader::new().finish(aging, |_| ())
    }

    const HERE: Location = Location { slot: FileSlot(1), offset: 8, len: 16, has_expiry: false };

    /// Breaks if some entries are never looked at: those of a table that is half moved, or sparse.
    #[test]
    fn every_entry_is_taken_about_as_often_as_any_other() {
        let random = &mut fastrand::Rng::with_seed(5);
        for (len, removed) in [(1, 0), (3, 0), (40, 0), (14_000, 13_960), (15_500, 0)] {
            let mut keydir = keydir(Aging::Off);
            let keys: Vec<KeyHash> = (0..len).map(|_| hash(random)).collect();
            for key in &keys {
                keydir.upsert(*key, HERE);
            }
            for key in &keys[..removed] {
                keydir.remove(*key);
            }
            let left = len - removed;
            let mut taken: HashMap<KeyHash, u32> = HashMap::new();
            for _ in 0..left * 40 {
                if let Some(candidate) = keydir.worst_of(1, random, |_| false) {
                    *taken.entry(candidate.hash).or_default() += 1;
                }
            }
            assert!(keys[removed..].iter().all(|key| taken.contains_key(key)), "of {left}");
            let most = taken.values().max().copied().unwrap_or(0);
            assert!((40..160).contains(&most) && taken.len() == left, "{most} of {left}");
        }
        assert_eq!(keydir(Aging::Lru).worst_of(8, random, |_| false), None);
    }

    /// Breaks if what was used looks as old as what was not, or comparing counts as using.
    #[test]
    fn what_is_used_is_spared() {
        for aging in [Aging::Lru, Aging::Lfu] {
            let random = &mut fastrand::Rng::with_seed(6);
            let mut keydir = keydir(aging);
            let hot: Vec<KeyHash> = (0..100).map(|_| hash(random)).collect();
            let cold: Vec<KeyHash> = (0..900).map(|_| hash(random)).collect();
            for key in hot.iter().chain(&cold) {
                keydir.upsert(*key, HERE);
            }
            let reader = keydir.reader();
            assert!(hot.iter().all(|key| reader.lookup_as(*key, true, |_| ()).is_some()));
            // As a store at its bound does: one comes, one goes, and the hot ones are read meanwhile.
            for round in 0..10_000 {
                for key in hot.iter().skip(round % 20).step_by(20) {
                    reader.lookup_as(*key, true, |_| ());
                }
                keydir.upsert(hash(random), HERE);
                let victim = keydir.worst_of(8, random, |_| false).unwrap();
                keydir.remove(victim.hash);
                keydir.note_evicted();
            }
            let left = hot.iter().filter(|key| keydir.get(**key).is_some()).count();
            let cold_left = cold.iter().filter(|key| keydir.get(**key).is_some()).count();
            assert!(left >= 95 && cold_left < 30, "{aging:?}: {left} hot, {cold_left} cold");
        }
    }

    #[test]
    fn what_is_to_be_spared_is() {
        let random = &mut fastrand::Rng::with_seed(7);
        let mut keydir = keydir(Aging::Lru);
        let keys: Vec<KeyHash> = (0..20).map(|_| hash(random)).collect();
        for key in &keys {
            keydir.upsert(*key, HERE);
        }
        for _ in 0..100 {
            let victim = keydir.worst_of(8, random, |candidate| candidate.hash != keys[3]);
            assert!(victim.is_none_or(|victim| victim.hash == keys[3]));
        }
        assert_eq!(keydir.worst_of(8, random, |_| true), None);
    }
}
