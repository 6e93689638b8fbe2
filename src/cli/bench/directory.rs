//! Where a bench runs: its own directory, never somebody's data.

use std::io;
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;
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
