//! Hint files: written for data files that have none, and read by whoever finds them useful (H1).
//!
//! A file that the log leaves gets its hint from here, in the background: sorting its keys is not
//! something a commit should wait for.
//!
//! ## Invariants
//! - **HI1** A hint is written only for a file that was read whole and is what `FILES` says.
//! - **HI2** Whatever is wrong with a hint, it is as if there were none.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::io::{File, Fs};
use crate::log::data_file::{DataFile, Owner};
use crate::log::files::SealedFile;
use crate::log::format::FormatError;
use crate::log::format::data_header::FileKind;
use crate::log::format::group::Chain;
use crate::log::hint_file::{Hint, HintBuilder, HintFile, HintReader};
use crate::log::layout;
use crate::log::scanner::{Opening, ReadAt, RecordAt, Scan, read_opening};
use crate::log::stored_file::StoredFile;
use crate::log::tail::{SealedVerdict, judge_sealed};
use crate::route::KeyHasher;
use crate::types::KeyId;

/// Bytes of a data file that one step reads.
const STEP_LEN: u64 = 4 << 20;

/// What `read` makes of a file's hint; `None` if there is none that can be trusted.
pub(crate) fn read_hint<R>(
    fs: &Fs,
    dir: &Path,
    owner: &Owner,
    sealed: &SealedFile,
    read: impl FnOnce(&HintFile<'_>) -> io::Result<Result<R, FormatError>>,
) -> Option<R> {
    let path = layout::hint_file_path(dir, sealed.id);
    let try_read = || -> io::Result<Result<R, FormatError>> {
        let file = fs.open_read(&path)?;
        let expected = owner.expected(FileKind::Hint, sealed.id);
        let reader = match HintReader::open(&*file, file.len()?, &expected, &owner.codecs)? {
            Ok(reader) => reader,
            Err(why) => return Ok(Err(why)),
        };
        match HintFile::open(&reader, reader.len(), &expected, sealed)? {
            Ok(hint) => read(&hint),
            Err(why) => Ok(Err(why)),
        }
    };
    match try_read() {
        Ok(Ok(read)) => Some(read),
        Ok(Err(why)) => {
            tracing::warn!(path = %path.display(), %why, "a hint file is ignored");
            None
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a hint file cannot be read");
            None
        }
    }
}

/// Writes the hint of a file that is complete; returns it open, and its length in bytes.
///
/// Not under another name first, and not synced: a hint that is cut short is no hint (HI2).
pub(crate) fn write_hint(
    fs: &Fs,
    dir: &Path,
    owner: &Owner,
    sealed: &SealedFile,
    builder: HintBuilder,
) -> io::Result<(Arc<File>, u64)> {
    let path = layout::hint_file_path(dir, sealed.id);
    match fs.remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = fs.create_new(&path)?;
    let mut len = 0;
    let header = owner.header(FileKind::Hint, sealed.id);
    let written = builder.write_sealed(&owner.codecs, &header, sealed, &mut |bytes| {
        file.write_all_uncached_at(bytes, len)?;
        len += bytes.len() as u64;
        Ok(())
    });
    if let Err(error) = written {
        // On a full disk the half-written hint is space that others need.
        drop(fs.remove_file(&path));
        return Err(error);
    }
    Ok((file, len))
}

/// The hint of `sealed`, `len` bytes long, for scans; `file` if it stays open. `None` in a store that has a key:
/// scans read single blocks and not pages that are encrypted, so they sort what the log says.
pub(crate) fn hint_of(
    dir: &Path,
    owner: &Owner,
    sealed: &SealedFile,
    len: u64,
    file: Option<Arc<File>>,
) -> Option<Hint> {
    if owner.codecs.key_id() != KeyId::NONE {
        return None;
    }
    let stored = StoredFile::new(layout::hint_file_path(dir, sealed.id), file);
    Some(Hint::new(stored, len, owner.expected(FileKind::Hint, sealed.id), *sealed))
}

/// Reads a file without disturbing the page cache, and counts what it found there.
pub(crate) struct Uncached<'f> {
    file: &'f File,
    cached: Cell<u64>,
    total: Cell<u64>,
}

impl Uncached<'_> {
    pub(crate) fn new(file: &File) -> Uncached<'_> {
        Uncached { file, cached: Cell::default(), total: Cell::default() }
    }

    /// Bytes that were read.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.total.get()
    }

    /// Whether most of what was read was in memory already.
    pub(crate) fn was_cached(&self) -> bool {
        self.cached.get() * 2 >= self.total.get()
    }
}

