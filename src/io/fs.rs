//! The synchronous face of the file system: names, and files by name.
//!
//! Used for open, recovery, rotation, and for MANIFEST and FILES; always off the hot path, on a
//! worker's cold thread where a worker is running. Nothing here is durable before
//! [`Fs::sync_dir`]; only [`Fs::replace_file`] syncs by itself.

use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::file::File;
use super::locked::{LockedMemory, check_limit};
use super::memory::{Memory, MemoryLock};
#[cfg(any(test, feature = "sim"))]
use super::sim::{SimDisk, SimLock};
use crate::planted::{Bug, is_planted};

/// Only the owner may list the store: keys and values are the application's secrets.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The file system, real or simulated. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub(crate) struct Fs {
    kind: Kind,
    /// Whoever would change something is refused.
    is_read_only: bool,
}

#[derive(Clone)]
enum Kind {
    Os,
    Memory(Memory),
    #[cfg(any(test, feature = "sim"))]
    Sim(SimDisk),
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DirEntry {
    pub(crate) name: OsString,
    pub(crate) is_dir: bool,
    /// Length in bytes; of a directory, whatever the file system says.
    pub(crate) len: u64,
}

/// Whether a lock may have several holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Exclusive,
    Shared,
}

/// The lock on a store, held until dropped, and released by the kernel if the process dies.
pub(crate) struct LockFile {
    held: Held,
}

impl Drop for LockFile {
    /// Closing would release it only when every copy of the descriptor is closed, and a child of
    /// this process has one between its fork and its exec.
    fn drop(&mut self) {
        match &self.held {
            Held::Os { file } => drop(rustix::fs::flock(file, FlockOperation::Unlock)),
            Held::Memory { .. } => {}
            #[cfg(any(test, feature = "sim"))]
            Held::Sim { .. } => {}
        }
    }
}

enum Held {
    Os {
        file: std::fs::File,
    },
    Memory {
        _lock: MemoryLock,
    },
    #[cfg(any(test, feature = "sim"))]
    Sim {
        _lock: SimLock,
    },
}

impl Fs {
    pub(crate) fn os() -> Fs {
        Fs::of(Kind::Os)
    }

    fn of(kind: Kind) -> Fs {
        Fs { kind, is_read_only: false }
    }

    /// The same, for whoever must not change anything: no file is created, renamed, removed or opened for
    /// writing, whatever it is asked (RO1).
    pub(crate) fn read_only(self) -> Fs {
        Fs { is_read_only: true, ..self }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.is_read_only { Err(Errno::ROFS.into()) } else { Ok(()) }
    }

    pub(crate) fn memory(memory: Memory) -> Fs {
        Fs::of(Kind::Memory(memory))
    }

    /// Whether everything on it is gone with the process: space need not be written ahead, nor kept in reserve.
    pub(crate) fn is_volatile(&self) -> bool {
        matches!(self.kind, Kind::Memory(_))
    }

    /// Room for so many bytes of files that are locked in memory ([`Locking`](super::Locking)); `None` where files are in
    /// memory anyway, or none is to be locked.
    ///
    /// # Errors
    /// This process may not lock so much.
    pub(crate) fn locked_memory(&self, len_max: u64) -> io::Result<Option<LockedMemory>> {
        if len_max == 0 {
            return Ok(None);
        }
        match self.kind {
            Kind::Os => check_limit(len_max)?,
            Kind::Memory(_) => return Ok(None),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => {}
        }
        Ok(Some(LockedMemory::new(len_max)))
    }

    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn sim(disk: SimDisk) -> Fs {
        Fs::of(Kind::Sim(disk))
    }

