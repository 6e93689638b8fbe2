//! Names of files and directories, to and from what they stand for, and which partitions a directory has.
//!
//! ```text
//! data/
//!   MANIFEST
//!   LOCK
//!   partition-000/
//!     FILES
//!     RESERVE
//!     000000001.data
//!     000000001.hint
//!     000000002.keys
//! ```
//!
//! ## Invariants
//! - **LY1** A name is parsed only if it is, byte for byte, what would be written for the same
//!   number: `0000000001.data`, `1.data` and `000000001.data~` are strangers, and strangers are
//!   left alone. Otherwise two files could claim one id.

use std::fmt;
use std::path::{Path, PathBuf};

use super::format::data_header::FileKind;
use crate::error::{Error, Result};
use crate::io::Fs;
use crate::limits;
use crate::types::{FileId, PartitionId};

/// What the whole store agrees on.
pub(crate) const MANIFEST: &str = "MANIFEST";

/// Locked while the store is open; never holds anything.
pub(crate) const LOCK: &str = "LOCK";

/// The list of a partition's files.
pub(crate) const FILES: &str = "FILES";

/// The list that takes the place of [`FILES`], once MANIFEST says that a backup is complete.
pub(crate) const FILES_NEXT: &str = "FILES.next";

/// There while a first backup, or a restored store, is not complete.
pub(crate) const BACKUP: &str = "BACKUP";

/// Space that deletions find on a full disk; holds nothing.
pub(crate) const RESERVE: &str = "RESERVE";

/// Added to a name while its replacement is being written; a leftover may be deleted.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// No partition lives to give out this id; a file of a larger one is a stranger, and no reason to go on
/// counting behind it.
pub(crate) const FILE_ID_MAX: u64 = 1 << 48;

const PARTITION_PREFIX: &str = "partition-";
const DATA_SUFFIX: &str = ".data";
const HINT_SUFFIX: &str = ".hint";
const KEYS_SUFFIX: &str = ".keys";
const ASIDE_SUFFIX: &str = ".damaged";

pub(crate) fn partition_dir_name(partition: PartitionId) -> String {
    format!("{PARTITION_PREFIX}{partition}")
}

pub(crate) fn partition_dir(store: &Path, partition: PartitionId) -> PathBuf {
    store.join(partition_dir_name(partition))
}

/// The directories of partitions in `root`, whether or not the store has those partitions; in no order.
pub(crate) fn partition_dirs(fs: &Fs, root: &Path) -> Result<Vec<(PartitionId, PathBuf)>> {
    let entries = fs.read_dir(root).map_err(|source| Error::io("list", root, source))?;
    let names = entries.iter().filter(|entry| entry.is_dir).map(|entry| &entry.name);
    let ids = names.filter_map(|name| parse_partition_dir_name(&name.to_string_lossy()));
    Ok(ids.map(|id| (id, partition_dir(root, id))).collect())
}

pub(crate) fn file_name(file: FileId, kind: FileKind) -> String {
    let suffix = match kind {
        FileKind::Data => DATA_SUFFIX,
        FileKind::Hint | FileKind::SealedHint => HINT_SUFFIX,
        FileKind::KeyRun => KEYS_SUFFIX,
    };
    format!("{file}{suffix}")
}

pub(crate) fn data_file_path(partition_dir: &Path, file: FileId) -> PathBuf {
    partition_dir.join(file_name(file, FileKind::Data))
}

pub(crate) fn hint_file_path(partition_dir: &Path, file: FileId) -> PathBuf {
    partition_dir.join(file_name(file, FileKind::Hint))
}

pub(crate) fn key_run_path(partition_dir: &Path, file: FileId) -> PathBuf {
    partition_dir.join(file_name(file, FileKind::KeyRun))
}

/// The partition whose directory has this name.
pub(crate) fn parse_partition_dir_name(name: &str) -> Option<PartitionId> {
    let digits = name.strip_prefix(PARTITION_PREFIX)?;
    let partition = PartitionId(digits.parse().ok()?);
    (partition.0 < limits::PARTITIONS_MAX && is_display_of(digits, partition)).then_some(partition)
}

/// The data file, hint or key run that has this name.
pub(crate) fn parse_file_name(name: &str) -> Option<(FileId, FileKind)> {
    let kinds = [
        (DATA_SUFFIX, FileKind::Data),
        (HINT_SUFFIX, FileKind::Hint),
        (KEYS_SUFFIX, FileKind::KeyRun),
    ];
    let (digits, kind) =
        kinds.iter().find_map(|(suffix, kind)| Some((name.strip_suffix(suffix)?, *kind)))?;
    let file = FileId(digits.parse().ok()?);
    (file != FileId::default() && is_display_of(digits, file)).then_some((file, kind))
}

