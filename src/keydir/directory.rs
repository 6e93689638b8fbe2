//! Which table answers for a hash.
//!
//! Tables are equal ranges of the 32-bit table hash: with `count` tables, `hash` belongs to table
//! `hash * count >> 32`. While the number grows there are two sets of ranges, and the frontier
//! says where the new one ends and the old one goes on.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use super::table::Table;
use crate::sync::{AtomicU64, Ordering};

/// Published as a whole when an expansion begins or ends; in between only `frontier` changes.
pub(super) struct Directory {
    pub(super) current: Arc<[Table]>,
    /// The tables of the expansion under way, without entries from the frontier on; empty if there
    /// is none.
    pub(super) next: Arc<[Table]>,
    /// Table hashes below it are answered by `next`. Only the writer stores it.
    frontier: AtomicU64,
}

impl Directory {
    pub(super) fn settled(current: Arc<[Table]>) -> Self {
        Self { current, next: Arc::new([]), frontier: AtomicU64::new(0) }
    }

    /// The same tables, about to expand into `count` others that hold no memory yet.
    pub(super) fn expanding(&self, count: usize) -> Self {
        let next = (0..count).map(|_| Table::with_capacity(0)).collect();
        Self { current: Arc::clone(&self.current), next, frontier: AtomicU64::new(0) }
    }

    /// The table that answers for `table_hash`, as far as this directory knows (K11).
    pub(super) fn table(&self, table_hash: u32) -> &Table {
        // Pairs with `raise_frontier`: whoever sees the frontier sees the tables below it filled.
        let moved = u64::from(table_hash) < self.frontier.load(Ordering::Acquire);
        let tables = if moved { &self.next } else { &self.current };
        &tables[index_of(table_hash, tables.len())]
    }

    pub(super) fn raise_frontier(&self, bound: u64) {
        debug_assert!(bound > self.frontier.load(Ordering::Relaxed));
        self.frontier.store(bound, Ordering::Release);
    }

    #[cfg(test)]
    pub(super) fn frontier(&self) -> u64 {
        self.frontier.load(Ordering::Relaxed)
    }

    /// Every table with entries; those of `current` may hold stale copies of moved ones beside
    /// their own, which [`Slots::iter`](super::table::Slots::iter) leaves out.
    #[cfg(test)]
    pub(super) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.next.iter().chain(self.current.iter())
    }

    /// RAM of the tables' heads; their entries are counted as they come and go.
    pub(super) fn heads_bytes(&self) -> usize {
        (self.current.len() + self.next.len()) * size_of::<Table>()
    }
}

/// Which of `count` tables `table_hash` belongs to.
pub(super) fn index_of(table_hash: u32, count: usize) -> usize {
    ((u64::from(table_hash) * count as u64) >> 32) as usize
}

/// The table hashes that belong to table `index` of `count`.
pub(super) fn range_of(index: usize, count: usize) -> Range<u64> {
    let start = |index: usize| ((index as u64) << 32).div_ceil(count as u64);
    start(index)..start(index + 1)
}

/// The tables out of `count` that share a hash with `range`.
pub(super) fn overlapping(range: &Range<u64>, count: usize) -> RangeInclusive<usize> {
    index_of(range.start as u32, count)..=index_of((range.end - 1) as u32, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_the_inverse_of_the_index() {
        for count in [1, 2, 3, 7, 18, 1000, 4097, 70_001] {
            assert_eq!(range_of(0, count).start, 0);
            assert_eq!(range_of(count - 1, count).end, 1 << 32);
            for index in 0..count {
                let range = range_of(index, count);
                assert_eq!(overlapping(&range, count), index..=index);
            }
        }
    }

    #[test]
    fn the_frontier_decides_between_the_two_sets() {
        let directory = Directory::settled((0..3).map(|_| Table::fixed()).collect()).expanding(4);
        let is_in = |hash: u32, tables: &[Table], index: usize| {
            std::ptr::eq(directory.table(hash), &raw const tables[index])
        };
        let bound = range_of(1, 4).end;
        assert!(is_in((bound - 1) as u32, &directory.current, 1));
        directory.raise_frontier(bound);
        assert!(is_in((bound - 1) as u32, &directory.next, 1));
        assert!(is_in(bound as u32, &directory.current, 1));
    }
}
