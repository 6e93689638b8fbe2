//! A disk as it was before each of its operations.

use std::path::PathBuf;

use super::SimDisk;
use super::state::State;

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum OpKind {
    /// A transfer of a write.
    Write,
    /// A transfer of a write that is durable when it is done.
    WriteDsync,
    /// A sync of a file.
    Sync,
    /// A change of a file's length.
    SetLen,
    /// A new directory.
    CreateDir,
    /// A new file.
    Create,
    /// A rename; the path is the new one.
    Rename,
    /// A second name for a file; the path is the new one.
    Link,
    /// A removal.
    Remove,
    /// A sync of a directory.
    SyncDir,
}

/// An operation and the disk as it was just before; see [`SimDisk::record`].
#[derive(Clone, Debug)]
pub struct Moment {
    /// What was about to be done.
    pub kind: OpKind,
    /// To what.
    pub path: PathBuf,
    /// As [`SimDisk::kill`] would have left it.
    pub disk: SimDisk,
}

impl Moment {
    pub(super) fn new(kind: OpKind, path: PathBuf, state: State) -> Moment {
        Moment { kind, path, disk: SimDisk::of(state) }
    }
}
