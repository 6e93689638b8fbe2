//! A full disk: what still works on it, and how it ends.
//!
//! Deleting needs space before it frees any: for tombstones, for sealing, for `FILES`, for what compaction
//! copies. So each partition keeps a file of zeros, `RESERVE`, and removes it when a deletion finds the disk
//! full. From then on puts are refused, in all partitions, until there is space enough for the reserve to come back.
//!
//! ## Invariants
//! - **SP1** While a partition's reserve is gone puts are refused, so that only what frees space uses its space: also
//!   in the other partitions, which share the disk.
//! - **SP2** Deletions leave half of the reserve to compaction, or they could not be compacted.
//! - **SP3** A deletion in a group that did not fit is tried again, in its order; only puts fail (D1).

use super::groups::{Answer, Effect, Group, Pending, Spare};
use super::upkeep::UpkeepEvent;
use super::{Ops, Partition};
use crate::error::{Error, ErrorKind};
use crate::io::Fs;
use crate::limits::RESERVE_LEN;
use crate::log::format::group::GROUP_HEADER_LEN;
use crate::log::format::record::decode_record;
use crate::log::layout;
use crate::types::FileId;

/// The reserve, and what follows from its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reserve {
    /// Not there; to be made when there is something to delete and space for it.
    #[default]
    Missing,
    /// Being made; not before time has passed if that fails.
    Making,
    Refused,
    Held,
    /// Removed because the disk is full (SP1).
    Released,
}

impl Partition {
    /// Why a put is refused before it is tried, if so.
    pub(super) fn put_refusal(&mut self) -> Option<Error> {
        let is_released = self.reserve == Reserve::Released;
        if !is_released && !self.config.peers.is_reserve_released() {
            return None;
        }
        if self.fs.free_bytes(&self.dir).unwrap_or(0) >= 2 * self.reserve_len() {
            if is_released {
                self.reserve = Reserve::Missing;
                self.config.peers.reserve_regained();
            }
            return None;
        }
        let message = format!(
            "{}: the disk is full, and what was kept in reserve is for deletions; delete keys and compact the \
             store, or free space on the file system",
            self.dir.display()
        );
        Some(Error::new(ErrorKind::NoSpace, message))
    }

    /// Why a deletion is refused before it is tried, if so (SP2).
    pub(super) fn del_refusal(&mut self) -> Option<Error> {
        if self.reserve != Reserve::Released
            || self.fs.free_bytes(&self.dir).unwrap_or(0) >= self.reserve_len() / 2
        {
            return None;
        }
        let message = format!(
            "{}: the disk is full, and what is left in reserve is for compaction; compact the store, or free \
             space on the file system",
            self.dir.display()
        );
        Some(Error::new(ErrorKind::NoSpace, message))
    }

    /// Bytes that giving up the reserve would free.
    pub(super) fn reserve_held(&self) -> u64 {
        if self.reserve == Reserve::Held { self.reserve_len() } else { 0 }
    }

    fn reserve_len(&self) -> u64 {
        RESERVE_LEN.min(2 * self.config.bounds.len_max)
    }

