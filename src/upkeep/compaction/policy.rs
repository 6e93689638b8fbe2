//! Which files to compact, and when: a pure function of what is known about them.
//!
//! Compaction copies what still counts and gives back the rest, so what it costs is live bytes and what
//! it gains is dead ones. It waits until enough is dead, and then takes the files with the largest dead
//! part first, which is what makes log-structured stores cheap to clean under uneven overwrites
//! (Rosenblum and Ousterhout, "The Design and Implementation of a Log-Structured File System", 1992).
//!
//! ## Invariants
//! - **PO1** Without a reason nothing is chosen: no file is copied only to have been copied.
//! - **PO2** What is chosen at once is bounded in bytes and in records, so the space and memory that a job
//!   takes are too; a single file is always allowed.

use std::time::Duration;

use crate::options::Compaction;
use crate::types::{FileId, Seqno};

/// Records of one job's inputs. A job keeps some 24 bytes for each that it moves.
const JOB_RECORDS_MAX: u64 = 4 << 20;
/// Small files of similar size are merged when there are this many of them.
const SMALL_FILES_MIN: usize = 8;
/// A file is small when it is shorter than this part of `data_file_len_max`.
const SMALL_FILE_PART: u64 = 8;
/// Bytes that a record takes in a hint, if its key is short; longer keys are in the record too.
const HINT_RECORD_LEN: u64 = 48;
/// Bytes by which a record that is encrypted for the first time gets longer, padding included: of a long one the
/// padding is more, and next to nothing of it.
const SEAL_ADDED_LEN: u64 = 72;
/// Headers, marks and the least filter of a data file and its hint.
const FILE_OVERHEAD: u64 = 1 << 10;
/// A file is worth copying when its dead part is at least this share of the ratio that starts compaction.
pub(crate) const WORTH_IT: f64 = 0.5;

/// What is known about a sealed file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileFacts {
    pub(crate) id: FileId,
    pub(crate) len: u64,
    pub(crate) records: u64,
    pub(crate) live_bytes: u64,
    pub(crate) shadow_bytes: u64,
    pub(crate) dead_bytes: u64,
    /// Live ones and tombstones.
    pub(crate) kept_records: u64,
    pub(crate) seqno_min: Seqno,
    /// Its tombstones were looked at and are still needed, and no file has gone since.
    pub(crate) is_shadow_needed: bool,
    /// Its records are not encrypted with the newest key.
    pub(crate) is_stale: bool,
    /// Copying it failed before, because it is damaged.
    pub(crate) is_damaged: bool,
}

impl FileFacts {
    /// Bytes of records that compacting it gives back, as far as one can tell without looking at it.
    pub(crate) fn gain(&self) -> u64 {
        self.dead_bytes + if self.is_shadow_needed { 0 } else { self.shadow_bytes }
    }

    /// Bytes of records that compacting it writes.
    pub(crate) fn cost(&self) -> u64 {
        self.live_bytes + if self.is_shadow_needed { self.shadow_bytes } else { 0 }
    }

    /// Whether compacting it is of any use, as far as one can tell without looking at it.
    pub(crate) fn is_worth_it(&self) -> bool {
        self.gain() > 0 || self.is_stale
    }

    /// Bytes on disk that its copy takes at most, hint included.
    pub(crate) fn space(&self) -> u64 {
        let hint = self.kept_records * HINT_RECORD_LEN;
        let seals = if self.is_stale { self.kept_records * SEAL_ADDED_LEN } else { 0 };
        self.live_bytes + self.shadow_bytes + seals + hint + FILE_OVERHEAD
    }

    fn gain_ratio(&self) -> f64 {
        self.gain() as f64 / (self.gain() + self.cost()).max(1) as f64
    }
}

/// What may be chosen at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Length in bytes at which data files are sealed.
    pub(crate) file_len_max: u64,
    /// Bytes free on the file system for what is written.
    pub(crate) free_bytes: u64,
}

/// Why files were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nothing in them counts.
    Dead,
    /// Enough is dead.
    Space,
    /// They are small.
    Small,
    /// Somebody asked for it.
    Forced,
}