impl ReadAt for Uncached<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let (count, was_cached) = self.file.read_uncached_at(buf, offset)?;
        self.total.set(self.total.get() + count as u64);
        if was_cached {
            self.cached.set(self.cached.get() + count as u64);
        }
        Ok(count)
    }
}

/// Writes the hint of one data file, in steps.
pub(crate) struct HintJob {
    fs: Fs,
    dir: PathBuf,
    owner: Owner,
    hasher: KeyHasher,
    data: Arc<DataFile>,
    sealed: SealedFile,
    builder: HintBuilder,
    /// `None` before the first step.
    scan: Option<Scan>,
}

impl HintJob {
    pub(crate) fn new(
        fs: Fs,
        dir: PathBuf,
        owner: Owner,
        hasher: KeyHasher,
        data: Arc<DataFile>,
        sealed: SealedFile,
    ) -> HintJob {
        let builder = HintBuilder::for_records(sealed.records);
        HintJob { fs, dir, owner, hasher, data, sealed, builder, scan: None }
    }

    pub(crate) fn file(&self) -> &SealedFile {
        &self.sealed
    }

    /// The hint that it has written, `len` bytes long.
    pub(crate) fn show(&self, len: u64) {
        if let Some(hint) = hint_of(&self.dir, &self.owner, &self.sealed, len, None) {
            self.data.set_hint(hint);
        }
    }

    /// Reads on; the length of the hint once it is written.
    ///
    /// # Errors
    /// `Corrupt` if the data file is not what it should be; `NoSpace` and `Io` for the hint.
    pub(crate) fn step(&mut self) -> Result<Option<u64>> {
        let HintJob { data, sealed, builder, hasher, owner, .. } = self;
        let io = |source| Error::io("read", &data.path, source);
        let file = data.open(&self.fs).map_err(io)?;
        let reader = Uncached::new(&file);
        let scan = match &mut self.scan {
            Some(scan) => scan,
            none => {
                let chain = opened_chain(&reader, data, sealed, owner)?;
                none.insert(Scan::start(chain))
            }
        };
        let mut undecodable = None;
        let is_read = scan
            .read_on(&reader, sealed.len, data.identity, STEP_LEN, &mut |record| match owner
                .codecs
                .plain(&record)
            {
                Ok([key, value]) => {
                    let hash = hasher.hash(record.header.keyspace, &key);
                    builder.push_record(hash, &RecordAt { key: &key, value: &value, ..record });
                }
                Err(why) if undecodable.is_none() => {
                    undecodable = Some(why.at(&data.path, record.offset));
                }
                Err(_) => {}
            })
            .map_err(io)?;
        if let Some(error) = undecodable {
            return Err(error);
        }
        if !is_read {
            return Ok(None);
        }
        check_sealed(scan, &file, data, sealed)?;
        let builder = std::mem::take(builder);
        let written = write_hint(&self.fs, &self.dir, &self.owner, sealed, builder);
        let path = || layout::hint_file_path(&self.dir, sealed.id);
        let (_, len) = written.map_err(|source| Error::io("write", &path(), source))?;
        Ok(Some(len))
    }
}

/// Where the first group of a sealed file attaches.
pub(crate) fn opened_chain(
    reader: &dyn ReadAt,
    data: &DataFile,
    sealed: &SealedFile,
    owner: &Owner,
) -> Result<Chain> {
    let expected = owner.expected(FileKind::Data, sealed.id);
    let opening = read_opening(reader, sealed.len, &expected)
        .map_err(|source| Error::io("read", &data.path, source))?;
    match opening {
        Opening::Sound { header, crc } => Ok(Chain::start(header.open_id, crc)),
        Opening::Faulty(_) => Err(Error::corrupt(&data.path, 0, "the file header is damaged")),
    }
}

/// Whether what was read of a sealed file, up to its end, is what is listed.
pub(crate) fn check_sealed(
    scan: &Scan,
    file: &File,
    data: &DataFile,
    sealed: &SealedFile,
) -> Result<()> {
    let len = file.len().map_err(|source| Error::io("read the length of", &data.path, source))?;
    match judge_sealed(scan, len, sealed) {
        SealedVerdict::Intact => Ok(()),
        SealedVerdict::Corrupt { offset, why } => Err(Error::corrupt(&data.path, offset, why)),
        SealedVerdict::Refuse { why } => Err(Error::newer(&data.path, why)),
    }
}
