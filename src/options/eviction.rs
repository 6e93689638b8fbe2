//! How much a store may hold, and what goes when it is full.

use super::Options;

/// Which key goes when the store holds as much as it may, see [`Options::entries_max`] and
/// [`Options::bytes_max`].
///
/// What was evicted stays gone through restarts and crashes, as what was deleted does. Which key has to go
/// is found by comparing a handful of them, taken at random: the one that goes is among the worst, not the
/// worst of all. That takes no memory for each key.
///
/// # Example: a cache of a thousand keys
/// ```
/// # futures::executor::block_on(async {
/// # let dir = tempfile::tempdir().unwrap();
/// use ringcask::{Durability, Eviction, Options};
/// let cache = Options::new().entries_max(1000).eviction(Eviction::Lru).durability(Durability::Buffered);
/// let cache = cache.open(dir.path()).await?;
/// for n in 0..1500 {
///     cache.put(format!("page {n}"), "…").await?;
/// }
/// let total = cache.stats().total();
/// assert!(total.keys <= 1000 && total.evicted >= 500);
/// # cache.close().await }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Eviction {
    /// Nothing goes: what would add a key, or make one longer, beyond a bound fails with
    /// [`ErrorKind::Full`](crate::ErrorKind::Full). Deletions, changes of an expiry, and values that are no
    /// longer than those they replace go on.
    #[default]
    None,
    /// What was used the longest ago. Reads of a key and writes of it are uses; scans are not. How long
    /// ago is known to a thirty-second part of the time in which the whole store is replaced once.
    Lru,
    /// What is used the least. A use counts the less the more there were, and what was used often once is
    /// forgotten as other keys are evicted.
    Lfu,
    /// Any.
    Random,
    /// What expires the soonest. Keys that never expire stay: when only such are left, writes fail as with
    /// [`Eviction::None`].
    Ttl,
}

/// The bounds of a store, and what happens at them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Capacity {
    pub(crate) entries_max: Option<u64>,
    pub(crate) bytes_max: Option<u64>,
    pub(crate) eviction: Eviction,
}

impl Capacity {
    /// What partition `index` of `count` may hold: together as much as the store may, but at least one
    /// key, however many there are.
    pub(crate) fn share(&self, index: u32, count: u32) -> Capacity {
        let (index, count) = (u64::from(index), u64::from(count));
        let share = |max: u64| (max / count + u64::from(index < max % count)).max(1);
        Capacity {
            entries_max: self.entries_max.map(share),
            bytes_max: self.bytes_max.map(share),
            eviction: self.eviction,
        }
    }

    pub(crate) fn is_bounded(&self) -> bool {
        self.entries_max.is_some() || self.bytes_max.is_some()
    }
}

impl Options {
    /// Most keys that the store holds. Default: as many as there are.
    ///
    /// Each partition has its share, the same number for each, and keeps to it by itself: one is full when it
    /// holds its share, and that is a little before the store holds as many. Keys are spread by chance, so
    /// with a thousand keys a partition the first of them is full some percent early, with ten some
    /// tenths. A share is one key at least.
    ///
    /// A batch is refused as a whole. One over several partitions holds the room that it needs in each until it is
    /// published.
    ///
    /// With a policy that evicts, no write waits for that: keys go in the commit that made it necessary, or,
    /// if it takes reading from the disk to learn which they are, soon after. Many writes in flight may go
    /// beyond the bound meanwhile, by a sixteenth of it, or sixteen keys a partition if that is more.
    /// A store that is opened with more than it may hold evicts by and by, while it serves.
    pub fn entries_max(mut self, count: u64) -> Options {
        self.entries_max = Some(count);
        self
    }

    /// Most bytes of live records that the store holds. Default: as many as there are.
    ///
    /// Counted is what [`PartitionStats::live_bytes`](crate::PartitionStats::live_bytes) counts: the newest
    /// record of each key, header, key, value and padding, which comes to 32 bytes more than key and value,
    /// 40 with an expiry, rounded up by a thirty-second part at most. Not counted are the records that these
    /// replaced, tombstones, hint files, and what is on disk twice during a compaction: files take about
    /// twice as much as what is live in them. Memory is bounded by [`Options::entries_max`].
    ///
    /// Each partition has its share, as with [`Options::entries_max`], and a value whose record is longer than
    /// the share of its partition is refused with [`ErrorKind::Full`](crate::ErrorKind::Full), whatever could
    /// be evicted. Many writes in flight may go beyond the bound by a sixteenth of it, or 64 KiB a partition
    /// if that is more, and by one value.
    pub fn bytes_max(mut self, len_bytes: u64) -> Options {
        self.bytes_max = Some(len_bytes);
        self
    }

    /// What happens when a bound is reached. Default: [`Eviction::None`], writes fail.
    ///
    /// It may be another one at every open. What the keys were used for is not kept when a store is closed: one
    /// that was just opened takes all of them for equal.
    pub fn eviction(mut self, eviction: Eviction) -> Options {
        self.eviction = eviction;
        self
    }

    pub(crate) fn capacity(&self) -> Capacity {
        let Options { entries_max, bytes_max, eviction, .. } = *self;
        Capacity { entries_max, bytes_max, eviction }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_bound_and_none_is_empty() {
        for (max, count) in [(10, 2), (10, 3), (1, 1), (7, 8), (1_000_003, 16), (u64::MAX, 4096)] {
            let capacity = Capacity { entries_max: Some(max), ..Capacity::default() };
            let shares = (0..count).map(|index| capacity.share(index, count).entries_max);
            let shares: Vec<u64> = shares.flatten().collect();
            let sum: u128 = shares.iter().map(|share| u128::from(*share)).sum();
            assert_eq!(sum, u128::from(max.max(count.into())));
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
