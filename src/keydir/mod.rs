//! Key → where its newest record is, in RAM that does not depend on the length of the key.
//!
//! An [`Entry`](entry::Entry) is 20 bytes: 96 bits of the key's hash and a packed [`Location`]. Entries
//! live in tables, each a range of the hash with its own short lock, all of the same number of
//! buckets; what grows is their number, a tenth at a time, one table per step, inside the
//! insertions that make it necessary ([`growth`]). So nothing doubles and nobody waits for more
//! than one table to be copied: 27.5 bytes per key, at most 29 from 200,000 keys on.
//!
//! A keydir has one writer, [`Keydir`], which belongs to its partition's worker, and any number of
//! [`KeydirReader`]s on callers' threads.
//!
//! ## Invariants
//! - **K7** Every table but a keydir's first has [`KEYDIR_TABLE_BUCKETS`](crate::limits::KEYDIR_TABLE_BUCKETS)
//!   buckets. One that is full all the same doubles, until the next expansion: rather RAM than an
//!   error for a key that another table had room for.
//! - **K8** A hash has exactly one owner at any time: the table of the newest directory that its
//!   frontier selects. Entries change only in their owner, under its write lock.
//! - **K9** New tables are filled before the frontier passes them; a directory is published before
//!   the frontier it carries moves.
//! - **K10** The frontier passes a range before the old table gives the range up, and both happen
//!   before the writer changes an entry of that range.
//! - **K11** A table says under its lock which hashes it has given up. Whoever finds that its hash
//!   is one of them has used an old directory or frontier, and starts again.
//!
//! ## Why a reader never misses an entry and never sees a stale one
//! A reader picks a table without a lock, so the table may lose the hash before the reader locks
//! it. Once locked, there are two cases.
//!
//! 1. The table has given the hash up. By K9 and K10 the newer directory or frontier was published
//!    before that, and taking the lock after the writer released it makes both visible. So the
//!    retry uses a later owner, and retries end: each one has seen the keydir grow in between.
//! 2. It has not. Then no entry of the hash has changed anywhere else (K10), and none can until
//!    the reader unlocks, because giving up takes the write lock. If the table is the old owner
//!    and the frontier has just passed, the copy in the new table is equal to what the reader
//!    sees. If it is the owner, the lock itself orders the reader with every change. A table that
//!    is not filled yet is never picked (K9).
//!
//! In both cases the answer is the state of the key at some moment while the reader held the lock:
//! an entry that is present throughout is found, and one that was replaced before the lookup began
//! is not. It also means that while the function given to [`KeydirReader::lookup`] runs, the
//! writer cannot finish replacing or removing that entry, so the file it points at is still there.

mod age;
mod directory;
mod entry;
mod expiries;
mod growth;
mod loader;
mod sample;
mod table;
#[cfg(test)]
mod tests;
mod usage;

use std::array;
use std::hint::black_box;
use std::sync::Arc;

pub(crate) use self::age::Aging;
pub(crate) use self::entry::{FileSlot, Location};
pub(crate) use self::expiries::Expiries;
pub(crate) use self::loader::KeydirLoader;
pub(crate) use self::sample::Candidate;
pub(crate) use self::usage::Usage;

use self::age::{Ages, Turnover};
use self::directory::{Directory, overlapping, range_of};
use self::entry::Entry;
use self::growth::Growth;
use self::table::Table;
use crate::planted::{Bug, is_planted};
use crate::sync::{ArcSwap, AtomicU64, Ordering};
use crate::types::KeyHash;

/// Look-ups that overlap: more than a processor has under way at once.
const LOOKUPS_MAX: usize = 16;

/// The writing half of a keydir, owned by one worker.
pub(crate) struct Keydir {
    shared: Arc<Shared>,
    /// The directory last published; the writer need not load it.
    directory: Arc<Directory>,
    /// Set while an expansion is under way.
    growth: Option<Growth>,
    /// Number of entries at which an expansion begins or takes its next step.
    due_len: u64,
    turnover: Turnover,
}

/// The reading half: look-ups on any thread, without a hop to the worker.
#[derive(Clone)]
pub(crate) struct KeydirReader {
    shared: Arc<Shared>,
}

struct Shared {
    directory: ArcSwap<Directory>,
    ages: Ages,
    counters: Counters,
}

/// Stored by the writer with every new key; on lines of their own, because readers load the
/// pointer beside them with every look-up.
#[repr(align(128))]
#[derive(Default)]
struct Counters {
    len: AtomicU64,
    ram_bytes: AtomicU64,
}

impl KeydirReader {
    /// Calls `f` with the place of the newest record of `hash`, or returns `None` if there is none.
    ///
    /// The writer cannot replace the entry while `f` runs: clone the file there and read it
    /// afterwards. `f` must not look up anything itself, since a writer waiting between the two
    /// would block both.
    pub(crate) fn lookup<R>(&self, hash: KeyHash, f: impl FnOnce(Location) -> R) -> Option<R> {
        self.lookup_as(hash, false, f)
    }