    /// Creates the directory and its missing parents, each with mode 0700; an existing one is fine.
    pub(crate) fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.check_writable()?;
        match &self.kind {
            Kind::Os => DirBuilder::new().recursive(true).mode(DIR_MODE).create(path),
            Kind::Memory(memory) => memory.create_dir(path),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => disk.create_dir(path),
        }
    }

    /// Everything in the directory, sorted by name so that no decision depends on the file system.
    pub(crate) fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = match &self.kind {
            Kind::Os => read_dir_os(path)?,
            Kind::Memory(memory) => memory.read_dir(path)?,
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => disk.read_dir(path)?,
        };
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Whether the name exists. A path that cannot be judged is an error, not a "no".
    pub(crate) fn exists(&self, path: &Path) -> io::Result<bool> {
        match &self.kind {
            Kind::Os => path.try_exists(),
            Kind::Memory(memory) => Ok(memory.exists(path)),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => disk.exists(path),
        }
    }

    /// The path without links and dots, so that two names of one directory compare equal.
    pub(crate) fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        match &self.kind {
            Kind::Os => path.canonicalize(),
            Kind::Memory(_) => Ok(path.to_owned()),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => Ok(path.to_owned()),
        }
    }

    /// Creates a file that must not exist yet, mode 0600, for reading and writing.
    pub(crate) fn create_new(&self, path: &Path) -> io::Result<Arc<File>> {
        self.check_writable()?;
        let file = match &self.kind {
            Kind::Os => File::os(
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .mode(FILE_MODE)
                    .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                    .open(path)?,
            ),
            Kind::Memory(memory) => File::memory(memory.create_new(path)?),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => File::sim(disk.create_new(path)?),
        };
        Ok(Arc::new(file))
    }

    /// Opens an existing file for reading and writing.
    pub(crate) fn open_write(&self, path: &Path) -> io::Result<Arc<File>> {
        self.check_writable()?;
        let file = match &self.kind {
            Kind::Os => File::os(OpenOptions::new().read(true).write(true).open(path)?),
            Kind::Memory(memory) => File::memory(memory.open(path, true)?),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => File::sim(disk.open(path, true)?),
        };
        Ok(Arc::new(file))
    }

    /// Opens an existing file for reading.
    pub(crate) fn open_read(&self, path: &Path) -> io::Result<Arc<File>> {
        let file = match &self.kind {
            Kind::Os => File::os(std::fs::File::open(path)?),
            Kind::Memory(memory) => File::memory(memory.open(path, false)?),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => File::sim(disk.open(path, false)?),
        };
        Ok(Arc::new(file))
    }

    /// Renames a file or directory, replacing a file of the new name.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_writable()?;
        match &self.kind {
            Kind::Os => std::fs::rename(from, to),
            Kind::Memory(memory) => memory.rename(from, to),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => disk.rename(from, to),
        }
    }

    /// Gives the file another name, which must not be taken. Both are names of one and the same file.
    pub(crate) fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_writable()?;
        match &self.kind {
            Kind::Os => std::fs::hard_link(from, to),
            Kind::Memory(_) => Err(Errno::XDEV.into()),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => disk.hard_link(from, to),
        }
    }

    /// Removes the name. The file lives on while somebody has it open.
    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.check_writable()?;
        match &self.kind {
            Kind::Os => std::fs::remove_file(path),
            Kind::Memory(memory) => memory.remove_file(path),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => disk.remove_file(path),
        }
    }

    /// Removes the directory, which must be empty.
    pub(crate) fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.check_writable()?;
        match &self.kind {
            Kind::Os => std::fs::remove_dir(path),
            Kind::Memory(memory) => memory.remove_dir(path),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => disk.remove_dir(path),
        }
    }

    /// Bytes that an unprivileged process may still write on the file system of `path`.
    pub(crate) fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        match &self.kind {
            Kind::Os => {
                let stat = rustix::fs::statvfs(path)?;
                Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
            }
            // Whoever gives out memory says nothing before it is gone.
            Kind::Memory(_) => Ok(u64::MAX),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => Ok(disk.free_bytes()),
        }
    }

    /// Waits for others to let go of a file. On a simulated disk nothing takes long.
    pub(crate) fn rest(&self, rest: Duration) {
        match &self.kind {
            Kind::Os | Kind::Memory(_) => std::thread::sleep(rest),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => std::thread::sleep(rest / 1000),
        }
    }

    /// Makes every creation, rename and removal in this directory durable.
    pub(crate) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if is_planted(Bug::DirectoryUnsynced) {
            return Ok(());
        }
        match &self.kind {
            Kind::Os => Ok(rustix::fs::fsync(std::fs::File::open(path)?)?),
            Kind::Memory(_) => Ok(()),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => disk.sync_dir(path),
        }
    }

    /// The whole file, if it is no longer than `len_max` bytes.
    ///
    /// # Errors
    /// `InvalidData` for a longer file, before memory is taken for it: a stray file of the right
    /// name must not take the process down.
    pub(crate) fn read_file(&self, path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
        let file = self.open_read(path)?;
        let len = file.len()?;
        if len > len_max {
            return Err(too_long(len, len_max));
        }
        let mut reader = Sequential { file: &file, offset: 0 };
        let mut bytes = Vec::with_capacity(usize::try_from(len).map_err(io::Error::other)?);
        // The file may have grown since its length was asked.
        reader.by_ref().take(len_max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 <= len_max {
            Ok(bytes)
        } else {
            Err(too_long(bytes.len() as u64, len_max))
        }
    }

    /// Replaces `dir/name` with `bytes`, durably and whole: after a crash at any point the file
    /// holds either the old bytes or the new ones. Everything that is replaced goes through here.
    ///
    /// NOTE: an error after the rename (a failed directory sync) leaves it open which of the two
    /// survives a power cut; the caller must not act as if either were certain.
    pub(crate) fn replace_file(&self, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.stage_file(dir, name, bytes)?.commit()
    }

    /// The first half of [`replace_file`](Self::replace_file): makes `bytes` durable under a
    /// temporary name. If it fails, `dir/name` is what it was.
    pub(crate) fn stage_file(
        &self,
        dir: &Path,
        name: &str,
        bytes: &[u8],
    ) -> io::Result<StagedFile<'_>> {
        // Before anything changes: a process that is out of descriptors must not learn it between
        // the rename and the sync of the directory.
        let handle = match &self.kind {
            Kind::Os => Some(std::fs::File::open(dir)?),
            Kind::Memory(_) => None,
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => None,
        };
        let temporary = dir.join(format!("{name}.tmp"));
        let file = self.create_truncated(&temporary)?;
        if let Err(error) = file.write_all_at(bytes, 0).and_then(|()| file.sync_all()) {
            // On a full disk the half-written copy is space the next attempt needs. If this fails
            // too, the next attempt truncates it.
            drop(self.remove_file(&temporary));
            return Err(error);
        }
        Ok(StagedFile { fs: self, dir: dir.to_owned(), handle, temporary, target: dir.join(name) })
    }

    /// Opens `path` empty, creating it if it is missing. Private: truncation outside of
    /// [`replace_file`](Self::replace_file) would be an overwrite in place.
    fn create_truncated(&self, path: &Path) -> io::Result<File> {
        self.check_writable()?;
        match &self.kind {
            Kind::Os => OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(FILE_MODE)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(path)
                .map(File::os),
            Kind::Memory(memory) => memory.create_truncated(path).map(File::memory),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => disk.create_truncated(path).map(File::sim),
        }
    }

    /// Takes the lock `path`, creating the file if it is missing; `None` if somebody holds it, in this process
    /// or another, and either of the two does not share it.
    pub(crate) fn lock(&self, path: &Path, sharing: Sharing) -> io::Result<Option<LockFile>> {
        let held = match &self.kind {
            Kind::Os => {
                let (file, operation) = match sharing {
                    Sharing::Exclusive => {
                        (open_lock(path)?, FlockOperation::NonBlockingLockExclusive)
                    }
                    Sharing::Shared => {
                        (open_lock_to_read(path)?, FlockOperation::NonBlockingLockShared)
                    }
                };
                match rustix::fs::flock(&file, operation) {
                    Ok(()) => Held::Os { file },
                    Err(Errno::WOULDBLOCK) if is_planted(Bug::LockIgnored) => Held::Os { file },
                    Err(Errno::WOULDBLOCK) => return Ok(None),
                    Err(errno) => return Err(errno.into()),
                }
            }
            Kind::Memory(memory) => match memory.lock(path, sharing)? {
                Some(lock) => Held::Memory { _lock: lock },
                None => return Ok(None),
            },
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(disk) => match disk.lock(path, sharing)? {
                Some(lock) => Held::Sim { _lock: lock },
                None => return Ok(None),
            },
        };
        Ok(Some(LockFile { held }))
    }
}

