//! Who holds which lock, where no kernel keeps count.

use std::collections::BTreeMap;

use super::fs::Sharing;

/// How an exclusive lock is counted among shared ones.
const EXCLUSIVE: usize = usize::MAX;

/// Of each lock that is held, by how many.
pub(super) struct Locks<K>(BTreeMap<K, usize>);

impl<K> Default for Locks<K> {
    fn default() -> Locks<K> {
        Locks(BTreeMap::new())
    }
}

impl<K: Ord> Locks<K> {
    /// False if somebody has it and either of the two does not share it.
    pub(super) fn take(&mut self, lock: K, sharing: Sharing) -> bool {
        let holders = self.0.entry(lock).or_default();
        *holders = match (sharing, *holders) {
            (Sharing::Exclusive, 0) => EXCLUSIVE,
            (Sharing::Shared, count) if count != EXCLUSIVE => count + 1,
            _ => return false,
        };
        true
    }

    /// One of those who hold it lets go.
    pub(super) fn give_back(&mut self, lock: &K) {
        match self.0.get_mut(lock) {
            Some(holders) if (2..EXCLUSIVE).contains(holders) => *holders -= 1,
            _ => drop(self.0.remove(lock)),
        }
    }
}
