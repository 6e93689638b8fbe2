//! A file of a partition whose descriptor may be given up while it is not used.
//!
//! A process has only so many descriptors. Who finds one given up asks whoever may wait for the disk to
//! open the file again; once its name is gone from the directory, it could not be.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use crate::io::{File, Fs, Locked};

/// Shared by the worker and by readers on any thread. Nobody reads through a descriptor that is closed, or
/// that is another file's by now: a reader holds what it reads through.
pub(crate) struct StoredFile {
    pub(crate) path: PathBuf,
    /// `None` while it is given up.
    handle: ArcSwapOption<File>,
    /// What of it is locked in memory, once it is.
    locked: OnceLock<Locked>,
    /// When it was last read, on a clock that moves when files are opened.
    used_at: AtomicU64,
}

impl StoredFile {
    /// A file that is open, or one that whoever needs it first opens.
    pub(crate) fn new(path: PathBuf, file: Option<Arc<File>>) -> Arc<StoredFile> {
        let handle = ArcSwapOption::from(file);
        Arc::new(StoredFile { path, handle, locked: OnceLock::new(), used_at: AtomicU64::new(0) })
    }

    /// Calls `read` with the open file; `None` if its descriptor is given up.
    pub(crate) fn with_open<R>(&self, read: impl FnOnce(&File) -> R) -> Option<R> {
        self.handle.load().as_deref().map(read)
    }

    /// Fills `buf` from memory, without waiting for the disk; `None` if not all of it is there.
    pub(crate) fn fill_now(&self, buf: &mut [u8], offset: u64) -> Option<()> {
        if self.locked.get().is_some_and(|locked| locked.fill(buf, offset)) {
            return Some(());
        }
        let read = self.with_open(|file| file.read_now(buf, offset))?;
        (read.ok()? == buf.len()).then_some(())
    }

    /// Whether its bytes are locked in memory.
    pub(crate) fn is_locked(&self) -> bool {
        self.locked.get().is_some()
    }

    /// From here on readers find these bytes of it in memory.
    pub(crate) fn show_locked(&self, locked: Locked) {
        let _first_stays = self.locked.set(locked);
    }

    pub(crate) fn opened(&self) -> Option<Arc<File>> {
        self.handle.load_full()
    }

    /// Whether there is a descriptor that could be given up.
    pub(crate) fn has_descriptor(&self) -> bool {
        self.with_open(|file| !file.is_in_memory()) == Some(true)
    }

    /// The open file, or else one that is opened for the caller alone. Blocks.
    pub(crate) fn open(&self, fs: &Fs) -> std::io::Result<Arc<File>> {
        if let Some(file) = self.opened() {
            return Ok(file);
        }
        match fs.open_read(&self.path) {
            Ok(file) => {
                file.advise_random();
                Ok(file)
            }
            // Who removes the name of a file that is read has it opened for its readers before that (G3).
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.opened().ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// From here on readers use `file`, which [`open`](Self::open) returned.
    pub(crate) fn keep_open(&self, file: Arc<File>) {
        self.handle.store(Some(file));
    }

    /// Gives up the descriptor; it is closed when whoever reads through it is done.
    pub(crate) fn give_up(&self) -> Option<Arc<File>> {
        self.handle.swap(None)
    }

    /// Notes a read at `now`; costs a load while the clock stands still.
    pub(crate) fn note_used(&self, now: u64) {
        if self.used_at.load(Ordering::Relaxed) != now {
            self.used_at.store(now, Ordering::Relaxed);
        }
    }

    pub(crate) fn used_at(&self) -> u64 {
        self.used_at.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::io::Memory;

    /// Breaks if a reader that finds the descriptor given up, and then no file of that name, takes that for an error.
    #[test]
    fn whoever_opens_a_file_that_is_just_removed_has_it() {
        let fs = Fs::memory(Memory::new());
        fs.create_dir(Path::new("/store")).unwrap();
        let path = PathBuf::from("/store/removed.data");
        for round in 0..5_000 {
            drop(fs.create_new(&path).unwrap());
            let stored = StoredFile::new(path.clone(), None);
            let (both, is_removed) = (Barrier::new(2), AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    both.wait();
                    while !is_removed.load(Ordering::Relaxed) {
                        stored.open(&fs).unwrap_or_else(|error| panic!("round {round}: {error}"));
                    }
                });
                // As who lets a file go that is read: first it is open, and then it has no name.
                let file = fs.open_read(&path).unwrap();
                both.wait();
                stored.keep_open(file);
                let removed = fs.remove_file(&path);
                is_removed.store(true, Ordering::Relaxed);
                removed.unwrap();
            });
        }
    }
}
