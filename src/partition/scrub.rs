//! One sealed file after the other, when there is nothing else to do ([`upkeep::scrub`](crate::upkeep::scrub)).

use std::time::Instant;

use super::upkeep::UpkeepEvent;
use super::{Ops, Partition};
use crate::error::{Error, Result};
use crate::limits::SCRUB_INTERVAL;
use crate::log::salvage::is_loss;
use crate::types::FileId;
use crate::upkeep::scrub::{Allowance, Pass, ScrubJob, Step};

/// A job that has done a step.
pub(crate) struct Scrubbed {
    job: Box<ScrubJob>,
    step: Step,
    outcome: Result<()>,
}

/// What scrubbing is about in one partition.
#[derive(Default)]
pub(super) struct Scrubber {
    /// `None` if nobody asked for it.
    allowance: Option<Allowance>,
    pass: Option<Pass>,
    /// When the last pass began.
    began: Option<Instant>,
    job: Option<Box<ScrubJob>>,
}

impl Scrubber {
    pub(super) fn new(allowance: Option<Allowance>) -> Scrubber {
        Scrubber { allowance, ..Scrubber::default() }
    }

    pub(super) fn tick(&mut self) {
        if let Some(allowance) = &mut self.allowance {
            allowance.refill(Instant::now());
        }
    }
}

impl Partition {
    /// A job ends quietly with its file, which it would keep from being closed, and with the store.
    pub(super) fn scrub_forget(&mut self) {
        let Some(job) = &self.upkeep.scrubber.job else { return };
        let is_listed = self.listed.find_sealed(job.file()).is_some();
        if !is_listed || self.inbox.is_closed() {
            self.upkeep.scrubber.job = None;
        }
    }

    pub(super) fn scrub_advance(&mut self, ops: &mut Ops) {
        if self.inbox.is_closed()
            || !self.upkeep.scrubber.allowance.as_ref().is_some_and(Allowance::is_left)
        {
            return;
        }
        let job = self.upkeep.scrubber.job.take().or_else(|| self.next_scrub());
        let Some(mut job) = job else { return };
        let step = move || {
            let (step, outcome) = job.step();
            Scrubbed { job, step, outcome }
        };
        self.upkeep_step(ops, step, UpkeepEvent::Scrub);
    }

    /// The next file of the pass, which may be a new one if the last is long enough ago.
    fn next_scrub(&mut self) -> Option<Box<ScrubJob>> {
        let scrubber = &mut self.upkeep.scrubber;
        let now = Instant::now();
        if scrubber.pass.is_none() {
            let is_due = |began: Instant| now.saturating_duration_since(began) >= SCRUB_INTERVAL;
            if !scrubber.began.is_none_or(is_due) {
                return None;
            }
            scrubber.began = Some(now);
        }
        let pass = scrubber.pass.get_or_insert_with(|| Pass::new(self.groups.ids().next()));
        while let Some(sealed) = pass.next(&self.listed.sealed) {
            // Of what is known to be damaged nothing new is learned.
            if self.upkeep.compactor.is_damaged(sealed.id) {
                continue;
            }
            if let Some((_, data)) = self.files.iter().find(|(_, data)| data.id == sealed.id) {
                let (fs, owner) = (self.fs.clone(), self.owner.clone());
                return Some(Box::new(ScrubJob::new(fs, owner, data.clone(), sealed)));
            }
        }
        scrubber.pass = None;
        self.view.counters.scrub_passes.add(1);
        tracing::debug!(partition = self.id.0, "all data files were scrubbed");
        None
    }

    pub(super) fn scrub_done(&mut self, scrubbed: Option<Scrubbed>) {
        // One that panicked is not tried again before the next pass.
        let Some(Scrubbed { job, step, outcome }) = scrubbed else { return };
        self.view.counters.scrubbed_bytes.add(step.sound_bytes);
        let scrubber = &mut self.upkeep.scrubber;
        if let Some(allowance) = &mut scrubber.allowance {
            step.charge(allowance);
        }
        match outcome {
            Ok(()) if step.is_done => {}
            Ok(()) => scrubber.job = Some(job),
            Err(error) if is_damage(&error) => self.note_damaged(job.file(), error),
            Err(error) => tracing::warn!(partition = self.id.0, %error, "a file was not scrubbed"),
        }
    }

    /// Says that a file is damaged, once, and leaves it alone from now on: its other records can be read.
    pub(super) fn note_damaged(&mut self, file: FileId, error: Error) {
        if !self.upkeep.compactor.is_damaged(file) {
            self.view.counters.files_damaged.add(1);
            tracing::error!(partition = self.id.0, file = file.0, %error, "a data file is damaged");
            self.upkeep.compactor.note_damaged(file, error);
        }
    }
}

/// Whether bytes are lost, or the file with them, rather than descriptors or memory short.
fn is_damage(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    let is_gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    error.is_corrupt() || source.is_some_and(|error| is_loss(error) || is_gone(error))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::*;

    /// A file that could not be opened for want of descriptors must not be given up for good.
    #[test]
    fn what_the_system_refuses_for_now_is_no_damage() {
        let path = Path::new("000000001.data");
        for (errno, is_it) in
            [(5, true), (2, true), (61, true), (24, false), (12, false), (13, false)]
        {
            let error = Error::io("read", path, io::Error::from_raw_os_error(errno));
            assert_eq!(is_damage(&error), is_it, "{error}");
        }
        assert!(is_damage(&Error::corrupt(path, 0, "it is")));
        assert!(!is_damage(&Error::newer(path, "a codec")));
    }
}
