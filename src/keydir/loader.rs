//! Building a keydir while a store opens.
//!
//! Files are loaded in any order, so every entry needs its record's sequence number and deleted
//! keys need an entry too (K4). That makes entries of 28 bytes, which nobody reads while they are
//! collected: they sit in plain hash tables, and become a [`Keydir`] when the last file is loaded.

use hashbrown::HashTable;

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

/// Collects what the files of a partition say about its keys.
pub(crate) struct KeydirLoader {
    ranges: Vec<HashTable<LoadEntry>>,
    /// Number of entries that are not tombstones.
    live_len: u64,
}

struct LoadEntry {
    entry: Entry,
    /// Low and high half of the sequence number, for the alignment of four.
    seqno: [u32; 2],
}

const _: () = assert!(size_of::<LoadEntry>() == 28);

impl KeydirLoader {
    pub(crate) fn new() -> Self {
        Self { ranges: (0..RANGES).map(|_| HashTable::new()).collect(), live_len: 0 }
    }

    /// Notes that the record `seqno` put `hash` at a location or, with `None`, deleted it.
    ///
    /// The largest sequence number of a key wins, in whatever order they are offered (K3).
    pub(crate) fn offer(&mut self, hash: KeyHash, seqno: Seqno, what: Option<Location>) {
        let entry = what.map_or_else(|| Entry::tombstone(hash), |at| Entry::new(hash, at, 0));
        let offered = LoadEntry { entry, seqno: [seqno.0 as u32, (seqno.0 >> 32) as u32] };
        let range = &mut self.ranges[index_of(hash.table, RANGES)];
        match range.find_mut(hash.bucket, |known| known.entry.is_of(hash)) {
            Some(known) if known.seqno() >= seqno && !is_planted(Bug::LastReadWins) => {}
            Some(known) => {
                self.live_len -= u64::from(!known.entry.is_tombstone());
                self.live_len += u64::from(what.is_some());
                *known = offered;
            }
            None => {
                self.live_len += u64::from(what.is_some());
                range.insert_unique(hash.bucket, offered, |known| known.entry.bucket());
            }
        }
    }

    /// Notes that a range tombstone is newer than the record `seqno` of `hash`, which was offered before.
    pub(crate) fn hide(&mut self, hash: KeyHash, seqno: Seqno) {
        let range = &mut self.ranges[index_of(hash.table, RANGES)];
        let known = range.find_mut(hash.bucket, |known| known.entry.is_of(hash));
        if let Some(known) = known.filter(|known| known.seqno() == seqno)
            && !known.entry.is_tombstone()
        {
            known.entry = Entry::tombstone(hash);
            self.live_len -= 1;
        }
    }

    /// The keydir of the keys that are not deleted; `live` is called with the place of each.
    pub(crate) fn finish(self, aging: Aging, mut live: impl FnMut(Location)) -> Keydir {
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
            for entry in range.into_iter().map(|known| known.entry) {
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

impl LoadEntry {
    fn seqno(&self) -> Seqno {
        Seqno(u64::from(self.seqno[1]) << 32 | u64::from(self.seqno[0]))
    }
}
