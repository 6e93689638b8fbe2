//! Moving keys to the partitions that another map gives them, while nobody has the store open.
//!
//! Only records that count are copied: of each key that moves the newest one, whether it has expired or not. What they
//! leave behind, older records and tombstones too, stays where it is and does not count any more (RT3); compaction
//! gives its space back. In the other partition there is nothing of the key that counts, so nothing has to be shadowed
//! there.
//!
//! ## Invariants
//! - **RP3** Files and `FILES` of every partition that gets keys are durable before the new map is in force.
//! - **RP4** A copy gets a sequence number above all that any partition of the store has given: numbers of two
//!   partitions do not compare, and what was deleted in one says nothing about what comes from another.
//! - **RP5** What moves and what stays are together what the partition held; else nothing comes of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::recovery::{Recovered, refuse};
use super::rotation::too_many_files;
use crate::error::{Error, Result};
use crate::io::Fs;
use crate::limits::FILES_PER_PARTITION_MAX;
use crate::log::data_file::{DataFile, FileBounds, Owner};
use crate::log::files::FilesList;
use crate::log::format::data_header::FileKind;
use crate::log::format::record::{RecordHeader, RecordKind};
use crate::log::layout;
use crate::log::scanner::RecordAt;
use crate::log::tail::read_sealed;
use crate::log::writer::FileWriter;
use crate::planted::{Bug, is_planted};
use crate::route::{KeyHasher, PartitionMap};
use crate::types::{FileId, PartitionId, Seqno};

/// Bytes that a partition that gets keys buffers.
const WRITE_LEN: usize = 256 << 10;

/// What became of the keys of a partition.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    /// That another partition has now.
    pub(crate) keys: u64,
    /// Keys that are where they were.
    pub(crate) kept: u64,
    /// Of the records that were written.
    pub(crate) bytes: u64,
}

/// A partition that gets keys.
pub(crate) struct Target {
    fs: Fs,
    dir: PathBuf,
    owner: Owner,
    bounds: FileBounds,
    listed: FilesList,
    next_seqno: Seqno,
    writing: Option<Writing>,
}

/// A data file on its way.
struct Writing {
    path: PathBuf,
    writer: FileWriter,
    key_bytes: u64,
}

impl Target {
    /// A partition as the new map has it, with the files that it has already, and the first number that it may give
    /// (RP4).
    pub(crate) fn new(
        fs: &Fs,
        root: &Path,
        owner: Owner,
        bounds: FileBounds,
        mut listed: FilesList,
        seqno_first: Seqno,
    ) -> Target {
        listed.map_epoch = owner.identity.map_epoch;
        listed.partition_count = Some(owner.identity.partition_count);
        listed.wider_maps.clone_from(&owner.identity.wider_maps);
        listed.seqno_floor = listed.seqno_floor.max(seqno_first);
        let dir = layout::partition_dir(root, owner.partition);
        let (fs, next_seqno) = (fs.clone(), seqno_first);
        Target { fs, dir, owner, bounds, listed, next_seqno, writing: None }
    }

    /// Copies a record; returns how long it is here.
    fn push(&mut self, record: &RecordAt<'_>, from: &DataFile) -> Result<u64> {
        let renewed = self.owner.codecs.renew(record.header, record.key, record.value);
        let renewed = renewed.map_err(|why| why.at(&from.path, record.offset))?;
        let seqno = self.next_seqno;
        self.next_seqno = Seqno(seqno.0 + 1);
        if let Some(encoded) = renewed {
            let header = RecordHeader { seqno, ..encoded.header(record.header) };
            let (key, value) = encoded.body.split_at(usize::from(header.key_len));
            self.write(&header, [key, value])
        } else {
            let header = RecordHeader { seqno, ..*record.header };
            self.write(&header, [record.key, record.value])
        }
    }

    fn write(&mut self, header: &RecordHeader, body: [&[u8]; 2]) -> Result<u64> {
        let (len, key_len) = (header.record_len(), body[0].len() as u64);
        let bounds = self.bounds;
        let is_full = |writing: &Writing| {
            let records = writing.writer.record_count() + 1;
            !bounds.admit(writing.writer.len_with(len), records, writing.key_bytes + key_len)
        };
        if self.writing.as_ref().is_some_and(is_full) {
            self.finish_file()?;
        }
        let writing = match &mut self.writing {
            Some(writing) => writing,
            none => none.insert(begin_file(&self.fs, &self.dir, &self.owner, &mut self.listed)?),
        };
        writing.writer.push(header, body);
        writing.key_bytes += key_len;
        if writing.writer.buffered_len() >= WRITE_LEN {
            let written = writing.writer.write_out(false);
            written.map_err(|source| Error::io("write", &writing.path, source))?;
        }
        Ok(u64::from(len))
    }

