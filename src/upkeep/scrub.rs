//! Reading sealed files that nobody asked for, so that damage is found while there still is a backup.
//!
//! Opening reads hints, and gets read what they ask for: a byte that rots in a record nobody wants would
//! stay unknown for years.
//!
//! ## Invariants
//! - **SB1** Whatever a scrub finds, it changes nothing on disk.
//! - **SB2** On average no more is read than the rate allows; what one step reads beyond it is waited for
//!   before the next.

use std::sync::Arc;
use std::time::Instant;

use super::hints::{Uncached, check_sealed, opened_chain};
use crate::error::{Error, Result};
use crate::io::Fs;
use crate::log::data_file::{DataFile, Owner};
use crate::log::files::SealedFile;
use crate::log::scanner::Scan;
use crate::types::FileId;

/// Bytes that one step goes on. Independent of the rate, because a step reads up to 1 MiB more than that.
const STEP_LEN: u64 = 4 << 20;

/// Seconds of reading that are saved up while there is something else to do.
const SAVED_SECS: i64 = 2;

/// Bytes that may be read now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// `None` where time does not pass by itself.
    bytes_per_sec: Option<i64>,
    /// Less than nothing after a step that was longer than what was left.
    left: i64,
    refilled: Instant,
}

impl Allowance {
    pub(crate) fn new(bytes_per_sec: Option<u64>, now: Instant) -> Allowance {
        let bytes_per_sec =
            bytes_per_sec.map(|rate| i64::try_from(rate).unwrap_or(i64::MAX / SAVED_SECS));
        Allowance { bytes_per_sec, left: bytes_per_sec.unwrap_or(1), refilled: now }
    }

    pub(crate) fn is_left(&self) -> bool {
        self.left > 0
    }

    /// Time has passed.
    pub(crate) fn refill(&mut self, now: Instant) {
        let Some(rate) = self.bytes_per_sec else { return };
        let passed = now.saturating_duration_since(self.refilled);
        let earned = (rate as f64 * passed.as_secs_f64()) as i64;
        // Of a rate so small that nothing was earned yet, the time goes on to count.
        if earned > 0 {
            self.refilled = now;
            self.left = self.left.saturating_add(earned).min(rate.saturating_mul(SAVED_SECS));
        }
    }

    fn charge(&mut self, bytes: u64) {
        if self.bytes_per_sec.is_some() {
            self.left = self.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}

/// Once round all sealed files, by their ids.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    /// The last file that was begun.
    after: FileId,
    /// Files from here on are left to the next pass: with new ones all the time this one had no end.
    until: FileId,
}

impl Pass {
    pub(crate) fn new(until: FileId) -> Pass {
        Pass { after: FileId(0), until }
    }