/// Whether a partition makes files of this name, for itself or as part of a backup.
pub(crate) fn is_of_partition(name: &str) -> bool {
    let whole = name.strip_suffix(TEMPORARY_SUFFIX).unwrap_or(name);
    parse_file_name(whole).is_some() || [FILES, FILES_NEXT, RESERVE].contains(&whole)
}

/// The name that a damaged file gets when a repair sets it aside, the `number`th of its kind from 1: then
/// no name of the store is like it, and nothing reads or removes it.
pub(crate) fn aside_name(name: &str, number: u32) -> String {
    if number == 1 {
        format!("{name}{ASIDE_SUFFIX}")
    } else {
        format!("{name}{ASIDE_SUFFIX}.{number}")
    }
}

/// Whether `name` is one under which a file called `original` was set aside.
pub(crate) fn is_aside_of(name: &str, original: &str) -> bool {
    let rest = name.strip_prefix(original).and_then(|rest| rest.strip_prefix(ASIDE_SUFFIX));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The data file that was set aside under this name, and the how manieth of its id it is.
pub(crate) fn parse_aside_name(name: &str) -> Option<(FileId, u32)> {
    let (original, number) = name.split_once(ASIDE_SUFFIX)?;
    let number = match number.strip_prefix('.') {
        Some(digits) => digits.parse().ok()?,
        None => 1,
    };
    let (file, kind) = parse_file_name(original)?;
    (kind == FileKind::Data && aside_name(original, number) == name).then_some((file, number))
}

/// LY1: also refuses the `+7` that `parse` takes for a number.
fn is_display_of(digits: &str, number: impl fmt::Display) -> bool {
    digits == number.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_the_numbers_they_were_made_of() {
        for number in [0, 1, 12, 999, 1000, limits::PARTITIONS_MAX - 1] {
            let partition = PartitionId(number);
            let name = partition_dir_name(partition);
            assert_eq!(parse_partition_dir_name(&name), Some(partition), "{name}");
        }
        for number in [1, 17, 999_999_999, 1_000_000_000, u64::MAX] {
            for kind in [FileKind::Data, FileKind::Hint, FileKind::KeyRun] {
                let name = file_name(FileId(number), kind);
                assert_eq!(parse_file_name(&name), Some((FileId(number), kind)), "{name}");
            }
        }
    }

    #[test]
    fn golden_names() {
        let dir = partition_dir(Path::new("data"), PartitionId(0));
        assert_eq!(dir, Path::new("data/partition-000"));
        assert_eq!(data_file_path(&dir, FileId(1)), dir.join("000000001.data"));
        assert_eq!(hint_file_path(&dir, FileId(1)), dir.join("000000001.hint"));
    }

    #[test]
    fn names_of_what_was_set_aside_come_back() {
        for number in [1, 2, 17] {
            let name = aside_name("000000003.data", number);
            assert_eq!(parse_aside_name(&name), Some((FileId(3), number)), "{name}");
            assert_eq!(parse_file_name(&name), None, "{name}");
        }
        assert_eq!(aside_name("MANIFEST", 1), "MANIFEST.damaged");
        for name in
            ["000000003.data", "3.data.damaged", "000000003.data.damaged.1", "FILES.damaged"]
        {
            assert_eq!(parse_aside_name(name), None, "{name}");
        }
    }

    /// Without LY1 an editor's backup or a copy with another number of zeros would be opened.
    #[test]
    fn ly1_everything_else_is_a_stranger() {
        let dirs = [
            "",
            "partition-",
            "partition-0",
            "partition-00",
            "partition-0000",
            "partition-+01",
            "partition--01",
            "partition-4096",
            "partition-99999999999",
            "partition-001 ",
            "Partition-001",
            "partition-001.tmp",
            "partition-٠٠١",
        ];
        for name in dirs {
            assert_eq!(parse_partition_dir_name(name), None, "{name:?}");
        }
        let files = [
            "",
            ".data",
            "1.data",
            "000000000.data",
            "0000000001.data",
            "+00000001.data",
            "000000001",
            "000000001.data~",
            "000000001.data.tmp",
            "000000001.DATA",
            "000000001.data.hint",
            "99999999999999999999.data",
            "00000000a.data",
        ];
        for name in files {
            assert_eq!(parse_file_name(name), None, "{name:?}");
        }
    }
}
