//! Slowing writers down when compaction falls behind (W6).
//!
//! Writers never wait for a step of compaction. But when they kill records faster than compaction gives
//! back the space, and nobody told them, the disk would fill up. So beyond a bound each commit group is
//! followed by a pause in proportion to how far behind compaction is.

use std::time::Duration;

/// Dead bytes that a partition may have before writers are slowed, as a multiple of those at which
/// compaction starts.
const SLOW_FROM: f64 = 1.1;
/// With this much more, groups are followed by [`PAUSE_MAX_RATIO`] times the time that they took.
const SLOW_RANGE: f64 = 1.4;
const PAUSE_MAX_RATIO: f64 = 8.0;
/// A pause is at most this long, so that it is looked at again how things stand.
const PAUSE_MAX: Duration = Duration::from_millis(10);
/// However small the store is, dead bytes of this many data files slow nobody.
const FREE_FILES: u64 = 4;

/// What compaction has before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Debt {
    /// Dead bytes in sealed files.
    pub(crate) dead_bytes: u64,
    /// Bytes of records there that stay.
    pub(crate) kept_bytes: u64,
    pub(crate) dead_ratio: f64,
    pub(crate) file_len: u64,
}

impl Debt {
    /// Dead bytes at which compaction starts, or those of a few files.
    fn allowed(&self) -> f64 {
        let ratio = self.dead_ratio / (1.0 - self.dead_ratio);
        (self.kept_bytes as f64 * ratio).max((FREE_FILES * self.file_len) as f64)
    }

    /// Dead bytes beyond those.
    #[expect(clippy::cast_sign_loss, reason = "what is allowed is a product of positive numbers")]
    pub(crate) fn bytes(&self) -> u64 {
        self.dead_bytes.saturating_sub(self.allowed() as u64)
    }

    /// How long writers pause after a commit group that took so long.
    pub(crate) fn pause(&self, took: Duration) -> Duration {
        let behind = (self.dead_bytes as f64 / self.allowed() - SLOW_FROM) / SLOW_RANGE;
        if behind <= 0.0 {
            return Duration::ZERO;
        }
        took.mul_f64(behind.min(1.0) * PAUSE_MAX_RATIO).min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debt(dead_bytes: u64, kept_bytes: u64) -> Debt {
        Debt { dead_bytes, kept_bytes, dead_ratio: 0.5, file_len: 10 }
    }

    #[test]
    fn nobody_pauses_while_compaction_keeps_up() {
        let took = Duration::from_millis(1);
        assert_eq!(debt(1100, 1000).pause(took), Duration::ZERO);
        assert_eq!(debt(1100, 1000).bytes(), 100);
        assert_eq!(debt(0, 0).bytes(), 0);
    }

    #[test]
    fn a_small_store_may_be_dead_altogether() {
        assert_eq!(debt(44, 0).pause(Duration::from_millis(1)), Duration::ZERO);
        assert!(debt(100, 0).pause(Duration::from_millis(1)) > Duration::ZERO);
    }

    #[test]
    fn pauses_grow_with_what_is_behind_and_are_bounded() {
        let took = Duration::from_micros(500);
        let pauses = [1200, 1700, 2200, 2500, 9000].map(|dead| debt(dead, 1000).pause(took));
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!(pauses[4], took * 8);
        assert_eq!(debt(9000, 1000).pause(Duration::from_secs(1)), PAUSE_MAX);
    }
}