    /// The next file to read; `sealed` is in order of ids.
    pub(crate) fn next(&mut self, sealed: &[SealedFile]) -> Option<SealedFile> {
        let from = sealed.partition_point(|file| file.id <= self.after);
        let next = sealed.get(from).filter(|file| file.id < self.until)?;
        self.after = next.id;
        Some(*next)
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Step {
    /// Bytes that the disk was asked for.
    read_bytes: u64,
    /// Bytes of the file that were found to be as they were written.
    pub(crate) sound_bytes: u64,
    pub(crate) is_done: bool,
}

impl Step {
    pub(crate) fn charge(&self, allowance: &mut Allowance) {
        allowance.charge(self.read_bytes);
    }
}

/// Reads one data file, in steps.
pub(crate) struct ScrubJob {
    fs: Fs,
    owner: Owner,
    data: Arc<DataFile>,
    sealed: SealedFile,
    /// `None` before the first step.
    scan: Option<Scan>,
}

impl ScrubJob {
    pub(crate) fn new(fs: Fs, owner: Owner, data: Arc<DataFile>, sealed: SealedFile) -> ScrubJob {
        ScrubJob { fs, owner, data, sealed, scan: None }
    }

    pub(crate) fn file(&self) -> FileId {
        self.sealed.id
    }

    /// Reads on; also what was read before an error.
    ///
    /// # Errors
    /// `Corrupt` if the data file is not what it should be; `Io`.
    pub(crate) fn step(&mut self) -> (Step, Result<()>) {
        let mut step = Step::default();
        let outcome = self.read(&mut step);
        (step, outcome)
    }

    fn read(&mut self, step: &mut Step) -> Result<()> {
        let ScrubJob { fs, owner, data, sealed, scan } = self;
        let io = |source| Error::io("read", &data.path, source);
        let file = data.open(fs).map_err(io)?;
        let reader = Uncached::new(&file);
        let before = scan.as_ref().map_or(0, |scan| scan.end);
        let read = scan
            .take()
            .map_or_else(|| opened_chain(&reader, data, sealed, owner).map(Scan::start), Ok);
        let read = read.and_then(|mut scan| {
            let is_read = scan.read_on(&reader, sealed.len, data.identity, STEP_LEN, &mut |_| ());
            Ok((is_read.map_err(io)?, scan))
        });
        step.read_bytes = reader.read_bytes();
        let (is_read, read) = read?;
        step.sound_bytes = read.end - before;
        if is_read {
            check_sealed(&read, &file, data, sealed)?;
        }
        step.is_done = is_read;
        *scan = Some(read);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::Seqno;

    /// SB2: over any time, at most the rate, what may be saved up, and the step that was under way.
    #[test]
    fn sb2_an_allowance_holds_the_rate() {
        let start = Instant::now();
        for (rate, tick_ms, step) in
            [(1 << 20, 1000, 5 << 20), (100 << 20, 1000, 5 << 20), (3, 10, 100), (1 << 20, 7, 4096)]
        {
            let mut allowance = Allowance::new(Some(rate), start);
            let mut read = 0;
            for tick in 1..2000_u64 {
                while allowance.is_left() {
                    allowance.charge(step);
                    read += step;
                }
                let passed = Duration::from_millis(tick * tick_ms);
                let most = rate as f64 * (passed.as_secs_f64() + 1.0) + step as f64;
                assert!((read as f64) <= most, "rate {rate}, tick {tick}: {read} of {most}");
                allowance.refill(start + passed);
            }
            let least = rate as f64 * 1998.0 * tick_ms as f64 / 1000.0;
            assert!(read as f64 >= least * 0.99, "rate {rate}: {read} of {least}");
        }
    }

    #[test]
    fn what_is_saved_up_has_a_bound() {
        let start = Instant::now();
        let mut allowance = Allowance::new(Some(1000), start);
        allowance.refill(start + Duration::from_secs(86_400));
        assert_eq!(allowance.left, 2000);
        let mut unlimited = Allowance::new(None, start);
        unlimited.charge(u64::MAX);
        assert!(unlimited.is_left());
        let mut largest = Allowance::new(Some(u64::MAX), start);
        largest.refill(start + Duration::from_secs(1));
        assert!(largest.is_left());
    }

    /// Files come and go while it goes round.
    #[test]
    fn a_pass_meets_each_file_once() {
        let file = |id| SealedFile {
            id: FileId(id),
            len: 0,
            digest: 0,
            records: 0,
            seqno_min: Seqno(0),
            seqno_max: Seqno(0),
        };
        let mut pass = Pass::new(FileId(10));
        let files = [2, 3, 7].map(file);
        assert_eq!(pass.next(&files), Some(file(2)));
        assert_eq!(pass.next(&files), Some(file(3)));
        let files = [2, 5, 9, 10, 11].map(file);
        assert_eq!(pass.next(&files), Some(file(5)));
        assert_eq!(pass.next(&files), Some(file(9)));
        assert_eq!((pass.next(&files), pass.next(&[])), (None, None));
    }
}
