//! Where a bench runs: its own directory, never somebody's data.

use std::io;
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;
use crate::io::Fs;
use crate::log::format::data_header::FileKind;
use crate::log::layout;
use crate::{Db, Options};

/// A key that only a bench puts: it tells an earlier bench's store from other stores.
const MARKER: &str = "ringcask-bench";

pub(super) struct BenchDirectory {
    path: PathBuf,
    /// Nothing was in it when the bench began.
    is_new: bool,
    /// Removed in the end.
    is_temporary: bool,
}

impl BenchDirectory {
    pub(super) fn choose(asked: Option<&Path>) -> Result<BenchDirectory, Failure> {
        let Some(path) = asked else { return BenchDirectory::temporary() };
        let is_new = match std::fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                return Err(Failure::io(format_args!("look into {}", path.display()), &error));
            }
        };
        Ok(BenchDirectory { path: path.to_owned(), is_new, is_temporary: false })
    }

    fn temporary() -> Result<BenchDirectory, Failure> {
        let name = format!("ringcask-bench-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Fails if it is there, so it is nobody else's.
        std::fs::create_dir(&path)
            .map_err(|error| Failure::io(format_args!("create {}", path.display()), &error))?;
        Ok(BenchDirectory { path, is_new: true, is_temporary: true })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The page cache forgets what it has of the store: what is read next comes from the disk.
    pub(super) async fn make_cold(&self, db: &Db) -> Result<(), Failure> {
        db.sync().await?;
        self.drop_pages()
    }

    /// As [`make_cold`](Self::make_cold), of a store that is closed.
    pub(super) fn drop_pages(&self) -> Result<(), Failure> {
        let drop_pages = || {
            for (path, _) in self.files()? {
                let file = Fs::os().open_read(&path)?;
                file.sync_all()?; // Only what is on the disk can be forgotten.
                file.drop_pages()?;
            }
            Ok(())
        };
        drop_pages().map_err(|error| self.failed("have the page cache forget", &error))
    }

    pub(super) fn remove_hints(&self) -> Result<(), Failure> {
        let mut hints = match self.files() {
            Ok(files) => files.into_iter().filter(|(_, kind)| *kind == FileKind::Hint),
            Err(error) => return Err(self.failed("list the hints of", &error)),
        };
        hints
            .try_for_each(|(path, _)| std::fs::remove_file(path))
            .map_err(|error| self.failed("remove the hints of", &error))
    }

    fn files(&self) -> io::Result<Vec<(PathBuf, FileKind)>> {
        let mut files = Vec::new();
        for partition in std::fs::read_dir(&self.path)? {
            let partition = partition?;
            if layout::parse_partition_dir_name(&partition.file_name().to_string_lossy()).is_none()
            {
                continue;
            }
            for file in std::fs::read_dir(partition.path())? {
                let file = file?;
                let parsed = layout::parse_file_name(&file.file_name().to_string_lossy());
                files.extend(parsed.map(|(_, kind)| (file.path(), kind)));
            }
        }
        Ok(files)
    }

    fn failed(&self, what: &str, error: &io::Error) -> Failure {
        Failure::io(format_args!("{what} {}", self.path.display()), error)
    }
}

impl Drop for BenchDirectory {
    fn drop(&mut self) {
        if self.is_temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Opens the bench's store; refuses one that no bench has made.
pub(super) async fn open(options: Options, directory: &BenchDirectory) -> Result<Db, Failure> {
    let options = options.create_if_missing(directory.is_new);
    let db = options.open(&directory.path).await?;
    if directory.is_new {
        db.put(MARKER, "").await?;
    } else if !db.contains_key(MARKER).await? {
        db.close().await?;
        return Err(Failure::Failed(format!(
            "{}: the store holds other data than a bench's; choose an empty directory",
            directory.path.display()
        )));
    }
    Ok(db)
}
