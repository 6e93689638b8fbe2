//! What verify and repair tell about a store.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::limits::{DAMAGE_KEY_BYTES_MAX, DAMAGE_REPORTED_MAX};

/// What [`Db::verify`](crate::Db::verify) found.
///
/// Counts cover what the lists of files name; [`VerifyReport::is_sound`] is the answer in one word.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Partitions that were read.
    pub partitions: u32,
    /// Data files that count.
    pub files: u64,
    /// Sound records, deletions and replaced values included.
    pub records: u64,
    /// Bytes of the data files that count, sound or not.
    pub bytes: u64,
    /// Bytes behind the end of a log that a killed process or a power cut left incomplete. Nothing that
    /// was acknowledged as durable is among them, and the next open cuts them off: not damage.
    pub torn_bytes: u64,
    /// Sound records of keys that another partition owns: left by a repartition, never read. Not damage.
    pub misrouted_records: u64,
    /// Sound records whose keys could not be read, because the key that they are encrypted with was not given:
    /// nothing is said about their hints. Not damage.
    pub undecrypted_records: u64,
    /// Hint files that say what their data files do.
    pub hints: u64,
    /// Sealed data files without a hint file, which are read whole at the next open. Not damage.
    pub hints_missing: u64,
    /// Hint files, if they are there, that could not be held against their data files, because the key that those
    /// are encrypted with was not given.
    pub hints_unjudged: u64,
    /// Hint files that the next open ignores and makes anew: damaged, stale, or of another file. Not damage,
    /// because nothing is lost with one. One that would be believed and is wrong is among the `damage`.
    pub hints_ignored: Vec<IgnoredHint>,
    /// Data and hint files that no list names: left by an interrupted step, never read, removed by the next
    /// open. Not damage.
    pub strays: Vec<PathBuf>,
    /// Files that a newer version of this crate wrote, which therefore were not judged.
    pub newer: Vec<NewerFile>,
    /// What is not as it was written, at most [`DAMAGE_REPORTED_MAX`] of it.
    pub damage: Vec<Damage>,
    /// How many more ranges of damage were found than are listed.
    pub damage_omitted: u64,
    key_bytes: usize,
}

impl VerifyReport {
    /// Whether every byte that counts was judged, and is what was written.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.newer.is_empty()
    }

    /// How many ranges of damage were found.
    pub fn damage_count(&self) -> u64 {
        self.damage.len() as u64 + self.damage_omitted
    }

    /// Notes damage as long as there is room for it.
    pub(crate) fn add_damage(&mut self, mut damage: Damage) {
        if self.damage.len() >= DAMAGE_REPORTED_MAX {
            self.damage_omitted += 1;
            return;
        }
        self.key_bytes += damage.key.as_ref().map_or(0, Vec::len);
        if self.key_bytes > DAMAGE_KEY_BYTES_MAX {
            damage.key = None;
        }
        self.damage.push(damage);
    }

    pub(crate) fn ignore_hint(&mut self, path: &Path, what: impl fmt::Display) {
        self.hints_ignored.push(IgnoredHint { path: path.to_owned(), what: what.to_string() });
    }

    pub(crate) fn add_newer(&mut self, path: &Path, what: impl fmt::Display) {
        self.newer.push(NewerFile { path: path.to_owned(), what: what.to_string() });
    }
}

/// What [`Db::backup`](crate::Db::backup) and [`Db::restore`](crate::Db::restore) have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// There was an earlier backup, of which this one is a later state.
    pub is_incremental: bool,
    /// Data files of the backup.
    pub files: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// Of the files, those that got a second name, and take no space as long as the original is there.
    pub files_linked: u64,
    /// Of the files, those that were copied.
    pub files_copied: u64,
    /// Bytes of these.
    pub bytes_copied: u64,
    /// Of the files, those that were there already.
    pub files_kept: u64,
    /// Data files that an earlier backup had, and that do not count any more.
    pub files_removed: u64,
}

/// A range of a file that is not what was written, or that cannot be read.
///
/// Prints as one line: path, offset, length, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where the damage begins.
    pub offset: u64,
    /// How many bytes are lost with it; `None` where that cannot be said, as for a missing file.
    pub len: Option<u64>,
    /// Probably the key of the record that is damaged. One checksum covers key and value, so the key
    /// itself may be what was hit; it is given only if it belongs into the partition where it was found.
    /// `None` if not even the record's length is known.
    pub key: Option<Vec<u8>>,
    /// What is wrong, as a clause.
    pub what: String,
}