/// The files to compact now without being asked to, by id; `None` if there is no reason to (PO1).
pub(crate) fn choose(
    files: &[FileFacts],
    settings: &Compaction,
    hour: u8,
    room: Room,
) -> Option<(Vec<FileId>, Reason)> {
    if !settings.enabled {
        return None;
    }
    let sound = || files.iter().filter(|file| !file.is_damaged);
    let dead: Vec<FileId> = sound()
        .filter(|file| file.live_bytes + file.shadow_bytes == 0)
        .map(|file| file.id)
        .collect();
    if !dead.is_empty() {
        return Some((dead, Reason::Dead));
    }
    if !settings.allows(hour) {
        return None;
    }
    let (gain, cost) =
        sound().fold((0, 0), |(gain, cost), file| (gain + file.gain(), cost + file.cost()));
    let is_ratio_reached = gain > 0 && gain as f64 >= settings.dead_ratio * (gain + cost) as f64;
    let are_bytes_reached = settings.dead_bytes.is_some_and(|bytes| gain > 0 && gain >= bytes);
    if is_ratio_reached || are_bytes_reached {
        let least = if is_ratio_reached { settings.dead_ratio * WORTH_IT } else { 0.0 };
        let mut worth: Vec<&FileFacts> =
            sound().filter(|file| file.gain() > 0 && file.gain_ratio() >= least).collect();
        worth.sort_by(|a, b| b.gain_ratio().total_cmp(&a.gain_ratio()).then(a.id.cmp(&b.id)));
        return take(worth, room).map(|ids| (ids, Reason::Space));
    }
    if settings.merge_small {
        return choose_small(sound(), room).map(|ids| (ids, Reason::Small));
    }
    None
}

/// The next files of a forced compaction that has `pending` before it: oldest records first, so that
/// tombstones come after what they shadow.
pub(crate) fn choose_forced(
    files: &[FileFacts],
    pending: &[FileId],
    room: Room,
) -> Option<Vec<FileId>> {
    let mut worth: Vec<&FileFacts> =
        files.iter().filter(|file| pending.contains(&file.id)).collect();
    worth.retain(|file| file.is_worth_it() && !file.is_damaged);
    worth.sort_by_key(|file| (file.seqno_min, file.id));
    take(worth, room)
}

/// As many from the front as PO2 allows; files that do not fit on the disk are left out.
fn take(files: Vec<&FileFacts>, room: Room) -> Option<Vec<FileId>> {
    let (mut taken, mut cost, mut records, mut space) = (Vec::new(), 0, 0, 0);
    for file in files {
        if space + file.space() > room.free_bytes {
            continue;
        }
        let within =
            cost + file.cost() <= room.file_len_max && records + file.records <= JOB_RECORDS_MAX;
        if !taken.is_empty() && !within {
            break;
        }
        cost += file.cost();
        records += file.records;
        space += file.space();
        taken.push(file.id);
    }
    taken.sort_unstable();
    (!taken.is_empty()).then_some(taken)
}

/// Files of one order of magnitude are merged together, so that a byte is copied once for each order and
/// not once for each merge.
fn choose_small<'f>(files: impl Iterator<Item = &'f FileFacts>, room: Room) -> Option<Vec<FileId>> {
    let mut tiers: [Vec<&FileFacts>; 22] = Default::default();
    for file in files.filter(|file| file.len < room.file_len_max / SMALL_FILE_PART) {
        tiers[file.len.max(1).ilog2() as usize / 3].push(file);
    }
    let tier = tiers.into_iter().find(|tier| tier.len() >= SMALL_FILES_MIN)?;
    take(tier, room).filter(|ids| ids.len() > 1)
}

/// Paces a job to a rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    bytes_per_sec: Option<u64>,
}

impl Pace {
    pub(crate) fn new(bytes_per_sec: Option<u64>) -> Pace {
        Pace { bytes_per_sec }
    }

