//! One table: the entries of one range of the table hash, behind their lock.

use hashbrown::HashTable;

use super::entry::{Entry, Location};
use crate::limits::KEYDIR_TABLE_BUCKETS;
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::types::KeyHash;

/// Entries that a table of fixed size takes before hashbrown would double it.
pub(super) const TABLE_CAPACITY: usize = capacity_of(KEYDIR_TABLE_BUCKETS);

/// Insertions that a rebuild must make room for. A table with less to gain doubles instead: it
/// would be rebuilt again after the next few insertions, and then after fewer still.
const REBUILD_GAIN_MIN: usize = TABLE_CAPACITY / 128;

/// With fewer entries than a bucket in so many, guessing full buckets takes longer than counting them off.
const SPARSE: usize = 8;

/// Aligned to a cache line, so that a lookup touches one line for the lock and the table's head,
/// and locking one table does not slow the readers of its neighbour.
#[repr(align(64))]
pub(super) struct Table(RwLock<Slots>);

/// What the lock protects.
pub(super) struct Slots {
    entries: HashTable<Entry>,
    /// Entries with a table hash below this have moved to the next tables; what is left of them
    /// here is stale (K11).
    moved_below: u64,
}

impl Table {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let entries = HashTable::with_capacity(capacity);
        Self(RwLock::new(Slots { entries, moved_below: 0 }))
    }

    /// A table of the fixed size.
    #[cfg(test)]
    pub(super) fn fixed() -> Self {
        Self::with_capacity(TABLE_CAPACITY)
    }

    /// The table of somebody who has not shown it to anybody yet.
    pub(super) fn get_mut(&mut self) -> &mut Slots {
        self.0.get_mut()
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Slots> {
        self.0.read()
    }

    /// As [`read`](Self::read), unless it would have to wait.
    pub(super) fn try_read(&self) -> Option<RwLockReadGuard<'_, Slots>> {
        self.0.try_read()
    }

    #[cfg(test)]
    pub(super) fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Slots> {
        self.0.write()
    }
}

impl Slots {
    /// Whether this table still answers for `table_hash`.
    pub(super) fn owns(&self, table_hash: u32) -> bool {
        u64::from(table_hash) >= self.moved_below
    }

    pub(super) fn find(&self, hash: KeyHash) -> Option<&Entry> {
        self.entries.find(hash.bucket, |entry| entry.is_of(hash))
    }

    pub(super) fn find_mut(&mut self, hash: KeyHash) -> Option<&mut Entry> {
        self.entries.find_mut(hash.bucket, |entry| entry.is_of(hash))
    }

    /// Adds an entry whose key is not in the table.
    pub(super) fn insert(&mut self, entry: Entry) {
        debug_assert!(self.owns(entry.table()));
        if self.entries.len() == self.entries.capacity() {
            self.make_room();
        }
        self.entries.insert_unique(entry.bucket(), entry, Entry::bucket);
    }

    pub(super) fn remove(&mut self, hash: KeyHash) -> Option<Location> {
        let found = self.entries.find_entry(hash.bucket, |entry| entry.is_of(hash)).ok()?;
        Some(found.remove().0.location())
    }