    /// As [`lookup`](Self::lookup); whether it is a use of the key decides what eviction makes of it.
    pub(crate) fn lookup_as<R>(
        &self,
        hash: KeyHash,
        is_use: bool,
        f: impl FnOnce(Location) -> R,
    ) -> Option<R> {
        loop {
            let directory = self.shared.directory.load();
            let slots = directory.table(hash.table).read();
            if slots.owns(hash.table) {
                let entry = slots.find(hash)?;
                if is_use {
                    self.shared.ages.note_used(entry);
                }
                return Some(f(entry.location()));
            }
        }
    }

    /// Looks up each of `hashes`, and calls `f` with its number and what [`lookup`](Self::lookup) would find.
    ///
    /// The cache misses of different keys overlap: a processor does not go on reading ahead of a lock that it takes, so
    /// some are taken first and looked into afterwards. Nothing is waited for while more than one is held: a writer
    /// that waits between the two would block both. `f` is not called in the order of the numbers.
    pub(crate) fn lookup_many(
        &self,
        hashes: &[KeyHash],
        mut f: impl FnMut(usize, Option<Location>),
    ) {
        let directory = self.shared.directory.load();
        for (chunk, hashes) in hashes.chunks(LOOKUPS_MAX).enumerate() {
            let number = |index| chunk * LOOKUPS_MAX + index;
            let found = find_together(&directory, hashes, |index, found| f(number(index), found));
            for (index, hash) in hashes.iter().enumerate().filter(|(index, _)| !found[*index]) {
                if self.lookup(*hash, |location| f(number(index), Some(location))).is_none() {
                    f(number(index), None);
                }
            }
        }
    }

    /// Number of keys, as of some recent moment.
    pub(crate) fn len(&self) -> u64 {
        self.shared.counters.len.load(Ordering::Relaxed)
    }

    /// Bytes allocated for entries and tables, as of some recent moment.
    pub(crate) fn ram_bytes(&self) -> u64 {
        self.shared.counters.ram_bytes.load(Ordering::Relaxed)
    }
}

/// Calls `f` for at most [`LOOKUPS_MAX`] of `hashes` with its index and its place, except where that would have to wait or the
/// directory is not the newest; says for which it did.
fn find_together(
    directory: &Directory,
    hashes: &[KeyHash],
    mut f: impl FnMut(usize, Option<Location>),
) -> [bool; LOOKUPS_MAX] {
    let locked: [_; LOOKUPS_MAX] = array::from_fn(|index| {
        let hash = hashes.get(index)?;
        directory.table(hash.table).try_read().filter(|slots| slots.owns(hash.table))
    });
    let found: [_; LOOKUPS_MAX] = array::from_fn(|index| {
        locked[index].as_ref().map(|slots| slots.find(hashes[index]).map(Entry::location))
    });
    for (index, found) in found.into_iter().enumerate() {
        if let Some(location) = found {
            f(index, location);
        }
    }
    locked.each_ref().map(Option::is_some)
}