impl Damage {
    pub(crate) fn new(
        path: &Path,
        offset: u64,
        len: Option<u64>,
        what: impl fmt::Display,
    ) -> Damage {
        Damage { path: path.to_owned(), offset, len, key: None, what: what.to_string() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: damaged at offset {}", self.path.display(), self.offset)?;
        if let Some(len) = self.len {
            write!(f, ", {len} bytes")?;
        }
        if let Some(key) = &self.key {
            write!(f, ", probably key \"{}\"", key.escape_ascii())?;
        }
        write!(f, ": {}", self.what)
    }
}

/// A file of a newer format.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewerFile {
    /// The file.
    pub path: PathBuf,
    /// What this build does not know.
    pub what: String,
}

impl fmt::Display for NewerFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: not judged: {}", self.path.display(), self.what)
    }
}

/// A hint file that the next open ignores and makes anew.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IgnoredHint {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, as a clause.
    pub what: String,
}

impl fmt::Display for IgnoredHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: a hint, will be made anew: {}", self.path.display(), self.what)
    }
}

/// What [`Db::repartition`](crate::Db::repartition) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepartitionReport {
    /// How many partitions the store had.
    pub partitions_before: u32,
    /// How many it has.
    pub partitions_after: u32,
    /// Keys that are in another partition now, expired ones that are not swept included.
    pub keys_moved: u64,
    /// Keys that are where they were.
    pub keys_kept: u64,
    /// Bytes of the records that were written for that.
    pub bytes_moved: u64,
}

/// What [`Db::repair`](crate::Db::repair) found and did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// The store before anything was changed: its damage is what was repaired, or is lost.
    pub found: VerifyReport,
    /// Sound records that were copied out of damaged files.
    pub records_kept: u64,
    /// Records that are known to be lost: those that `FILES` counts in sealed files and that are not
    /// sound. What was lost of the file that was written last, or of one that only a rebuilt `FILES`
    /// names, was counted by nobody.
    pub records_lost: u64,
    /// New data files.
    pub written: Vec<PathBuf>,
    /// Damaged files under the names they have now; repair deletes nothing.
    pub set_aside: Vec<PathBuf>,
    /// Data files that were listed and were not there; they are no longer listed.
    pub missing: Vec<PathBuf>,
    /// Hint files that contradicted their data files, or whose data files are no longer listed. The next
    /// open makes anew what is needed.
    pub hints_removed: Vec<PathBuf>,
    /// `MANIFEST` and `FILES` that were made anew from what data files say.
    pub rebuilt: Vec<PathBuf>,
    /// What to expect of the repaired store, one sentence each.
    pub warnings: Vec<String>,
}

impl RepairReport {
    /// Whether anything was changed; a sound store is left as it is.
    pub fn is_changed(&self) -> bool {
        let RepairReport { written, set_aside, missing, hints_removed, rebuilt, .. } = self;
        let changes = [written, set_aside, missing, hints_removed, rebuilt];
        changes.iter().any(|paths| !paths.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_prints_as_one_line() {
        let mut damage = Damage::new(Path::new("p/1.data"), 40, Some(48), "checksum mismatch");
        let line = "p/1.data: damaged at offset 40, 48 bytes: checksum mismatch";
        assert_eq!(damage.to_string(), line);
        damage.key = Some(b"a\n\xff".to_vec());
        assert!(damage.to_string().contains(r#"probably key "a\n\xff""#), "{damage}");
    }

    #[test]
    fn reports_have_bounds() {
        let mut report = VerifyReport::default();
        for _ in 0..=DAMAGE_REPORTED_MAX {
            let mut damage = Damage::new(Path::new("f"), 0, None, "");
            damage.key = Some(vec![0; 4096]);
            report.add_damage(damage);
        }
        assert_eq!((report.damage.len(), report.damage_omitted), (DAMAGE_REPORTED_MAX, 1));
        let key_bytes: usize =
            report.damage.iter().flat_map(|damage| &damage.key).map(Vec::len).sum();
        assert!(key_bytes <= DAMAGE_KEY_BYTES_MAX && !report.is_sound());
    }
}
