//! Files are locked in memory, one after the other ([`Options::locked_bytes`](crate::Options::locked_bytes)).
//!
//! Sealed data files and their hints, the newest first, as far as there is room: what does not fit is passed over. What is
//! locked stays so until nobody reads its file any more. That a file is not locked is never an error, only slower.

use std::io;
use std::sync::Arc;

use super::upkeep::UpkeepEvent;
use super::{Ops, Partition};
use crate::io::{Fs, LockedMemory, Locking};
use crate::log::stored_file::StoredFile;
use crate::types::FileId;

/// What locking is about in one partition.
#[derive(Default)]
pub(super) struct Locker {
    /// Files or room may have come.
    is_due: bool,
    job: Option<Box<LockJob>>,
    /// Could not be locked, and are not tried again.
    failed: Vec<FileId>,
}

/// One file that is being locked.
pub(crate) struct LockJob {
    id: FileId,
    stored: Arc<StoredFile>,
    len: u64,
    memory: Arc<LockedMemory>,
    locking: Option<Locking>,
}

/// A job that has done a step, and whether there is another.
pub(crate) struct LockStepped {
    job: Box<LockJob>,
    outcome: io::Result<bool>,
}

impl Locker {
    /// There are the files that the partition was opened with.
    pub(super) fn new() -> Locker {
        Locker { is_due: true, ..Locker::default() }
    }

    /// There may be something to lock.
    pub(super) fn look(&mut self) {
        self.is_due = true;
    }
}

impl Partition {
    pub(super) fn lock_advance(&mut self, ops: &mut Ops) -> bool {
        if self.inbox.is_closed() {
            self.upkeep.locker = Locker::default();
            return false;
        }
        let job = self.upkeep.locker.job.take().or_else(|| self.next_lock());
        let Some(mut job) = job else { return false };
        let fs = self.fs.clone();
        let step = move || {
            let outcome = job.step(&fs);
            LockStepped { job, outcome }
        };
        self.upkeep_step(ops, step, UpkeepEvent::Locked);
        true
    }

    /// The newest file that fits and is not locked; its data before its hint.
    fn next_lock(&mut self) -> Option<Box<LockJob>> {
        let memory = self.config.locked.as_ref()?;
        if !std::mem::take(&mut self.upkeep.locker.is_due) {
            return None;
        }
        let failed = &self.upkeep.locker.failed;
        let due = |stored: &StoredFile, len| !stored.is_locked() && memory.has_room(len);
        let files = self.files.iter().filter_map(|(_, data)| {
            let (len, hint) = (self.listed.find_sealed(data.id)?.len, data.hint());
            if failed.contains(&data.id) {
                None
            } else if due(&data.stored, len) {
                Some((data.id, data.stored.clone(), len))
            } else {
                let hint = hint.filter(|hint| due(&hint.stored, hint.len()))?;
                Some((data.id, hint.stored.clone(), hint.len()))
            }
        });
        let (id, stored, len) = files.max_by_key(|(id, ..)| *id)?;
        let memory = memory.clone();
        Some(Box::new(LockJob { id, stored, len, memory, locking: None }))
    }

    pub(super) fn lock_stepped(&mut self, stepped: Option<LockStepped>) {
        let Some(LockStepped { job, outcome }) = stepped else { return };
        let locker = &mut self.upkeep.locker;
        match outcome {
            Ok(true) => locker.job = Some(job),
            Ok(false) => locker.look(),
            Err(error) => {
                // One that compaction has taken meanwhile is no loss.
                if self.listed.find_sealed(job.id).is_some() {
                    let (partition, path) = (self.id.0, job.stored.path.display());
                    tracing::warn!(partition, %path, %error, "a file could not be locked in memory");
                    locker.failed.push(job.id);
                }
                locker.look();
            }
        }
    }
}

impl LockJob {
    /// Locks a piece; whether there is another.
    fn step(&mut self, fs: &Fs) -> io::Result<bool> {
        let locking = match &mut self.locking {
            Some(locking) => locking,
            none => {
                // A descriptor of its own: the shared one is read at random, which would have each page read alone.
                let file = fs.open_read(&self.stored.path)?;
                file.advise_sequential();
                // Another partition may have taken the room.
                let Some(locking) = Locking::begin(file, self.len, &self.memory)? else {
                    return Ok(false);
                };
                none.insert(locking)
            }
        };
        if !locking.step()? {
            return Ok(true);
        }
        if let Some(locked) = self.locking.take().and_then(Locking::finish) {
            self.stored.show_locked(locked);
        }
        Ok(false)
    }
}