    /// Gives up the reserve because something that frees space needs it; false if there is none.
    pub(super) fn reserve_release(&mut self) -> bool {
        if self.reserve != Reserve::Held {
            return false;
        }
        let path = self.dir.join(layout::RESERVE);
        tracing::warn!(
            partition = self.id.0,
            "the disk is full: puts are refused, deletions use the reserve"
        );
        // One unlink of a short file, and nobody can write anything meanwhile anyway.
        if let Err(error) = self.fs.remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove the reserve");
            return false;
        }
        self.reserve = Reserve::Released;
        self.config.peers.reserve_released();
        true
    }

    /// Gives up the reserve if compaction would hardly find space without it.
    pub(super) fn reserve_release_for_compaction(&mut self) {
        if self.fs.free_bytes(&self.dir).is_ok_and(|free| free < self.reserve_len()) {
            self.reserve_release();
        }
    }

    /// Time has passed, or space was freed.
    pub(super) fn reserve_look(&mut self) {
        if self.reserve == Reserve::Refused {
            self.reserve = Reserve::Missing;
        }
        // Also says that puts may go on.
        let _refusal = self.put_refusal();
    }

    /// Makes the reserve, if there is none and there is space; true if a step was started.
    pub(super) fn reserve_advance(&mut self, ops: &mut Ops) -> bool {
        let is_wanted = self.reserve == Reserve::Missing
            && self.files.iter().next().is_some()
            && self.poisoned.is_none()
            && !self.fs.is_volatile()
            && !self.inbox.is_closed();
        if !is_wanted {
            return false;
        }
        self.reserve = Reserve::Making;
        let (fs, dir, len) = (self.fs.clone(), self.dir.clone(), self.reserve_len());
        let step = move || make_reserve(&fs, &dir, len);
        self.upkeep_step(ops, step, |made| UpkeepEvent::Reserved(made.unwrap_or(false)));
        true
    }

    pub(super) fn reserve_made(&mut self, is_made: bool) {
        if self.reserve == Reserve::Making {
            self.reserve = if is_made { Reserve::Held } else { Reserve::Refused };
        }
    }

    /// Tells everybody in `groups` that they failed; but if the disk is full, deletions are tried again with
    /// the space of the reserve, encoded anew for `file` (SP3). `None` if there is nothing to try, or
    /// nothing to try it with.
    pub(super) fn fail_or_retry(
        &mut self,
        groups: Vec<Group>,
        file: FileId,
        error: &Error,
    ) -> Option<Group> {
        let is_del = |pending: &Pending| {
            matches!(pending.effect, Effect::Del { .. } | Effect::RangeDel { .. })
                || self.frees_space(pending)
        };
        let has_dels = groups.iter().any(|group| group.pending.iter().any(is_del));
        if error.kind() != ErrorKind::NoSpace || !has_dels || !self.reserve_release() {
            for group in groups {
                self.fail_group(group, error, false);
            }
            return None;
        }
        let mut retry = Group::new(file, Spare::default());
        for group in groups {
            self.keep_dels(group, &mut retry, error);
        }
        Some(retry)
    }

    /// Whether what is pending deletes, and nothing else depends on whether what fails now was done. What an
    /// operation decided may, and so may a deletion beside the puts of a batch.
    fn frees_space(&self, pending: &Pending) -> bool {
        match pending.effect {
            Effect::RangeDel { .. } => true,
            Effect::Put { .. } => false,
            Effect::Del { .. } | Effect::None => match &pending.answer {
                Answer::Done(_) | Answer::WasThere(..) => true,
                Answer::Entry(of) => of.only_deletes,
                Answer::Batch(answer) => answer.only_deletes,
                Answer::Decided(_) | Answer::Part | Answer::Evicted => false,
            },
            Effect::Intent { batch, .. }
            | Effect::Copy { batch, .. }
            | Effect::Seen { batch }
            | Effect::Decision { batch, .. }
            | Effect::Resolve { batch, .. } => self.batches.only_deletes(batch),
        }
    }

    fn keep_dels(&mut self, group: Group, retry: &mut Group, error: &Error) {
        let (before, now) =
            (self.owner.identity_of(group.file), self.owner.identity_of(retry.file));
        retry.needs_sync |= group.needs_sync;
        retry.has_batch |= group.has_batch;
        retry.staged_at = retry.staged_at.or(group.staged_at);
        let mut rest = &group.buf[GROUP_HEADER_LEN..];
        let mut place = before.at(group.start + GROUP_HEADER_LEN as u64);
        for pending in group.pending {
            let record = pending.effect.has_record().then(|| {
                let record = decode_record(rest, place).expect("the group was encoded here");
                let len = record.header.record_len() as usize;
                (rest, place) = (&rest[len..], place.plus(len));
                record
            });
            if !self.frees_space(&pending) {
                self.fail_pending(pending, error, false);
                continue;
            }
            let at =
                record.map(|record| retry.push(now, &record.header, [record.key, record.value]));
            let effect = match (pending.effect, at) {
                (Effect::RangeDel { index, len }, _) => {
                    retry.ranges.push(group.ranges[index as usize].clone());
                    Effect::RangeDel { index: retry.ranges.len() as u32 - 1, len }
                }
                (Effect::Intent { batch, entry, len, .. }, Some(at)) => {
                    self.batches.note_records(batch, retry.file);
                    Effect::Intent { batch, entry, at, len }
                }
                (Effect::Copy { batch, entry, len, .. }, Some(at)) => {
                    Effect::Copy { batch, entry, at, len }
                }
                (effect @ Effect::Decision { batch, .. }, _) => {
                    self.batches.note_decision(batch, retry.file);
                    effect
                }
                (effect, _) => effect,
            };
            retry.pending.push(Pending { effect, ..pending });
        }
    }
}

/// Writes zeros rather than reserving blocks: a file system that compresses or snapshots may promise more
/// than it has.
fn make_reserve(fs: &Fs, dir: &std::path::Path, len: u64) -> bool {
    let enough = fs.free_bytes(dir).is_ok_and(|free| free >= 3 * len);
    let path = dir.join(layout::RESERVE);
    let made = enough
        && fs.create_new(&path).is_ok_and(|file| {
            file.write_all_uncached_at(&vec![0; len as usize], 0).is_ok() && file.sync_all().is_ok()
        });
    if !made {
        drop(fs.remove_file(&path));
    }
    made
}
