//! Descriptors of data files, and of hints and key runs that scans read: as many as allowed stay open, those longest unused are given up.
//!
//! A reader that finds a descriptor given up asks the worker, who opens the file again on a thread of its
//! own. Nobody ever reads through a descriptor that is closed, or that is another file's by now: a reader
//! holds what it reads through.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Partition;
use crate::io::{Disk, File, Fs};
use crate::log::stored_file::StoredFile;

/// A file that had to be opened.
pub(crate) type Opened = Option<Arc<File>>;

/// The open file; and once more if it had to be opened for this, so that it can be kept.
async fn open(disk: &Disk, fs: Fs, stored: Arc<StoredFile>) -> io::Result<(Arc<File>, Opened)> {
    if let Some(file) = stored.opened() {
        return Ok((file, None));
    }
    let opened = disk.open(move || stored.open(&fs)).await;
    let file = opened.unwrap_or_else(|| Err(io::Error::other("the helper thread panicked")))?;
    Ok((file.clone(), Some(file)))
}

/// Reads from a file that may have to be opened for it.
pub(super) async fn read(
    disk: &Disk,
    fs: Fs,
    stored: Arc<StoredFile>,
    len: usize,
    offset: u64,
) -> (Opened, io::Result<Vec<u8>>) {
    match open(disk, fs, stored).await {
        Ok((file, opened)) => (opened, disk.read(&file, len, offset).await),
        Err(error) => (None, Err(error)),
    }
}

impl Partition {
    /// A file was opened to be read: it stays open, and another one goes.
    pub(super) fn handles_keep(&mut self, stored: &StoredFile, opened: Opened) {
        let Some(file) = opened else { return };
        self.view.counters.files_opened.add(1);
        let now = self.view.clock.load(Ordering::Relaxed) + 1;
        self.view.clock.store(now, Ordering::Relaxed);
        stored.note_used(now);
        stored.keep_open(file);
        self.handles_trim();
    }

    /// Gives up what is open beyond the limit; the active file is not counted.
    pub(super) fn handles_trim(&mut self) {
        let active = self.active.as_ref().map(|active| active.data.id);
        let mut open: Vec<Arc<StoredFile>> = Vec::new();
        for (_, data) in self.files.iter().filter(|(_, data)| Some(data.id) != active) {
            let hint = data.hint().map(|hint| hint.stored.clone());
            open.extend([Some(data.stored.clone()), hint].into_iter().flatten());
        }
        open.extend(self.upkeep.key_runs.iter().map(|run| run.stored.clone()));
        open.retain(|stored| stored.has_descriptor());
        let excess = open.len().saturating_sub(self.config.open_files_max);
        self.view
            .counters
            .files_open
            .set((open.len() - excess + usize::from(active.is_some())) as u64);
        if excess == 0 {
            return;
        }
        open.select_nth_unstable_by_key(excess - 1, |stored| stored.used_at());
        let given_up: Vec<Arc<File>> =
            open[..excess].iter().filter_map(|stored| stored.give_up()).collect();
        self.upkeep.release_handles(given_up);
    }
}
