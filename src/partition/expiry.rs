//! Keys that have expired: hidden by every read at once, taken out of the keydir by and by.
//!
//! Nothing is written for that. The expired record is its own tombstone: it shadows what is older, also
//! through restart, until compaction finds that nothing older is left (C1).
//!
//! ## Invariants
//! - **T1** While wall clock and boot clock disagree nothing is taken out or dropped for having expired;
//!   reads hide it all the same.

use super::Partition;
use crate::types::KeyHash;

/// Keys taken out in one turn of the worker: some tenths of a millisecond.
const EXPIRED_A_TURN: usize = 1024;

impl Partition {
    /// Whether the key has an expiry, and that is past.
    pub(super) fn is_expired(&self, hash: KeyHash) -> bool {
        self.expiries.get(hash).is_some_and(|at| self.config.expiry.is_past(at))
    }

    /// Takes out some keys that have expired.
    pub(super) fn expiry_advance(&mut self) {
        if !self.expiry_has_work() {
            return;
        }
        for _ in 0..EXPIRED_A_TURN {
            let Some((at, hash)) = self.expiries.first() else { break };
            if !self.config.expiry.is_over(at) {
                break;
            }
            self.expiries.set(hash, None);
            if let Some(location) = self.keydir.remove(hash) {
                self.usage.expired(location);
                self.evict_expired(hash);
                self.view.counters.expired.add(1);
            }
        }
        self.view.counters.keys_mortal.set(self.expiries.len() as u64);
        self.view.show_usage(&self.usage);
        self.upkeep.compactor.look();
    }

    /// Whether there are keys to take out now.
    pub(super) fn expiry_has_work(&self) -> bool {
        self.expiries.first().is_some_and(|(at, _)| self.config.expiry.is_over(at))
    }
}
