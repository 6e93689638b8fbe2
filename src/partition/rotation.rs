//! The log moves to a new file, or is sealed for good.
//!
//! A cold sequence of file operations on a helper thread, while reads and staging go on. In this
//! order, each step durable before the next (W4, F1):
//!
//! 1. old file: closing mark, cut to its logical end, sync;
//! 2. new file: header, zeros ahead if groups are small, sync; directory sync;
//! 3. `FILES`: old one listed as sealed, new one as active.
//!
//! Killed anywhere in between, the next open finds the old file as the active one and seals it again.

use std::path::PathBuf;
use std::sync::Arc;

use super::commit::InFlight;
use super::listing::{ChangeFailure, replace_files};
use super::space::Reserve;
use super::{Event, Ops, Partition};
use crate::error::{Error, ErrorKind};
use crate::io::{File, Fs};
use crate::log::data_file::{ActiveDataFile, DataFile};
use crate::log::files::{FilesList, SealedFile};
use crate::log::format::data_header::{DATA_HEADER_LEN, FileIdentity, FileKind};
use crate::log::format::group::GROUP_HEADER_LEN;
use crate::log::layout;
use crate::planted::{Bug, is_planted};
use crate::types::{FileId, KeyId};
use crate::upkeep::prewrite;

/// A sequence that went through.
pub(crate) struct Rotated {
    listed: FilesList,
    /// `None` when the log was sealed for good.
    new: Option<Begun>,
}

/// A new file that holds its header and zeros.
struct Begun {
    data: Arc<DataFile>,
    file: Arc<File>,
    ahead: Option<Arc<File>>,
    header_crc: u32,
    prewritten: u64,
}

struct Seal {
    path: PathBuf,
    file: Arc<File>,
    end: u64,
    mark: [u8; GROUP_HEADER_LEN],
}

struct NewFile {
    path: PathBuf,
    header: [u8; DATA_HEADER_LEN],
    header_crc: u32,
    id: FileId,
    identity: FileIdentity,
    key: KeyId,
    created_at_ms: u64,
    zeros: u64,
    prewrite: bool,
}

struct Job {
    fs: Fs,
    dir: PathBuf,
    seal: Option<Seal>,
    new: Option<NewFile>,
    before: FilesList,
    after: FilesList,
}

impl Partition {
    /// Moves the log to the file that the group at the head of the queue was encoded for.
    pub(super) fn rotate(&mut self, ops: &mut Ops) {
        if self.files.is_full() {
            return self.rotate_failed(&too_many_files(&self.dir));
        }
        let id = self.groups.front_file();
        let header = self.owner.header(FileKind::Data, id);
        let created_at_ms = header.created_at_ms;
        let (header, header_crc) = header.encode();
        let has_space = self.reserve != Reserve::Released;
        let zeros = if self.prewrite.pays() && has_space { prewrite::FIRST_LEN } else { 0 };
        let new = NewFile {
            path: layout::data_file_path(&self.dir, id),
            header,
            header_crc,
            id,
            identity: self.owner.identity_of(id),
            key: self.owner.codecs.key_id(),
            created_at_ms,
            zeros: zeros.min(self.bounds.len_max.saturating_sub(DATA_HEADER_LEN as u64)),
            prewrite: self.config.prewrite,
        };
        self.rotate_start(Some(new), ops);
    }

    /// Seals the log, and is finished once every file has its hint. Called when nothing else is left to
    /// do.
    pub(super) fn finish_advance(&mut self, ops: &mut Ops) {
        self.sealing = true;
        if self.active.is_some() && self.poisoned.is_none() {
            self.seal(ops);
        } else if self.key_runs_leave() {
            // Upkeep removes them first.
        } else if !self.upkeep.has_hints_due() || self.poisoned.is_some() {
            self.finished = self.config.peers.close_if_empty(self.id);
        }
    }

    /// Seals the active file without another one after it.
    pub(super) fn seal(&mut self, ops: &mut Ops) {
        self.rotate_start(None, ops);
    }

