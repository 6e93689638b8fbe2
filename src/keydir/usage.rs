//! Live, shadow and dead bytes of each data file (K5).
//!
//! Live is what keydir entries point at, shadow is what tombstones take, dead is the rest. Counted
//! when a record is published, never when it is staged, so the sums agree with the keydir at every
//! moment and after every reopen.

use super::{FileSlot, Location};

/// What one data file holds, in bytes of whole records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileUsage {
    pub(crate) live_bytes: u64,
    pub(crate) live_records: u64,
    pub(crate) shadow_bytes: u64,
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
        self.change(new.slot, |usage| {
            usage.live_bytes += u64::from(new.len);
            usage.live_records += 1;
        });
        self.forget(old);
    }

    /// A tombstone of `len` bytes in `slot` deleted `old`.
    pub(crate) fn del(&mut self, slot: FileSlot, len: u32, old: Option<Location>) {
        self.shadow(slot, len);
        self.forget(old);
    }

    /// A tombstone of `len` bytes lies in `slot`.
    pub(crate) fn shadow(&mut self, slot: FileSlot, len: u32) {
        self.change(slot, |usage| usage.shadow_bytes += u64::from(len));
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.total.live_bytes
    }

    pub(crate) fn shadow_bytes(&self) -> u64 {
        self.total.shadow_bytes
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

    #[test]
    fn an_overwrite_moves_live_bytes_and_a_deletion_ends_them() {
        let at = |slot, len| Location { slot: FileSlot(slot), offset: 128, len, has_expiry: false };
        let mut usage = Usage::default();
        usage.put(at(0, 64), None);
        usage.put(at(2, 80), Some(at(0, 64)));
        assert_eq!((usage.live_bytes(), usage.files[0].live_bytes), (80, 0));
        usage.del(FileSlot(2), 40, Some(at(2, 80)));
        assert_eq!((usage.live_bytes(), usage.shadow_bytes()), (0, 40));
        assert_eq!(usage.total.live_records, 0);
    }
}