impl Keydir {
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::with_tables(vec![Table::with_capacity(0)], 0, Ages::new(Aging::Off))
    }

    /// A keydir of `tables`, which hold `len` entries and are enough for them.
    fn with_tables(tables: Vec<Table>, len: u64, ages: Ages) -> Self {
        let due_len = growth::expansion_len(tables.len());
        debug_assert!(len < due_len);
        let entries_bytes: usize = tables.iter().map(|table| table.read().bytes()).sum();
        let directory = Arc::new(Directory::settled(tables.into()));
        let counters = Counters {
            len: AtomicU64::new(len),
            ram_bytes: AtomicU64::new((entries_bytes + directory.heads_bytes()) as u64),
        };
        let shared = Shared { directory: ArcSwap::new(Arc::clone(&directory)), ages, counters };
        let turnover = Turnover::new(len);
        Self { shared: Arc::new(shared), directory, growth: None, due_len, turnover }
    }

    pub(crate) fn reader(&self) -> KeydirReader {
        KeydirReader { shared: Arc::clone(&self.shared) }
    }

    /// Looks at the places of `hashes`, whose entries are about to change, all at once: each change by itself would wait
    /// for memory again.
    pub(crate) fn warm(&self, hashes: impl Iterator<Item = KeyHash>) {
        let mut hashes = hashes.peekable();
        while let Some(first) = hashes.peek() {
            let mut together = [*first; LOOKUPS_MAX];
            let mut len = 0;
            for (place, hash) in together.iter_mut().zip(&mut hashes) {
                *place = hash;
                len += 1;
            }
            find_together(&self.directory, &together[..len], |_, found| {
                black_box(found);
            });
        }
    }

    pub(crate) fn get(&self, hash: KeyHash) -> Option<Location> {
        self.directory.table(hash.table).read().find(hash).map(Entry::location)
    }

    /// Points `hash` at `location` and returns where it pointed before.
    pub(crate) fn upsert(&mut self, hash: KeyHash, location: Location) -> Option<Location> {
        let mut slots = self.directory.table(hash.table).write();
        if let Some(entry) = slots.find_mut(hash) {
            let before = entry.location();
            entry.set_location(location);
            self.shared.ages.note_used(entry);
            return Some(before);
        }
        let bytes_before = slots.bytes();
        slots.insert(Entry::new(hash, location, self.shared.ages.fresh()));
        let bytes_after = slots.bytes();
        drop(slots);

        self.count_ram(bytes_before, bytes_after);
        let len = self.len() + 1;
        self.shared.counters.len.store(len, Ordering::Relaxed);
        if len >= self.due_len {
            self.grow(len);
        }
        if self.turnover.came(len) {
            self.shared.ages.hour_passed();
        }
        None
    }

    /// Forgets `hash` and returns where it pointed.
    ///
    /// Gives no RAM back: the room is used again by the keys that come.
    pub(crate) fn remove(&mut self, hash: KeyHash) -> Option<Location> {
        let before = self.directory.table(hash.table).write().remove(hash)?;
        self.shared.counters.len.store(self.len() - 1, Ordering::Relaxed);
        Some(before)
    }

    /// Points `hash` at `new` if it points at `expected`, and returns whether it did (K4).
    pub(crate) fn replace_if(&mut self, hash: KeyHash, expected: Location, new: Location) -> bool {
        let mut slots = self.directory.table(hash.table).write();
        match slots.find_mut(hash) {
            Some(entry)
                if entry.location() == expected || is_planted(Bug::MovedUnconditionally) =>
            {
                entry.set_location(new);
                true
            }
            _ => false,
        }
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> u64 {
        self.shared.counters.len.load(Ordering::Relaxed)
    }

    /// Bytes allocated for entries and tables.
    pub(crate) fn ram_bytes(&self) -> u64 {
        self.shared.counters.ram_bytes.load(Ordering::Relaxed)
    }

    /// Calls `f` for every entry, in no order; the hashes come without their route.
    #[cfg(test)]
    pub(crate) fn for_each(&self, mut f: impl FnMut(KeyHash, Location)) {
        for table in self.directory.tables() {
            for entry in table.read().iter() {
                let hash = KeyHash { bucket: entry.bucket(), table: entry.table(), route: 0 };
                f(hash, entry.location());
            }
        }
    }

    /// Takes the steps of expansion that are due at `len` entries: hardly ever more than one.
    #[cold]
    fn grow(&mut self, len: u64) {
        while len >= self.due_len {
            match &mut self.growth {
                None => self.grow_begin(len),
                Some(growth) => {
                    let index = growth.next_table();
                    let is_last = growth.is_complete();
                    self.grow_step(index);
                    if is_last {
                        self.grow_end();
                    }
                }
            }
            self.due_len = match &self.growth {
                None => growth::expansion_len(self.directory.current.len()),
                Some(growth) => growth.due_len(),
            };
        }
    }

    fn grow_begin(&mut self, len: u64) {
        let count = self.directory.current.len();
        self.publish(self.directory.expanding(growth::next_count(count)));
        self.growth = Some(Growth::begin(count, len));
    }

    /// Fills table `index` of the next tables, and has the current ones give up what it took.
    ///
    /// IMPORTANT: Fill, raise, give up: this order is K9 and K10.
    fn grow_step(&self, index: usize) {
        let Directory { current, next, .. } = &*self.directory;
        let range = range_of(index, next.len());
        let sources = overlapping(&range, current.len());

        let mut target = next[index].write();
        target.allocate();
        // Old and new tables have the same buckets, so entries arrive in the order of the buckets
        // they go to, and both sides are walked from one end to the other.
        for source in sources.clone() {
            let slots = current[source].read();
            let moving = slots.iter().filter(|entry| range.contains(&u64::from(entry.table())));
            moving.for_each(|entry| target.insert(entry.clone()));
        }
        let allocated_bytes = target.bytes();
        drop(target);

        self.directory.raise_frontier(range.end);

        let mut freed_bytes = 0;
        for source in sources {
            let mut slots = current[source].write();
            slots.give_up_below(range.end);
            if range_of(source, current.len()).end <= range.end {
                freed_bytes += slots.bytes();
                let entries = slots.take_entries();
                // Readers who wait to learn that they are late need not wait for the allocator.
                drop(slots);
                drop(entries);
            }
        }
        self.count_ram(freed_bytes, allocated_bytes);
    }

    fn grow_end(&mut self) {
        self.publish(Directory::settled(Arc::clone(&self.directory.next)));
        self.growth = None;
    }

    fn publish(&mut self, directory: Directory) {
        self.count_ram(self.directory.heads_bytes(), directory.heads_bytes());
        self.directory = Arc::new(directory);
        self.shared.directory.store(Arc::clone(&self.directory));
    }

    fn count_ram(&self, freed_bytes: usize, allocated_bytes: usize) {
        if freed_bytes != allocated_bytes {
            let ram_bytes = self.ram_bytes() + allocated_bytes as u64 - freed_bytes as u64;
            self.shared.counters.ram_bytes.store(ram_bytes, Ordering::Relaxed);
        }
    }
}
