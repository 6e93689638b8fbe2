//! When the number of tables grows: Larson's partial expansions, paced by the number of entries.
//!
//! Tables cannot be filled above [`KEYDIR_TABLE_FILL`](crate::limits::KEYDIR_TABLE_FILL) on average,
//! or the fuller ones among them run out of room. Growing from `n` to `m` tables therefore ends when `n` tables would be that full. It
//! begins when `m` tables, each as full as the last expansion left its own, would: from there to
//! the end the number of allocated tables grows in proportion to the number of entries, so RAM per
//! key stays the same and every step is one table's work.

use super::table::TABLE_CAPACITY;
use crate::limits::KEYDIR_TABLE_FILL as TABLE_FILL;

const _: () = assert!(TABLE_FILL < TABLE_CAPACITY as u64);

/// An expansion under way.
pub(super) struct Growth {
    from_len: u64,
    until_len: u64,
    /// Tables to build, and how many are.
    count: usize,
    built: usize,
}

impl Growth {
    /// The expansion from `count` tables, for a keydir that holds `len` entries now.
    pub(super) fn begin(count: usize, len: u64) -> Self {
        let until_len = count as u64 * TABLE_FILL;
        // Beginning late (the expansion before ended later than this one should have begun) makes
        // the steps denser instead of starting with a burst of those that are overdue.
        Self { from_len: len.min(until_len), until_len, count: next_count(count), built: 0 }
    }

    /// Index of the table to build now.
    pub(super) fn next_table(&mut self) -> usize {
        self.built += 1;
        self.built - 1
    }

    pub(super) fn is_complete(&self) -> bool {
        self.built == self.count
    }

    /// Number of entries at which the next table is built.
    pub(super) fn due_len(&self) -> u64 {
        let share = (self.until_len - self.from_len) * (self.built as u64 + 1);
        self.from_len + share / self.count as u64
    }
}

/// Number of tables after `count`: a tenth more.
///
/// Smaller steps move each entry more often, larger ones leave tables emptier. With an eighth an
/// insertion is some 20 ns cheaper, but RAM goes over 29 bytes per key around 200,000 keys, where
/// the one table that exists twice while it is half moved is a seventeenth of all.
pub(super) fn next_count(count: usize) -> usize {
    count + (count / 10).max(1)
}

/// Number of entries at which `count` tables begin to expand.
pub(super) fn expansion_len(count: usize) -> u64 {
    let count_u64 = count as u64;
    count_u64 * count_u64 * TABLE_FILL / next_count(count) as u64
}

/// Fewest tables that hold `len` entries without having to expand.
pub(super) fn count_for(len: u64) -> usize {
    let mut count = (len / TABLE_FILL).max(1) as usize;
    while expansion_len(count) <= len {
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_spread_evenly_and_end_in_time() {
        let mut count = 1;
        let mut len = 0;
        while count < 100_000 {
            len = expansion_len(count).max(len);
            let mut growth = Growth::begin(count, len);
            // From eight tables on an expansion always has at least half of its span left.
            let dense = if count < 8 { 1 } else { TABLE_FILL / 24 };
            while !growth.is_complete() {
                assert!(growth.due_len() >= len + dense, "{count} tables, step {}", growth.built);
                len = growth.due_len();
                growth.next_table();
            }
            assert_eq!(len, count as u64 * TABLE_FILL);
            count = next_count(count);
        }
    }

    #[test]
    fn a_fresh_count_is_not_due_and_the_one_below_is() {
        for len in [0, 1, 6_899, 6_900, 13_800, 200_000, 10_000_000, 4_000_000_000] {
            let count = count_for(len);
            assert!(expansion_len(count) > len);
            assert!(count == 1 || expansion_len(count - 1) <= len);
        }
    }
}
