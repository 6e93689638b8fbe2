//! The one error type: opaque, cheap to clone, one sentence for people and a kind for programs.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in one sentence that says what was tried, where, and what to do.
///
/// Branch on [`Error::kind`]; print the error for people. Cloning is cheap: when a group commit
/// fails, every caller of the group gets the same error.
///
/// # Example: telling a closed store from other failures
/// ```
/// # futures::executor::block_on(async {
/// let dir = tempfile::tempdir().unwrap();
/// let db = ringcask::Db::open(dir.path()).await?;
/// db.close().await?;
/// let error = db.put("k", "v").await.unwrap_err();
/// assert_eq!(error.kind(), ringcask::ErrorKind::Closed);
/// # Ok::<(), ringcask::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    location: Option<(PathBuf, u64)>,
    source: Option<io::Error>,
}

/// The classes of failure a program can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store was closed, or is closing.
    Closed,
    /// A sync failed or a worker panicked: the partition is read-only until the store is opened again.
    Poisoned,
    /// Bytes on disk are not what was written; [`Error::location`] names the file and offset.
    Corrupt,
    /// Another instance holds the store open.
    Locked,
    /// The store was opened with [`Options::read_only`](crate::Options::read_only); nothing was written.
    ReadOnly,
    /// The path holds something else than a store, or no store where one was required.
    NotAStore,
    /// The store was written by a newer version of this crate.
    NewerFormat,
    /// The store holds something that only a build with another cargo feature reads.
    FeatureMissing,
    /// The store is encrypted with a key that was not given.
    WrongKey,
    /// The store exists with another partition count than the one asked for.
    PartitionCount,
    /// An argument or option is out of its bounds; nothing was written.
    InvalidArgument,
    /// The kernel or a sandbox denies `io_uring`.
    IoUringUnavailable,
    /// The keyspace of the handle was dropped.
    KeyspaceDropped,
    /// Something that a transaction has read was changed before it was committed; nothing was written.
    Conflict,
    /// The log from that position on is not there any more; begin from the beginning.
    PositionGone,
    /// The position is of another store, or of another state of this one.
    ForeignPosition,
    /// The snapshot is too old, or too much was changed since it was made; make another one.
    SnapshotEnded,
    /// What was asked for was cancelled before it was done.
    Cancelled,
    /// The file system is full, or a quota is used up; the write was not done.
    NoSpace,
    /// The store holds as much as it may, by [`Options::entries_max`](crate::Options::entries_max) or
    /// [`Options::bytes_max`](crate::Options::bytes_max); the write was not done.
    Full,
    /// The operating system refused a file operation.
    Io,
}

impl Error {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The damaged file and the offset in it, for [`ErrorKind::Corrupt`].
    pub fn location(&self) -> Option<(&Path, u64)> {
        self.0.location.as_ref().map(|(path, offset)| (path.as_path(), *offset))
    }

    /// Whether the store was closed.
    pub fn is_closed(&self) -> bool {
        self.kind() == ErrorKind::Closed
    }

    /// Whether damage was found on disk.
    pub fn is_corrupt(&self) -> bool {
        self.kind() == ErrorKind::Corrupt
    }

    /// Whether a transaction was not committed because others changed what it had read; begin it again.
    pub fn is_conflict(&self) -> bool {
        self.kind() == ErrorKind::Conflict
    }

    #[cold]
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Arc::new(Inner { kind, message: message.into(), location: None, source: None }))
    }

    #[cold]
    pub(crate) fn closed() -> Error {
        Error::new(ErrorKind::Closed, "the store is closed: open it again to go on")
    }

    #[cold]
    pub(crate) fn read_only(path: &Path) -> Error {
        let message = format!(
            "{}: the store was opened read-only, so nothing is written; open it without Options::read_only",
            path.display()
        );
        Error::new(ErrorKind::ReadOnly, message)
    }

    #[cold]
    pub(crate) fn keyspace_dropped() -> Error {
        Error::new(
            ErrorKind::KeyspaceDropped,
            "the keyspace was dropped: open one of its name anew to go on",
        )
    }

    #[cold]
    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// `what` says what the bytes should have been, as "record header checksum mismatch".
    #[cold]
    pub(crate) fn corrupt(path: &Path, offset: u64, what: impl fmt::Display) -> Error {
        Error(Arc::new(Inner {
            kind: ErrorKind::Corrupt,
            message: format!("{}: damaged at offset {offset}: {what}", path.display()),
            location: Some((path.to_owned(), offset)),
            source: None,
        }))
    }

    /// The same error, and what to do about it, as a clause.
    #[cold]
    pub(crate) fn advise(&self, clause: &str) -> Error {
        let Inner { kind, message, location, source } = &*self.0;
        let source = source.as_ref().map(|source| match source.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::new(source.kind(), source.to_string()),
        });
        let message = format!("{message}; {clause}");
        Error(Arc::new(Inner { kind: *kind, message, location: location.clone(), source }))
    }

    /// Something that only a newer build knows.
    #[cold]
    pub(crate) fn newer(path: &Path, why: impl fmt::Display) -> Error {
        let message = format!("{}: {why}; open the store with a newer build", path.display());
        Error::new(ErrorKind::NewerFormat, message)
    }

    /// Something that this build could know.
    #[cold]
    pub(crate) fn feature_missing(path: &Path, feature: &str, why: impl fmt::Display) -> Error {
        let message = format!("{}: {why}; build ringcask with `{feature}`", path.display());
        Error::new(ErrorKind::FeatureMissing, message)
    }

    /// Nothing is wrong with the store.
    #[cold]
    pub(crate) fn wrong_key(path: &Path, why: impl fmt::Display) -> Error {
        let message = format!(
            "{}: {why}; give it with Options::encryption_key, or with Options::encryption_key_old if it has been \
             replaced",
            path.display()
        );
        Error::new(ErrorKind::WrongKey, message)
    }

    /// `attempt` completes "cannot …", as "write 4096 bytes to".
    #[cold]
    pub(crate) fn io(attempt: &str, path: &Path, source: io::Error) -> Error {
        let kind = match source.raw_os_error() {
            Some(ENOSPC | EDQUOT) => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        let cure = match source.raw_os_error() {
            Some(ENOSPC) => "; free space on the file system, then try again",
            Some(EDQUOT) => "; raise the quota or free space under it, then try again",
            Some(EMFILE) => "; raise the limit of open files (ulimit -n)",
            Some(ENFILE) => "; the system is out of file descriptors (fs.file-max)",
            Some(EACCES | EPERM) => "; check the owner and mode of the path",
            Some(EROFS) => "; the file system is mounted read-only",
            Some(EFBIG) => "; raise the file size limit (ulimit -f) or lower data_file_len_max",
            _ => "",
        };
        let message = format!("cannot {attempt} {}: {source}{cure}", path.display());
        Error(Arc::new(Inner { kind, message, location: None, source: Some(source) }))
    }
}

// The errno values that change what the sentence advises.
const EPERM: i32 = 1;
const EACCES: i32 = 13;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const EFBIG: i32 = 27;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}