    /// How long a step that moved `bytes` within `took` still has to wait.
    pub(crate) fn wait(&self, bytes: u64, took: Duration) -> Duration {
        let Some(rate) = self.bytes_per_sec else { return Duration::ZERO };
        Duration::from_secs_f64(bytes as f64 / rate as f64).saturating_sub(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { file_len_max: 1000, free_bytes: u64::MAX };

    /// A file of 900 bytes of records.
    fn file(id: u64, dead_bytes: u64, shadow_bytes: u64) -> FileFacts {
        FileFacts {
            id: FileId(id),
            len: 1000,
            records: 10,
            live_bytes: 900 - dead_bytes - shadow_bytes,
            shadow_bytes,
            dead_bytes,
            kept_records: 10,
            seqno_min: Seqno(id),
            is_shadow_needed: false,
            is_stale: false,
            is_damaged: false,
        }
    }

    fn chosen(files: &[FileFacts], settings: &Compaction) -> Option<(Vec<u64>, Reason)> {
        let (ids, reason) = choose(files, settings, 12, ROOM)?;
        Some((ids.iter().map(|id| id.0).collect(), reason))
    }

    #[test]
    fn po1_nothing_dead_is_no_reason() {
        let files: Vec<_> = (1..100).map(|id| file(id, 0, 0)).collect();
        assert_eq!(chosen(&files, &Compaction::new().dead_bytes(0)), None);
        assert_eq!(choose_forced(&files, &[FileId(1), FileId(2)], ROOM), None);
    }

    #[test]
    fn a_file_without_anything_that_counts_goes_at_once_and_alone() {
        let files = [file(1, 10, 0), file(2, 900, 0), file(3, 0, 0)];
        assert_eq!(chosen(&files, &Compaction::new()), Some((vec![2], Reason::Dead)));
        assert_eq!(
            chosen(&files, &Compaction::new().hours_utc(1, 2)),
            Some((vec![2], Reason::Dead))
        );
        assert_eq!(chosen(&files, &Compaction::off()), None);
    }

    #[test]
    fn the_ratio_counts_over_all_files_and_the_deadest_go_first() {
        let files = [file(1, 300, 0), file(2, 800, 0), file(3, 100, 0), file(4, 0, 0)];
        // 1,200 of 3,600 are dead.
        assert_eq!(chosen(&files, &Compaction::new().dead_ratio(0.34)), None);
        let settings = Compaction::new().dead_ratio(0.33);
        assert_eq!(chosen(&files, &settings), Some((vec![1, 2], Reason::Space)));
        let settings = Compaction::new().dead_ratio(0.9).dead_bytes(1200);
        assert_eq!(chosen(&files, &settings), Some((vec![1, 2], Reason::Space)));
    }

    #[test]
    fn tombstones_count_as_dead_until_they_are_known_to_be_needed() {
        let mut files = [file(1, 0, 500), file(2, 0, 0)];
        let settings = Compaction::new().dead_ratio(0.2);
        assert_eq!(chosen(&files, &settings), Some((vec![1], Reason::Space)));
        files[0].is_shadow_needed = true;
        assert_eq!(chosen(&files, &settings), None);
    }

    #[test]
    fn a_damaged_file_is_left_alone() {
        let damaged = FileFacts { is_damaged: true, ..file(1, 900, 0) };
        assert_eq!(chosen(&[damaged], &Compaction::new()), None);
    }

    #[test]
    fn po2_a_job_writes_about_one_file_and_only_what_fits_on_the_disk() {
        let files: Vec<_> = (1..10).map(|id| file(id, 500, 0)).collect();
        let (ids, _) = chosen(&files, &Compaction::new()).unwrap();
        assert_eq!(ids, [1, 2], "400 live bytes each");
        let room = Room { free_bytes: files[0].space() - 1, ..ROOM };
        assert_eq!(choose(&files, &Compaction::new(), 0, room), None);
        let large = [FileFacts { live_bytes: 5000, dead_bytes: 5000, ..file(1, 0, 0) }];
        assert_eq!(chosen(&large, &Compaction::new()), Some((vec![1], Reason::Space)));
    }

    #[test]
    fn small_files_merge_by_order_of_magnitude() {
        let small = |id, len| FileFacts { len, ..file(id, 0, 0) };
        let room = Room { file_len_max: 1 << 20, ..ROOM };
        let merged = |files: &[FileFacts]| {
            choose(files, &Compaction::new(), 0, room).map(|(ids, reason)| (ids.len(), reason))
        };
        let mut files: Vec<_> = (1..=7).map(|id| small(id, 1000)).collect();
        files.extend((8..=14).map(|id| small(id, 100_000)));
        assert_eq!(merged(&files), None);
        files.push(small(15, 1000));
        assert_eq!(merged(&files), Some((8, Reason::Small)));
        assert_eq!(choose(&files, &Compaction::new().merge_small(false), 0, room), None);
    }

    #[test]
    fn forced_goes_from_old_to_new() {
        let mut files: Vec<_> = (1..5).map(|id| file(id, 500, 0)).collect();
        files[3].seqno_min = Seqno(0);
        let all: Vec<_> = files.iter().map(|file| file.id).collect();
        assert_eq!(choose_forced(&files, &all, ROOM), Some(vec![FileId(1), FileId(4)]));
    }

    #[test]
    fn a_rate_makes_steps_wait() {
        let pace = Pace::new(Some(1 << 20));
        let wait = pace.wait(1 << 20, Duration::from_millis(400));
        assert_eq!(wait.as_millis(), 600);
        assert_eq!(Pace::new(None).wait(1 << 20, Duration::ZERO), Duration::ZERO);
    }
}