    fn rotate_start(&mut self, new: Option<NewFile>, ops: &mut Ops) {
        let mut after = self.listed.clone();
        let mut seal = None;
        if let Some(active) = &self.active {
            let (mark, digest) = active.closing_mark();
            after.sealed.push(sealed_entry(active, digest));
            after.sealed.sort_unstable_by_key(|sealed| sealed.id);
            let (path, file) = (active.data.path.clone(), active.file.clone());
            seal = Some(Seal { path, file, end: active.end, mark });
        }
        after.active = new.as_ref().map(|new| new.id);
        after.next = self.groups.ids().next();
        after.seqno_floor = self.seqno_floor;
        let job = Job {
            fs: self.fs.clone(),
            dir: self.dir.clone(),
            seal,
            new,
            before: self.listed.clone(),
            after,
        };
        let (disk, index) = (self.disk.clone(), self.index);
        self.in_flight = InFlight::Rotation;
        ops.push(Box::pin(
            async move { (index, Event::Rotated(disk.cold(move || job.run()).await)) },
        ));
    }

    pub(super) fn rotate_done(&mut self, rotated: Option<Result<Rotated, ChangeFailure>>) {
        self.in_flight = InFlight::None;
        match rotated {
            Some(Ok(rotated)) => {
                self.rotate_succeeded(rotated);
                self.config.watchers.log_grown(); // What was sealed is durable.
                self.batch_resolves_durable();
            }
            // The next write tries again with another file. The old one may be sealed already, so nothing
            // is written to it any more; sealing it again gives the same bytes.
            Some(Err(ChangeFailure::Again(error))) => self.rotate_failed(&error),
            Some(Err(ChangeFailure::Poison(what, source))) => {
                self.poison(what, &source);
            }
            None => {
                let panicked = std::io::Error::other("the helper thread panicked");
                self.poison("moving the log to a new file", &panicked);
            }
        }
    }

    fn rotate_succeeded(&mut self, rotated: Rotated) {
        let sealed = self.active.take();
        let counters = &self.view.counters;
        if let Some(active) = &sealed {
            counters.rotations.add(1);
            active.data.set_durable_end(None);
            counters.log_bytes.add(GROUP_HEADER_LEN as u64);
            tracing::debug!(
                partition = self.id.0,
                file = %active.data.id,
                len = active.end,
                "data file sealed"
            );
            self.upkeep.file_sealed(active.data.id);
        }
        self.unsynced = false;
        self.bounds = self.config.bounds.fit(self.usage.total().live_bytes);
        self.listed = rotated.listed;
        if let Some(active) = sealed {
            self.backup_sealed(active.data.id);
        }
        let Some(Begun { data, file, ahead, header_crc, prewritten }) = rotated.new else { return };
        let slot = self.files.insert(data.clone()).expect("`rotate` found room for it");
        let counters = &self.view.counters;
        counters.files.add(1);
        counters.log_bytes.add(DATA_HEADER_LEN as u64);
        self.prewrite.begin_file(ahead.is_some());
        self.files_show();
        self.handles_trim();
        let open_id = self.config.open_id;
        self.active =
            Some(ActiveDataFile::begin(data, file, slot, ahead, open_id, header_crc, prewritten));
    }

    /// What was encoded for the new file cannot be written; later writes try with another one.
    fn rotate_failed(&mut self, error: &Error) {
        tracing::warn!(partition = self.id.0, %error, "the log could not move to a new file");
        self.view.counters.commits_failed.add(1);
        if self.groups.is_empty() {
            let is_full = error.kind() == ErrorKind::NoSpace;
            if is_full && self.reserve_release() {
                return; // Sealing is tried again.
            }
            if self.inbox.is_closed() {
                // Nothing is lost, the next open seals the file; but close promised a sync and must say so.
                self.poisoned = Some(error.clone());
            }
            return self.forced_seal_failed(error);
        }
        let staged = self.groups.take_all();
        self.groups.begin_file();
        match self.fail_or_retry(staged, self.groups.target_file(), error) {
            Some(retry) => self.groups.push_front(retry),
            None => self.forced_seal_failed(error),
        }
        self.compaction_request_sync();
    }
}

