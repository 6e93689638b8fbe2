//! Doing what [`upkeep::prewrite`](crate::upkeep::prewrite) decides: writing zeros ahead of the log.

use super::space::Reserve;
use super::{Event, Ops, Partition};
use crate::io::WriteMode;
use crate::upkeep::prewrite::{LogEnd, Outcome};

impl Partition {
    /// Starts the next step of zeros, if one is due.
    pub(super) fn prewrite_advance(&mut self, ops: &mut Ops) {
        let Some(active) = &self.active else { return };
        let leaving = self.groups.target_file() != active.data.id || self.inbox.is_closed();
        let is_full = self.reserve == Reserve::Released; // SP1
        if leaving || is_full || self.poisoned.is_some() {
            return; // PW2
        }
        let Some(file) = active.ahead.clone() else { return };
        let log = LogEnd {
            end: active.end,
            in_flight_len: self.in_flight_len,
            prewritten: active.prewritten,
            file_len_max: self.bounds.len_max,
        };
        let Some(step) = self.prewrite.begin_step(&log) else { return };
        self.view.counters.prewritten_bytes.add(step.end - step.start);
        let (disk, index) = (self.disk.clone(), self.index);
        ops.push(Box::pin(async move {
            let zeros = vec![0; (step.end - step.start) as usize];
            let outcome = match disk.write(&file, zeros, step.start, WriteMode::Plain).await.0 {
                Err(error) => Outcome::Refused(error),
                Ok(()) => match disk.sync(&file).await {
                    Ok(()) => Outcome::Done { end: step.end },
                    Err(error) => Outcome::SyncFailed(error),
                },
            };
            (index, Event::Prewritten(outcome))
        }));
    }

    pub(super) fn prewrite_done(&mut self, outcome: Outcome) {
        self.prewrite.end_step(&outcome);
        match outcome {
            Outcome::Done { end } => {
                if let Some(active) = &mut self.active {
                    active.prewritten = active.prewritten.max(end);
                }
            }
            Outcome::Refused(error) => {
                tracing::debug!(partition = self.id.0, %error, "no space is written ahead");
            }
            Outcome::SyncFailed(error) => self.poison("a sync of the log", &error),
        }
    }

    /// A group that would grow into space where zeros are being written waits for them.
    pub(super) fn prewrite_would_overlap(&self, len: u64) -> bool {
        let Some(active) = &self.active else { return false };
        self.prewrite.is_in_flight() && active.end + len > active.prewritten.max(active.end)
    }
}
