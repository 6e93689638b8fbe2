//! What a partition does for a backup: it marks the moment, seals the file that was written then, and leaves every file
//! of that moment its name until all are copied.
//!
//! At the moment nothing is in flight, and what is staged from then on goes into another file. So the file that is
//! sealed ends with what was sent before the moment: all that was acknowledged by then, and perhaps more, of which
//! nobody can have known that it was done. That goes for all partitions, because none publishes anything before all have
//! marked. A batch over partitions is decided by one record, and its intents were durable before that was written: if
//! the decision is in the backup, so are they, and the open of the backup completes it. Hints say nothing of intents and
//! decisions (BA3), so those that a file got later, once its batches were settled, are not for the backup.
//!
//! Compaction goes on: the list of the moment names its inputs, whatever `FILES` says by the time they are copied.

use super::Partition;
use crate::error::{Error, Result};
use crate::log::files::FilesList;
use crate::mailbox::{Marking, Pinned, ReplySender};
use crate::planted::{Bug, is_planted};
use crate::types::FileId;

/// Backups that wait for a file to be sealed.
#[derive(Default)]
pub(super) struct Backups {
    pending: Vec<Pending>,
}

pub(super) struct Pending {
    sealing: FileId,
    /// What was listed at the moment.
    then: FilesList,
    unsettled: Vec<FileId>,
    reply: ReplySender<Result<Pinned>>,
}

impl Backups {
    pub(super) fn is_sealing(&self, file: FileId) -> bool {
        self.pending.iter().any(|pending| pending.sealing == file)
    }
}

impl Partition {
    pub(super) fn backup_wanted(
        &mut self,
        marking: Marking<()>,
        reply: ReplySender<Result<Pinned>>,
    ) {
        // The log is sealed, or about to be: dropping it says so.
        if !self.sealing {
            self.moments.want_backup(marking, reply);
        }
    }

    /// Marks the moment; nothing is in flight.
    pub(super) fn backup_mark(
        &mut self,
        marking: Marking<()>,
        reply: ReplySender<Result<Pinned>>,
    ) -> bool {
        let is_held = marking.marked((), self.config.expiry.now_ms());
        if let Some(error) = &self.poisoned {
            reply.send(Err(error.clone()));
            return is_held;
        }
        self.upkeep.pin();
        let then = self.listed.clone();
        let ids = then.sealed.iter().map(|sealed| sealed.id);
        let mut unsettled: Vec<FileId> = ids.filter(|id| self.batches.holds(*id)).collect();
        let Some(active) = &self.active else {
            self.backup_ready(then, unsettled, reply);
            return is_held;
        };
        let sealing = active.data.id;
        if !is_planted(Bug::UnsettledHintKept) {
            unsettled.push(sealing);
        }
        if self.groups.target_file() == sealing {
            self.groups.leave_file();
        }
        self.backups.pending.push(Pending { sealing, then, unsettled, reply });
        is_held
    }

    /// A file was sealed and listed.
    pub(super) fn backup_sealed(&mut self, file: FileId) {
        if self.backups.pending.is_empty() {
            return;
        }
        let Some(sealed) = self.listed.find_sealed(file).copied() else { return };
        let is_ready = |pending: &mut Pending| pending.sealing == sealed.id;
        let ready: Vec<Pending> = self.backups.pending.extract_if(.., is_ready).collect();
        for Pending { mut then, unsettled, reply, .. } in ready {
            then.sealed.push(sealed);
            then.sealed.sort_unstable_by_key(|sealed| sealed.id);
            self.backup_ready(then, unsettled, reply);
        }
    }

    fn backup_ready(
        &self,
        then: FilesList,
        unsettled: Vec<FileId>,
        reply: ReplySender<Result<Pinned>>,
    ) {
        let list = FilesList { active: None, ..then };
        let (partition, peers) = (self.id.0 as usize, self.config.peers.clone());
        reply.send(Ok(Pinned { list, unsettled, partition, peers }));
    }

    /// The file cannot be sealed.
    pub(super) fn backup_fail(&mut self, error: &Error) {
        for pending in std::mem::take(&mut self.backups.pending) {
            self.upkeep.unpin();
            pending.reply.send(Err(error.clone()));
        }
    }
}
