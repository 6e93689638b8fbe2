//! When keys expire: of those that do, and of no others.
//!
//! A keydir entry only says that its record has an expiry. The time itself is here, in order for the
//! sweep and by key for the writer; some seventy bytes for each key that has one.

use std::collections::BTreeSet;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::types::{ExpiresAt, KeyHash};

/// The expiry of every key of a partition that has one.
#[derive(Default)]
pub(crate) struct Expiries {
    /// Found by the hash that the keys have already.
    by_key: HashTable<(KeyHash, ExpiresAt)>,
    by_time: BTreeSet<(ExpiresAt, KeyHash)>,
}

impl Expiries {
    pub(crate) fn get(&self, hash: KeyHash) -> Option<ExpiresAt> {
        self.by_key.find(hash.bucket, |(known, _)| *known == hash).map(|(_, at)| *at)
    }

    /// The newest record of the key expires then, or never.
    pub(crate) fn set(&mut self, hash: KeyHash, expires_at: Option<ExpiresAt>) {
        let is_of = |(known, _): &(KeyHash, ExpiresAt)| *known == hash;
        let before = match expires_at {
            None => {
                let known = self.by_key.find_entry(hash.bucket, is_of);
                known.ok().map(|known| known.remove().0.1)
            }
            Some(at) => match self.by_key.entry(hash.bucket, is_of, |(known, _)| known.bucket) {
                Entry::Occupied(mut known) => Some(std::mem::replace(&mut known.get_mut().1, at)),
                Entry::Vacant(vacant) => {
                    vacant.insert((hash, at));
                    None
                }
            },
        };
        if let Some(before) = before {
            self.by_time.remove(&(before, hash));
        }
        if let Some(at) = expires_at {
            self.by_time.insert((at, hash));
        }
    }

    /// The key that expires first.
    pub(crate) fn first(&self) -> Option<(ExpiresAt, KeyHash)> {
        self.by_time.first().copied()
    }

    /// All of them, those that expire first before the others.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ExpiresAt, KeyHash)> + '_ {
        self.by_time.iter().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_in_the_order_once() {
        let at = |ms| ExpiresAt::from_ms(ms);
        let hash = |n: u32| KeyHash { bucket: 1, table: n, route: 0 };
        let mut expiries = Expiries::default();
        expiries.set(hash(1), None);
        expiries.set(hash(1), at(50));
        expiries.set(hash(2), at(40));
        expiries.set(hash(1), at(30));
        assert_eq!(expiries.first(), Some((at(30).unwrap(), hash(1))));
        expiries.set(hash(1), None);
        assert_eq!((expiries.first(), expiries.len()), (Some((at(40).unwrap(), hash(2))), 1));
        assert_eq!((expiries.get(hash(2)), expiries.get(hash(1))), (at(40), None));
        expiries.set(hash(2), None);
        assert_eq!((expiries.first(), expiries.len()), (None, 0));
    }
}
