//! Replacing `FILES`, which is what commits a rotation and a compaction (F1).

use std::path::Path;

use crate::error::Error;
use crate::io::Fs;
use crate::limits::FILES_LEN_MAX;
use crate::log::files::FilesList;
use crate::log::layout;

/// Why a change of the partition's files did not come about.
pub(crate) enum ChangeFailure {
    /// Nothing is lost and `FILES` is what it was.
    Again(Error),
    /// A sync failed, or it is unknown what `FILES` says on disk (D1).
    Poison(&'static str, std::io::Error),
}

/// Replaces `FILES`. If that failed but the new text is there, it may or may not survive a power cut:
/// records in a file that is not listed after it would be lost, and inputs of a compaction that still
/// are would be missed.
pub(super) fn replace_files(
    fs: &Fs,
    dir: &Path,
    before: &FilesList,
    after: &FilesList,
) -> Result<(), ChangeFailure> {
    let path = dir.join(layout::FILES);
    let staged = fs
        .stage_file(dir, layout::FILES, &after.encode())
        .map_err(|source| ChangeFailure::Again(Error::io("replace", &path, source)))?;
    let Err(source) = staged.commit() else { return Ok(()) };
    match fs.read_file(&path, FILES_LEN_MAX) {
        Ok(bytes) if bytes == before.encode() => {
            Err(ChangeFailure::Again(Error::io("replace", &path, source)))
        }
        _ => Err(ChangeFailure::Poison("replacing FILES", source)),
    }
}
