//! Live, shadow and dead bytes of each data file (K5).
//!
//! Live is what keydir entries point at, shadow is what tombstones and expired records take, dead is
//! the rest of the records. Counted when a record is published, never when it is staged, so the sums agree with the
//! keydir at every moment and after every reopen.

use super::{FileSlot, Location};

/// What one data file holds, in records and in bytes of whole records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileUsage {
    pub(crate) records: u64,
    pub(crate) record_bytes: u64,
    pub(crate) live_records: u64,
    pub(crate) live_bytes: u64,
    pub(crate) shadow_records: u64,
    pub(crate) shadow_bytes: u64,
}

impl FileUsage {
    pub(crate) fn dead_records(&self) -> u64 {
        self.records - self.live_records - self.shadow_records
    }

    pub(crate) fn dead_bytes(&self) -> u64 {
        self.record_bytes - self.live_bytes - self.shadow_bytes
    }
}

/// Usage of every file of a partition, by slot.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    files: Vec<FileUsage>,
    total: FileUsage,
}

impl Usage {
    /// A record at `new` became the newest of its key, in place of `old`.
    pub(crate) fn put(&mut self, new: Location, old: Option<Location>) {
        self.records(new.slot, 1, u64::from(new.len));
        self.live(new);
        self.forget(old);
    }

    /// A tombstone of `len` bytes in `slot` deleted `old`.
    pub(crate) fn del(&mut self, slot: FileSlot, len: u32, old: Option<Location>) {
        self.records(slot, 1, u64::from(len));
        self.shadow(slot, 1, u64::from(len));
        self.forget(old);
    }

    /// The file in `slot` has this many records more, of which nothing else is said yet.
    pub(crate) fn records(&mut self, slot: FileSlot, count: u64, bytes: u64) {
        self.change(slot, |usage| {
            usage.records += count;
            usage.record_bytes += bytes;
        });
    }

    /// The record at `location` does not count any more, and no other one counts instead.
    pub(crate) fn removed(&mut self, location: Location) {
        self.forget(Some(location));
    }

    /// The record at `location` has expired, and shadows older ones from now on.
    pub(crate) fn expired(&mut self, location: Location) {
        self.forget(Some(location));
        self.shadow(location.slot, 1, u64::from(location.len));
    }

    /// Of the records in `slot`, these are tombstones.
    pub(crate) fn shadow(&mut self, slot: FileSlot, count: u64, bytes: u64) {
        self.change(slot, |usage| {
            usage.shadow_records += count;
            usage.shadow_bytes += bytes;
        });
    }

    /// Of the records in its slot, the one at `location` is the newest of its key.
    pub(crate) fn live(&mut self, location: Location) {
        self.change(location.slot, |usage| {
            usage.live_records += 1;
            usage.live_bytes += u64::from(location.len);
        });
    }

    /// The record at `location`, which was counted and not alive, is the newest of its key after all.
    pub(crate) fn revived(&mut self, location: Location, old: Option<Location>) {
        self.live(location);
        self.forget(old);
    }

    /// What was at `old` is dead, without a tombstone that is counted.
    pub(crate) fn superseded(&mut self, old: Option<Location>) {
        self.forget(old);
    }

    /// The record at `from` was copied to `to`, which counts now.
    pub(crate) fn moved(&mut self, from: Location, to: Location) {
        self.live(to);
        self.forget(Some(from));
    }

    /// The file in `slot` is gone.
    pub(crate) fn remove(&mut self, slot: FileSlot) {
        let Some(gone) = self.files.get_mut(usize::from(slot.0)).map(std::mem::take) else {
            return;
        };
        let total = &mut self.total;
        total.records -= gone.records;
        total.record_bytes -= gone.record_bytes;
        total.live_records -= gone.live_records;
        total.live_bytes -= gone.live_bytes;
        total.shadow_records -= gone.shadow_records;
        total.shadow_bytes -= gone.shadow_bytes;
    }

    pub(crate) fn file(&self, slot: FileSlot) -> FileUsage {
        self.files.get(usize::from(slot.0)).copied().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> FileUsage {
        self.total
    }

    fn forget(&mut self, old: Option<Location>) {
        let Some(old) = old else { return };
        self.change(old.slot, |usage| {
            usage.live_bytes -= u64::from(old.len);
            usage.live_records -= 1;
        });
    }

    fn change(&mut self, slot: FileSlot, change: impl Fn(&mut FileUsage)) {
        let index = usize::from(slot.0);
        if index >= self.files.len() {
            self.files.resize(index + 1, FileUsage::default());
        }
        change(&mut self.files[index]);
        change(&mut self.total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(slot: u16, len: u32) -> Location {
        Location { slot: FileSlot(slot), offset: 128, len, has_expiry: false }
    }

    #[test]
    fn an_overwrite_moves_live_bytes_and_a_deletion_ends_them() {
        let mut usage = Usage::default();
        usage.put(at(0, 64), None);
        usage.put(at(2, 80), Some(at(0, 64)));
        assert_eq!((usage.total().live_bytes, usage.file(FileSlot(0)).live_bytes), (80, 0));
        assert_eq!(usage.file(FileSlot(0)).dead_bytes(), 64);
        usage.del(FileSlot(2), 40, Some(at(2, 80)));
        let total = usage.total();
        assert_eq!((total.live_bytes, total.shadow_bytes, total.dead_bytes()), (0, 40, 144));
        assert_eq!((total.live_records, total.shadow_records, total.dead_records()), (0, 1, 2));
    }

    #[test]
    fn a_compacted_file_takes_its_dead_records_with_it() {
        let mut usage = Usage::default();
        usage.put(at(0, 64), None);
        usage.put(at(0, 72), None);
        usage.put(at(1, 80), Some(at(0, 72)));
        usage.records(FileSlot(2), 1, 64);
        usage.moved(at(0, 64), at(2, 64));
        usage.remove(FileSlot(0));
        let total = usage.total();
        assert_eq!((total.records, total.live_bytes, total.dead_bytes()), (2, 144, 0));
        assert_eq!(usage.file(FileSlot(0)), FileUsage::default());
    }
}
