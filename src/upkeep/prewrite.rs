//! Zeros ahead of the log (W3): when they pay, and which step is next.
//!
//! A DSYNC write into space whose zeros are on disk needs no metadata from the file system, so it makes
//! a small group durable in one round trip instead of two. The zeros themselves cost the drive's
//! bandwidth, so they are written only while groups are small.
//!
//! ## Invariants
//! - **PW1** One step at a time, behind the log's end and behind the group in flight.
//! - **PW2** No step in a file that the log is leaving: behind its cut a sealed file has nothing.

use std::ops::Range;

use crate::limits::PREWRITE_LEN_MAX;
use crate::log::format::data_header::DATA_HEADER_LEN;

/// Zeros that a new file begins with, in bytes, if they pay.
pub(crate) const FIRST_LEN: u64 = 1 << 20;
/// Zeros pay while durable groups are on average at most this long.
const GROUP_LEN_MAX: u64 = 32 << 10;
/// The next step starts when less than this is left.
const HEADROOM: u64 = 512 << 10;

/// Where writing zeros ahead stands in one partition.
pub(crate) struct Prewrite {
    wanted: bool,
    in_flight: bool,
    /// Moving average over durable groups, in bytes; zero before the first.
    group_len_average: u64,
    /// The file system refused, or there is no descriptor for it; not tried again in this file.
    refused: bool,
}

/// Where the log is, for deciding on a step.
pub(crate) struct LogEnd {
    pub(crate) end: u64,
    /// Bytes behind `end` that the group in flight takes.
    pub(crate) in_flight_len: u64,
    pub(crate) prewritten: u64,
    pub(crate) file_len_max: u64,
}

/// How a step ended.
pub(crate) enum Outcome {
    /// Zeros are on disk up to here.
    Done { end: u64 },
    /// They could not be written, which loses nothing.
    Refused(std::io::Error),
    /// They could not be synced; neither, then, could be what lies before them (D1).
    SyncFailed(std::io::Error),
}

impl Prewrite {
    pub(crate) fn new(wanted: bool) -> Prewrite {
        Prewrite { wanted, in_flight: false, group_len_average: 0, refused: false }
    }

    /// A durable group of this length is on its way.
    pub(crate) fn note_group(&mut self, len: u64) {
        let average = &mut self.group_len_average;
        *average = if *average == 0 { len } else { (*average * 7 + len) / 8 };
    }

    /// A group that nobody wants durable is on its way. Zeros do nothing for such, and after some of them
    /// they do not pay any more.
    pub(crate) fn note_unsynced_group(&mut self) {
        if self.group_len_average > 0 {
            self.note_group(2 * GROUP_LEN_MAX);
        }
    }

    /// The log moved to a new file.
    pub(crate) fn begin_file(&mut self, possible: bool) {
        self.refused = !possible;
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// Whether zeros ahead of the log are worth their bandwidth now.
    pub(crate) fn pays(&self) -> bool {
        self.wanted && self.group_len_average > 0 && self.group_len_average <= GROUP_LEN_MAX
    }

    /// The next step, if one is due; it is in flight then.
    pub(crate) fn begin_step(&mut self, log: &LogEnd) -> Option<Range<u64>> {
        let due = self.pays()
            && !self.in_flight
            && !self.refused
            && log.prewritten < log.end + HEADROOM
            && log.prewritten < log.file_len_max;
        if !due {
            return None;
        }
        let start = log.prewritten.max(log.end + log.in_flight_len);
        // Short files get short steps.
        let step =
            (log.end.saturating_sub(DATA_HEADER_LEN as u64) / 2).clamp(HEADROOM, PREWRITE_LEN_MAX);
        let end = (start + step).min(log.file_len_max);
        self.in_flight = start < end;
        self.in_flight.then_some(start..end)
    }

    /// The step in flight ended.
    pub(crate) fn end_step(&mut self, outcome: &Outcome) {
        self.in_flight = false;
        self.refused |= !matches!(outcome, Outcome::Done { .. });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(end: u64, in_flight_len: u64, prewritten: u64) -> LogEnd {
        LogEnd { end, in_flight_len, prewritten, file_len_max: 64 << 20 }
    }

    fn with_groups_of(len: u64) -> Prewrite {
        let mut prewrite = Prewrite::new(true);
        prewrite.note_group(len);
        prewrite
    }

    #[test]
    fn zeros_are_written_only_while_groups_are_small() {
        let end = log(128, 0, 128);
        assert_eq!(Prewrite::new(true).begin_step(&end), None);
        assert_eq!(with_groups_of(GROUP_LEN_MAX + 1).begin_step(&end), None);
        assert!(with_groups_of(GROUP_LEN_MAX).begin_step(&end).is_some());
    }

    /// Breaks if a store that was loaded with durable puts goes on writing zeros for buffered ones.
    #[test]
    fn zeros_stop_when_nothing_is_durable() {
        let mut prewrite = with_groups_of(100);
        prewrite.note_unsynced_group();
        assert!(prewrite.pays(), "one among durable ones is nothing");
        for _ in 0..10 {
            prewrite.note_unsynced_group();
        }
        assert!(!prewrite.pays());
        for _ in 0..20 {
            prewrite.note_group(100);
        }
        assert!(prewrite.pays());
    }

    /// PW1: anything else would overwrite records with zeros.
    #[test]
    fn a_step_begins_behind_the_group_in_flight_and_is_the_only_one() {
        let mut prewrite = with_groups_of(100);
        let step = prewrite.begin_step(&log(1000, 200, 1100)).unwrap();
        assert_eq!(step, 1200..1200 + HEADROOM);
        assert_eq!(prewrite.begin_step(&log(1000, 200, 1100)), None);
        prewrite.end_step(&Outcome::Done { end: step.end });
        assert_eq!(prewrite.begin_step(&log(1000, 0, step.end + 1000)), None);
    }

    #[test]
    fn a_full_file_and_a_refusal_end_it_until_the_next_file() {
        let mut prewrite = with_groups_of(100);
        assert_eq!(prewrite.begin_step(&log((64 << 20) - 8, 8, 64 << 20)), None);
        assert!(prewrite.begin_step(&log(1000, 0, 1000)).is_some());
        prewrite.end_step(&Outcome::Refused(std::io::Error::other("full")));
        assert_eq!(prewrite.begin_step(&log(1000, 0, 1000)), None);
        prewrite.begin_file(true);
        assert!(prewrite.begin_step(&log(1000, 0, 1000)).is_some());
    }
}