    /// The entries that this table answers for.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| self.owns(entry.table()))
    }

    /// An entry that this table answers for, each about as likely as any other.
    pub(super) fn any(&self, random: &mut impl FnMut(usize) -> usize) -> Option<&Entry> {
        let (len, buckets) = (self.entries.len(), self.entries.num_buckets());
        let entry = if len > buckets / SPARSE {
            // A full bucket is found within a few tries.
            std::iter::repeat_with(|| self.entries.get_bucket(random(buckets)))
                .take(SPARSE * 4)
                .find_map(|entry| entry)
        } else if len > 0 {
            self.entries.iter().nth(random(len))
        } else {
            None
        };
        entry.filter(|entry| self.owns(entry.table()))
    }

    pub(super) fn bytes(&self) -> usize {
        self.entries.allocation_size()
    }

    /// Gives an empty table its fixed size.
    pub(super) fn allocate(&mut self) {
        debug_assert!(self.entries.is_empty());
        self.entries = HashTable::with_capacity(TABLE_CAPACITY);
    }

    /// Gives up the entries below `bound`: from here on they are stale copies.
    pub(super) fn give_up_below(&mut self, bound: u64) {
        debug_assert!(bound > self.moved_below);
        self.moved_below = bound;
    }

    /// Takes out the allocation of a table that has moved as a whole.
    pub(super) fn take_entries(&mut self) -> HashTable<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Rebuilds a table that ran out of buckets because removals left marks in them.
    ///
    /// hashbrown clears such marks in place only below half load and doubles the table otherwise,
    /// which at our load would be always. A table that is smaller than the fixed size is left to
    /// hashbrown: it is the only one of its keydir and may as well grow.
    #[cold]
    fn make_room(&mut self) {
        let buckets = self.entries.num_buckets();
        if buckets < KEYDIR_TABLE_BUCKETS {
            return;
        }
        let capacity = capacity_of(buckets);
        if self.iter().count() + REBUILD_GAIN_MIN > capacity {
            return;
        }
        let mut rebuilt = HashTable::with_capacity(capacity);
        for entry in self.iter() {
            rebuilt.insert_unique(entry.bucket(), entry.clone(), Entry::bucket);
        }
        self.entries = rebuilt;
    }
}

/// hashbrown's load limit.
const fn capacity_of(buckets: usize) -> usize {
    buckets / 8 * 7
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keydir::entry::FileSlot;

    const HERE: Location = Location { slot: FileSlot(1), offset: 8, len: 16, has_expiry: false };

    fn hash(random: &mut fastrand::Rng) -> KeyHash {
        KeyHash { bucket: random.u64(..), table: random.u32(..), route: 0 }
    }

    #[test]
    fn capacity_and_buckets_are_hashbrowns() {
        let table = Table::fixed();
        assert_eq!(table.read().entries.num_buckets(), KEYDIR_TABLE_BUCKETS);
        assert_eq!(table.read().entries.capacity(), TABLE_CAPACITY);
    }

    /// Without the rebuild, hashbrown doubles the table within the first few thousand rounds.
    #[test]
    fn removals_do_not_double_a_nearly_full_table() {
        let mut random = fastrand::Rng::with_seed(1);
        let table = Table::fixed();
        let mut slots = table.write();
        let mut live: Vec<_> = (0..13_900).map(|_| hash(&mut random)).collect();
        for hash in &live {
            slots.insert(Entry::new(*hash, HERE, 0));
        }
        for round in 0..40_000 {
            let index = round % live.len();
            assert_eq!(slots.remove(live[index]), Some(HERE));
            live[index] = hash(&mut random);
            slots.insert(Entry::new(live[index], HERE, 0));
        }
        assert_eq!(slots.entries.num_buckets(), KEYDIR_TABLE_BUCKETS);
        assert!(live.iter().all(|hash| slots.find(*hash).is_some()));
    }

    #[test]
    fn a_table_without_room_doubles_rather_than_refuses() {
        let mut random = fastrand::Rng::with_seed(2);
        let table = Table::fixed();
        let mut slots = table.write();
        let live: Vec<_> = (0..=TABLE_CAPACITY).map(|_| hash(&mut random)).collect();
        for hash in &live {
            slots.insert(Entry::new(*hash, HERE, 0));
        }
        assert_eq!(slots.entries.num_buckets(), 2 * KEYDIR_TABLE_BUCKETS);
        assert!(live.iter().all(|hash| slots.find(*hash).is_some()));
    }

    /// The stale copies of a half-moved table must not come back through a rebuild.
    #[test]
    fn a_rebuild_drops_what_has_moved() {
        let mut random = fastrand::Rng::with_seed(3);
        let table = Table::fixed();
        let mut slots = table.write();
        let all: Vec<_> = (0..TABLE_CAPACITY).map(|_| hash(&mut random)).collect();
        for hash in &all {
            slots.insert(Entry::new(*hash, HERE, 0));
        }
        slots.give_up_below(1 << 31);
        slots.insert(Entry::new(KeyHash { bucket: 0, table: u32::MAX, route: 0 }, HERE, 0));
        assert_eq!(slots.entries.num_buckets(), KEYDIR_TABLE_BUCKETS);
        for hash in all {
            assert_eq!(slots.find(hash).is_some(), slots.owns(hash.table));
        }
    }
}