#[cold]
pub(super) fn too_many_files(dir: &std::path::Path) -> Error {
    Error::invalid(format!(
        "{}: a partition has at most {} data files: dump the store and load it into one with a larger \
         data_file_len_max",
        dir.display(),
        crate::limits::FILES_PER_PARTITION_MAX
    ))
}

fn sealed_entry(active: &ActiveDataFile, digest: u32) -> SealedFile {
    SealedFile {
        id: active.data.id,
        len: active.end + GROUP_HEADER_LEN as u64,
        digest,
        records: active.record_count,
        seqno_min: active.seqno_min.min(active.seqno_max),
        seqno_max: active.seqno_max,
    }
}

impl Job {
    fn run(self) -> Result<Rotated, ChangeFailure> {
        if let Some(seal) = &self.seal {
            seal_file(&seal.file, seal.end, &seal.mark)
                .map_err(|(step, source)| step.failure(&seal.path, source))?;
        }
        let new = match &self.new {
            Some(new) => Some(self.create(new)?),
            None => None,
        };
        replace_files(&self.fs, &self.dir, &self.before, &self.after).inspect_err(|failure| {
            // If FILES may name the new file it has to stay, or the next open misses it.
            if matches!(failure, ChangeFailure::Again(_)) {
                self.remove_new();
            }
        })?;
        Ok(Rotated { listed: self.after, new })
    }

    fn create(&self, new: &NewFile) -> Result<Begun, ChangeFailure> {
        let file = self.fs.create_new(&new.path).map_err(|source| {
            ChangeFailure::Again(Error::io("create data file", &new.path, source))
        })?;
        let mut prewritten = DATA_HEADER_LEN as u64;
        let written = file.write_all_at(&new.header, 0).and_then(|()| {
            if new.zeros > 0 && file.write_all_at(&vec![0; new.zeros as usize], prewritten).is_ok()
            {
                prewritten += new.zeros;
            }
            // The file is new and nobody waits for it: a failed sync costs this attempt, not data.
            file.sync_all()?;
            self.fs.sync_dir(&self.dir)
        });
        if let Err(source) = written {
            self.remove_new();
            return Err(ChangeFailure::Again(Error::io("begin data file", &new.path, source)));
        }
        file.advise_random();
        let (id, identity, path) = (new.id, new.identity, new.path.clone());
        // Without it nothing is written ahead, which is slower and not wrong.
        let ahead = if new.prewrite { self.fs.open_write(&path).ok() } else { None };
        let data = DataFile::new(id, identity, new.key, path, file.clone(), DATA_HEADER_LEN as u64);
        data.note_created(new.created_at_ms);
        Ok(Begun { data, file, ahead, header_crc: new.header_crc, prewritten })
    }

    /// An unlisted file is never read; removing it only gives back its space.
    fn remove_new(&self) {
        if let Some(new) = &self.new {
            let _left_for_the_next_open = self.fs.remove_file(&new.path);
        }
    }
}

/// The step of sealing that failed.
pub(super) enum SealStep {
    Write,
    Sync,
}

impl SealStep {
    fn failure(self, path: &std::path::Path, source: std::io::Error) -> ChangeFailure {
        match self {
            SealStep::Write => ChangeFailure::Again(Error::io("seal data file", path, source)),
            SealStep::Sync => ChangeFailure::Poison("the sync of a sealed data file", source),
        }
    }
}

/// Writes the closing mark at `end`, cuts what lies behind it, and syncs: after that the file never
/// changes again. Doing it twice gives the same file.
pub(super) fn seal_file(
    file: &File,
    end: u64,
    mark: &[u8; GROUP_HEADER_LEN],
) -> Result<(), (SealStep, std::io::Error)> {
    let written =
        file.write_all_at(mark, end).and_then(|()| file.set_len(end + GROUP_HEADER_LEN as u64));
    written.map_err(|source| (SealStep::Write, source))?;
    if is_planted(Bug::SealUnsynced) {
        return Ok(());
    }
    // Not `sync_data`, which need not make a cut durable.
    file.sync_all().map_err(|source| (SealStep::Sync, source))
}