    fn finish_file(&mut self) -> Result<()> {
        let Some(mut writing) = self.writing.take() else { return Ok(()) };
        let finished = writing.writer.finish();
        let sealed = finished.map_err(|source| Error::io("write", &writing.path, source))?;
        self.listed.sealed.push(sealed);
        Ok(())
    }

    /// Makes everything durable that it got, and lists it (RP3).
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.finish_file()?;
        if self.listed.sealed.len() > FILES_PER_PARTITION_MAX {
            return Err(too_many_files(&self.dir));
        }
        let Target { fs, dir, .. } = self;
        if is_planted(Bug::MovedUnsynced) {
            return Ok(());
        }
        fs.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))?;
        fs.replace_file(dir, layout::FILES, &self.listed.encode())
            .map_err(|source| Error::io("write", &dir.join(layout::FILES), source))
    }
}

fn begin_file(fs: &Fs, dir: &Path, owner: &Owner, listed: &mut FilesList) -> Result<Writing> {
    let id = listed.next;
    listed.next = FileId(id.0 + 1);
    let path = layout::data_file_path(dir, id);
    let file = fs.create_new(&path).map_err(|source| Error::io("create", &path, source))?;
    let writer = FileWriter::begin(file, &owner.header(FileKind::Data, id));
    Ok(Writing { path, writer, key_bytes: 0 })
}

/// Copies every key of a partition that is another one's under `map`; tells `read` how many bytes were read.
pub(crate) fn move_out(
    from: &Recovered,
    map: PartitionMap,
    targets: &mut BTreeMap<PartitionId, Target>,
    read: &mut dyn FnMut(u64),
) -> Result<Moved> {
    let hasher = KeyHasher::new(&from.owner.identity.hash_key);
    let mut moved = Moved::default();
    for sealed in &from.listed.sealed {
        let Some((slot, data)) = from.files.iter().find(|(_, data)| data.id == sealed.id) else {
            continue; // RP5 would tell.
        };
        let io = |source| Error::io("read", &data.path, source);
        let file = data.open(&from.fs).map_err(io)?;
        let len = file.len().map_err(io)?;
        let expected = from.owner.expected(FileKind::Data, sealed.id);
        let mut failure = None;
        let mut take = |record: &RecordAt<'_>| -> Result<()> {
            let header = record.header;
            if header.kind != RecordKind::Put || header.is_of_batch() {
                return Ok(());
            }
            let key = from.owner.codecs.key(header, record.key, record.value);
            let key = key.map_err(|why| why.at(&data.path, record.offset))?;
            let hash = hasher.hash(header.keyspace, &key);
            let counts = from.keydir.get(hash).is_some_and(|location| {
                location.slot == slot && u64::from(location.offset) == record.offset
            });
            let to = map.partition_of(hash);
            match targets.get_mut(&to) {
                _ if !counts => {}
                _ if to == from.id => moved.kept += 1,
                Some(target) => {
                    moved.bytes += target.push(record, data)?;
                    moved.keys += 1;
                }
                None => {} // RP5 tells.
            }
            Ok(())
        };
        let verdict = read_sealed(&*file, len, &expected, sealed, &mut |record| {
            if failure.is_none() {
                failure = take(&record).err();
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        refuse(verdict.map_err(io)?, &data.path)?;
        read(sealed.len);
    }
    let found = moved.keys + moved.kept;
    if found != from.keydir.len() {
        let what = format!(
            "its files have {found} of the {} keys that opening found, so none was moved",
            from.keydir.len()
        );
        return Err(Error::corrupt(&from.dir.join(layout::FILES), 0, what));
    }
    Ok(moved)
}

impl Recovered {
    /// The first number that the partition would give.
    pub(crate) fn next_seqno(&self) -> Seqno {
        self.next_seqno
    }

    pub(crate) fn listed(&self) -> &FilesList {
        &self.listed
    }

    pub(crate) fn keys(&self) -> u64 {
        self.keydir.len()
    }
}
