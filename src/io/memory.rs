//! Files that are bytes in memory: what a store without a disk is kept in.
//!
//! Nothing here waits, so whatever is asked of such a file is done at once, on the thread that asks. A write is
//! one copy, and so is a read. Syncs are accepted and mean nothing.
//!
//! ## Invariants
//! - **ME1** A file's bytes are freed when its name is gone and nobody has it open, as on any file system.
//! - **ME2** Of the pages of a file all but the last are full; bytes that were never written are zeros.

mod contents;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

use self::contents::Contents;
pub(super) use self::contents::MemoryFile;
use super::fs::{DirEntry, Sharing};
use super::locks::Locks;

/// Room in memory for stores, for [`Io::Memory`](crate::Io::Memory). A clone is the same room.
///
/// Whoever keeps a clone can close a store and open it again. With the last clone, and the last store in it, all
/// is gone. Paths are names, and nothing else: two stores in one room have different ones.
///
/// # Example: a store is opened again
/// ```
/// # futures::executor::block_on(async {
/// use ringcask::{Io, Memory, Options};
/// let memory = Memory::new();
/// let db = Options::new().io(Io::Memory(memory.clone())).open("/a").await?;
/// db.put("k", "v").await?;
/// db.close().await?;
///
/// let db = Options::new().io(Io::Memory(memory)).open("/a").await?;
/// assert_eq!(db.get("k").await?.as_deref(), Some(b"v".as_slice()));
/// # db.close().await }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Memory {
    /// Held for the length of one look-up; never while bytes are copied.
    names: Arc<Mutex<Names>>,
}

#[derive(Default)]
struct Names {
    entries: BTreeMap<PathBuf, Entry>,
    locks: Locks<PathBuf>,
}

enum Entry {
    Dir,
    File(Arc<Contents>),
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("used_bytes", &self.used_bytes()).finish_non_exhaustive()
    }
}

impl Memory {
    /// Room with nothing in it.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Bytes in all files that have a name.
    pub fn used_bytes(&self) -> u64 {
        let len = |entry: &Entry| match entry {
            Entry::Dir => 0,
            Entry::File(contents) => contents.len(),
        };
        self.names().entries.values().map(len).sum()
    }

    /// The names in a directory, sorted; for tests.
    #[cfg(any(test, feature = "sim"))]
    #[doc(hidden)]
    pub fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = self.read_dir(path.as_ref()).unwrap_or_default();
        entries.into_iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect()
    }

    /// The bytes of a file; for tests.
    #[cfg(any(test, feature = "sim"))]
    #[doc(hidden)]
    pub fn read_file(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let file = self.open(path.as_ref(), false).ok()?;
        let mut bytes = vec![0; usize::try_from(file.len()).ok()?];
        file.read(&mut bytes, 0);
        Some(bytes)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock()
    }
}

/// What the synchronous face asks; the counterparts of system calls.
impl Memory {
    pub(super) fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names();
        for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
            if let Entry::File(_) = names.entries.entry(dir.to_owned()).or_insert(Entry::Dir) {
                return Err(Errno::EXIST.into());
            }
        }
        Ok(())
    }

    pub(super) fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let names = self.names();
        match names.entries.get(path) {
            None => return Err(Errno::NOENT.into()),
            Some(Entry::File(_)) => return Err(Errno::NOTDIR.into()),
            Some(Entry::Dir) => {}
        }
        let below = (Bound::Excluded(path.to_owned()), Bound::Unbounded);
        let below = names.entries.range(below).take_while(|(name, _)| name.starts_with(path));
        Ok(below
            .filter(|(name, _)| name.parent() == Some(path))
            .map(|(name, entry)| {
                let (is_dir, len) = match entry {
                    Entry::Dir => (true, 0),
                    Entry::File(contents) => (false, contents.len()),
                };
                DirEntry {
                    name: name.file_name().unwrap_or(OsStr::new("")).to_owned(),
                    is_dir,
                    len,
                }
            })
            .collect())
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.names().entries.contains_key(path)
    }

    pub(super) fn create_new(&self, path: &Path) -> io::Result<MemoryFile> {
        let mut names = self.names();
        if names.entries.contains_key(path) {
            return Err(Errno::EXIST.into());
        }
        names.create(path)
    }

    pub(super) fn create_truncated(&self, path: &Path) -> io::Result<MemoryFile> {
        let mut names = self.names();
        match names.entries.get(path) {
            Some(Entry::Dir) => Err(Errno::ISDIR.into()),
            Some(Entry::File(contents)) => {
                contents.set_len(0);
                Ok(MemoryFile::new(contents.clone(), true))
            }
            None => names.create(path),
        }
    }

    pub(super) fn open(&self, path: &Path, writable: bool) -> io::Result<MemoryFile> {
        match self.names().entries.get(path) {
            Some(Entry::File(contents)) => Ok(MemoryFile::new(contents.clone(), writable)),
            Some(Entry::Dir) => Err(Errno::ISDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        if let Some(Entry::Dir) = names.entries.get(to) {
            return Err(Errno::EXIST.into());
        }
        let moved: Vec<PathBuf> =
            names.entries.keys().filter(|name| name.starts_with(from)).cloned().collect();
        if moved.is_empty() {
            return Err(Errno::NOENT.into());
        }
        for name in moved {
            let entry = names.entries.remove(&name);
            let rest = name.strip_prefix(from).unwrap_or(Path::new(""));
            let renamed = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            names.entries.extend(entry.map(|entry| (renamed, entry)));
        }
        Ok(())
    }

    pub(super) fn remove_file(&self, path: &Path) -> io::Result<()> {
        let removed = {
            let mut names = self.names();
            match names.entries.get(path) {
                Some(Entry::File(_)) => names.entries.remove(path),
                Some(Entry::Dir) => return Err(Errno::ISDIR.into()),
                None => return Err(Errno::NOENT.into()),
            }
        };
        // Frees what may be much, so not under the lock.
        drop(removed);
        Ok(())
    }

    pub(super) fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names();
        match names.entries.get(path) {
            Some(Entry::Dir) => {}
            Some(Entry::File(_)) => return Err(Errno::NOTDIR.into()),
            None => return Err(Errno::NOENT.into()),
        }
        if names.entries.keys().any(|name| name.parent() == Some(path)) {
            return Err(Errno::NOTEMPTY.into());
        }
        names.entries.remove(path);
        Ok(())
    }

    /// `None` if somebody has it who does not share it.
    pub(super) fn lock(&self, path: &Path, sharing: Sharing) -> io::Result<Option<MemoryLock>> {
        let mut names = self.names();
        if !names.entries.contains_key(path) {
            names.create(path)?;
        }
        let is_taken = names.locks.take(path.to_owned(), sharing);
        drop(names);
        Ok(is_taken.then(|| MemoryLock { memory: self.clone(), path: path.to_owned() }))
    }
}

impl Names {
    fn create(&mut self, path: &Path) -> io::Result<MemoryFile> {
        let parent = path.parent().and_then(|parent| self.entries.get(parent));
        if !matches!(parent, Some(Entry::Dir)) {
            return Err(Errno::NOENT.into());
        }
        let contents = Arc::new(Contents::default());
        self.entries.insert(path.to_owned(), Entry::File(contents.clone()));
        Ok(MemoryFile::new(contents, true))
    }
}

/// The lock of a store in memory.
pub(super) struct MemoryLock {
    memory: Memory,
    path: PathBuf,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.memory.names().locks.give_back(&self.path);
    }
}