/// New contents that wait for their name.
#[must_use = "nothing is replaced before it is committed"]
pub(crate) struct StagedFile<'a> {
    fs: &'a Fs,
    dir: PathBuf,
    /// The directory, where it is a real one.
    handle: Option<std::fs::File>,
    temporary: PathBuf,
    target: PathBuf,
}

impl StagedFile<'_> {
    /// Renames and syncs the directory; what an error means is said at [`Fs::replace_file`].
    pub(crate) fn commit(self) -> io::Result<()> {
        self.fs.rename(&self.temporary, &self.target)?;
        match &self.handle {
            Some(handle) => Ok(rustix::fs::fsync(handle)?),
            None => self.fs.sync_dir(&self.dir),
        }
    }
}

/// Not truncated and never written: who holds the lock is the kernel's to say, and a pid in the file would
/// outlive its process.
fn open_lock(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// Whoever only reads may not be allowed to write; so the file is created only if there is none.
fn open_lock_to_read(path: &Path) -> io::Result<std::fs::File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => open_lock(path),
        opened => opened,
    }
}

fn read_dir_os(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) => entries.push(DirEntry {
                name: entry.file_name(),
                is_dir: metadata.is_dir(),
                len: metadata.len(),
            }),
            // Removed since it was listed: then it is simply not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(entries)
}

#[cold]
fn too_long(len: u64, len_max: u64) -> io::Error {
    let message = format!("the file has {len} bytes, at most {len_max} are read");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Gives a [`File`], which has no position, to code that reads from front to back.
struct Sequential<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for Sequential<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buf, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
