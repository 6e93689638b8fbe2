//! The log of a partition: its data files, what is in them, and what they are called.
//!
//! A partition's log is a row of data files. Each holds a header, then commit groups that chain to
//! each other, then a closing mark; `FILES` lists the closed ones and MANIFEST holds what all
//! partitions agree on. Nothing here decides *when* to write: it says which bytes, and what bytes
//! that were found on disk mean.
//!
//! ```text
//! format/    bytes of a record, a commit group, a file header and a hint; no I/O
//! layout     names and paths
//! codec      a caller's value ↔ the stored one
//! manifest   MANIFEST ↔ struct
//! files      FILES ↔ struct
//! scanner    a data file, front to back
//! stretch    the keys in some groups of a data file
//! hint_file  a data file's keys in order, so that it need not be scanned
//! key_run    the keys of many data files in one order, for scans
//! tail       what the end of a scan means
//! salvage    a damaged data file, front to back: what in it is sound, what is not
//! part       a part of a value, out of a record that is read in pieces
//! writer     a data file that nobody waits for, front to back
//! ```
//!
//! ## Invariants
//! - **L1** Bytes from disk are never trusted: a reader returns `Err`, it does not panic, and it
//!   allocates only what a verified length, bounded by the file's own length, asks for.
//! - **L2** Every structure in a data file starts and ends at a multiple of 8.
//! - **L3** Only bytes that verify against the file's identity are used, so a byte of another file,
//!   or of another store, is refused wherever it turns up.

pub(crate) mod codec;
pub(crate) mod data_file;
#[cfg(feature = "sim")]
pub mod decoders;
pub(crate) mod files;
pub(crate) mod format;
pub(crate) mod hint_file;
pub(crate) mod key_run;
pub(crate) mod layout;
pub(crate) mod manifest;
pub(crate) mod part;
pub(crate) mod salvage;
pub(crate) mod scanner;
pub(crate) mod stored_file;
pub(crate) mod stretch;
pub(crate) mod tail;
pub(crate) mod writer;

#[cfg(any(test, feature = "sim"))]
mod in_memory;
#[cfg(test)]
mod test_file;
