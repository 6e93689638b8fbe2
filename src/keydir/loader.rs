//! Building a keydir while a store opens.
//!
//! Files are loaded in any order, so every entry needs its record's sequence number and deleted
//! keys need an entry too (K4). That makes entries of 28 bytes, which nobody reads while they are
//! collected: they sit in plain hash tables, and become a [`Keydir`] when the last file is loaded.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::Keydir;
use super::age::{Ages, Aging};
use super::directory::{index_of, overlapping, range_of};
use super::entry::{Entry, Location};
use super::growth;
use super::table::{TABLE_CAPACITY, Table};
use crate::planted::{Bug, is_planted};
use crate::types::{KeyHash, Seqno};

/// Ranges of the table hash that are converted, and freed, one after the other.
const RANGES: usize = 256;

/// Entries that a range collects before it puts them into its table. Each goes to a place that is in no cache;
/// so many at once, and the processor waits for several of those places together.
const WAITING: usize = 64;

/// Collects what the files of a partition say about its keys.
pub(crate) struct KeydirLoader {
    ranges: Vec<Range>,
    /// Number of entries that are not tombstones, without those that wait.
    live_len: u64,
}

#[derive(Default)]
struct Range {
    table: HashTable<LoadEntry>,
    /// Offered, and not in the table yet, in the order in which they were.
    waiting: Vec<LoadEntry>,
}

struct LoadEntry {
    entry: Entry,
    /// Low and high half of the sequence number, for the alignment of four.
    seqno: [u32; 2],
}

const _: () = assert!(size_of::<LoadEntry>() == 28);

impl KeydirLoader {
    pub(crate) fn new() -> Self {
        Self { ranges: (0..RANGES).map(|_| Range::default()).collect(), live_len: 0 }
    }

    /// Notes that the record `seqno` put `hash` at a location or, with `None`, deleted it.
    ///
    /// The largest sequence number of a key wins, in whatever order they are offered (K3).
    pub(crate) fn offer(&mut self, hash: KeyHash, seqno: Seqno, what: Option<Location>) {
        let entry = what.map_or_else(|| Entry::tombstone(hash), |at| Entry::new(hash, at, 0));
        let offered = LoadEntry { entry, seqno: [seqno.0 as u32, (seqno.0 >> 32) as u32] };
        let range = &mut self.ranges[index_of(hash.table, RANGES)];
        range.waiting.push(offered);
        if range.waiting.len() == WAITING {
            range.settle(&mut self.live_len);
        }
    }

    /// Notes that a range tombstone is newer than the record `seqno` of `hash`, which was offered before.
    pub(crate) fn hide(&mut self, hash: KeyHash, seqno: Seqno) {
        let range = &mut self.ranges[index_of(hash.table, RANGES)];
        range.settle(&mut self.live_len);
        let known = range.table.find_mut(hash.bucket, |known| known.entry.is_of(hash));
        if let Some(known) = known.filter(|known| known.seqno() == seqno)
            && !known.entry.is_tombstone()
        {
            known.entry = Entry::tombstone(hash);
            self.live_len -= 1;
        }
    }

    /// The keydir of the keys that are not deleted; `live` is called with the place of each.
    pub(crate) fn finish(mut self, aging: Aging, mut live: impl FnMut(Location)) -> Keydir {
        for range in &mut self.ranges {
            range.settle(&mut self.live_len);
        }
        let ages = Ages::new(aging);
        let count = growth::count_for(self.live_len);
        // A single table starts as small as its entries allow, like that of a new keydir.
        let capacity = TABLE_CAPACITY.min(self.live_len as usize);
        let mut tables: Vec<Table> = Vec::with_capacity(count);
        // Ranges and tables follow the same order, so what is behind has been freed and what is
        // ahead is not allocated yet: the two structures never exist side by side.
        for (index, range) in self.ranges.into_iter().enumerate() {
            let last = *overlapping(&range_of(index, RANGES), count).end();
            tables.resize_with(tables.len().max(last + 1), || Table::with_capacity(capacity));
            for entry in range.table.into_iter().map(|known| known.entry) {
                if !entry.is_tombstone() {
                    live(entry.location());
                    entry.set_age(ages.loaded());
                    tables[index_of(entry.table(), count)].get_mut().insert(entry);
                }
            }
        }
        Keydir::with_tables(tables, self.live_len, ages)
    }
}

impl Range {
    /// Puts what waits into the table.
    fn settle(&mut self, live_len: &mut u64) {
        let Self { table, waiting } = self;
        table.reserve(waiting.len(), |known| known.entry.bucket());
        for offered in waiting.drain(..) {
            let is_live = !offered.entry.is_tombstone();
            match table.entry(
                offered.entry.bucket(),
                |known| known.is_of(&offered),
                |known| known.entry.bucket(),
            ) {
                Slot::Occupied(mut known) => {
                    let known = known.get_mut();
                    if known.seqno() >= offered.seqno() && !is_planted(Bug::LastReadWins) {
                        continue;
                    }
                    *live_len -= u64::from(!known.entry.is_tombstone());
                    *live_len += u64::from(is_live);
                    *known = offered;
                }
                Slot::Vacant(slot) => {
                    *live_len += u64::from(is_live);
                    slot.insert(offered);
                }
            }
        }
    }
}

impl LoadEntry {
    fn is_of(&self, other: &Self) -> bool {
        self.entry.bucket() == other.entry.bucket() && self.entry.table() == other.entry.table()
    }

    fn seqno(&self) -> Seqno {
        Seqno(u64::from(self.seqno[1]) << 32 | u64::from(self.seqno[0]))
    }
}
