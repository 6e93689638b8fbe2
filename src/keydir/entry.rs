//! What the keydir keeps of one key: 20 bytes.
//!
//! ```text
//! word 0, 1   bucket hash, low and high half      chooses the bucket when a table is rebuilt
//! word 2      table hash                          chooses the table when their number grows
//! word 3, 4   place, low and high half:
//!             bits  0..8    age, zero until eviction uses it; a reader may change it (G4)
//!             bit   8       the record has an expiry
//!             bits  9..19   length code
//!             bits 19..48   offset in units of eight bytes
//!             bits 48..64   file slot
//! ```
//!
//! Halves rather than `u64` keep the alignment at four and the size at 20: with alignment eight
//! every entry would carry four bytes of padding, a sixth of the RAM per key.

use crate::len_code::{self, LEN_CODE_BITS, LEN_UNIT_BYTES};
use crate::types::KeyHash;

/// Index of a data file in its partition's table of open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileSlot(pub(crate) u16);

/// Where the newest record of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) slot: FileSlot,
    /// First byte of the record, a multiple of eight.
    pub(crate) offset: u32,
    /// Length of the record in bytes, padding included, as [`round_len`](super::round_len) gives it.
    pub(crate) len: u32,
    /// Whether the record has an expiry, which is in the record itself.
    pub(crate) has_expiry: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Entry([u32; 5]);

const _: () = assert!(size_of::<Entry>() == 20);
const _: () = assert!(align_of::<Entry>() == 4);

const EXPIRY_SHIFT: u32 = 8;
const LEN_SHIFT: u32 = EXPIRY_SHIFT + 1;
const OFFSET_SHIFT: u32 = LEN_SHIFT + LEN_CODE_BITS;
const OFFSET_BITS: u32 = 29;
const SLOT_SHIFT: u32 = OFFSET_SHIFT + OFFSET_BITS;

const _: () = assert!(SLOT_SHIFT + u16::BITS == u64::BITS);

/// No location packs to this: its length code is above the longest length.
const NOWHERE: u64 = u64::MAX;

impl Entry {
    pub(super) fn new(hash: KeyHash, location: Location) -> Self {
        Self::with_place(hash, location.pack())
    }

    /// The entry of a deleted key, which exists only while loading.
    pub(super) fn tombstone(hash: KeyHash) -> Self {
        Self::with_place(hash, NOWHERE)
    }

    fn with_place(hash: KeyHash, place: u64) -> Self {
        let (bucket_low, bucket_high) = halves(hash.bucket);
        let (place_low, place_high) = halves(place);
        Self([bucket_low, bucket_high, hash.table, place_low, place_high])
    }

    /// Whether this is the entry of `hash`; the route is equal for all keys of a partition.
    pub(super) fn is_of(&self, hash: KeyHash) -> bool {
        self.bucket() == hash.bucket && self.table() == hash.table
    }

    pub(super) fn bucket(&self) -> u64 {
        join(self.0[0], self.0[1])
    }

    pub(super) fn table(&self) -> u32 {
        self.0[2]
    }

    pub(super) fn location(&self) -> Location {
        Location::unpack(self.place())
    }

    pub(super) fn is_tombstone(&self) -> bool {
        self.place() == NOWHERE
    }

    /// Points the entry at another record; its age starts again.
    pub(super) fn set_location(&mut self, location: Location) {
        (self.0[3], self.0[4]) = halves(location.pack());
    }

    fn place(&self) -> u64 {
        join(self.0[3], self.0[4])
    }
}

impl Location {
    fn pack(self) -> u64 {
        debug_assert!(self.offset.is_multiple_of(LEN_UNIT_BYTES));
        u64::from(self.slot.0) << SLOT_SHIFT
            | u64::from(self.offset / LEN_UNIT_BYTES) << OFFSET_SHIFT
            | u64::from(len_code::encode(self.len)) << LEN_SHIFT
            | u64::from(self.has_expiry) << EXPIRY_SHIFT
    }

    fn unpack(place: u64) -> Self {
        let field = |shift: u32, bits: u32| (place >> shift) as u32 & ((1 << bits) - 1);
        Self {
            slot: FileSlot((place >> SLOT_SHIFT) as u16),
            offset: field(OFFSET_SHIFT, OFFSET_BITS) * LEN_UNIT_BYTES,
            len: len_code::decode(field(LEN_SHIFT, LEN_CODE_BITS)),
            has_expiry: field(EXPIRY_SHIFT, 1) == 1,
        }
    }
}

fn halves(whole: u64) -> (u32, u32) {
    (whole as u32, (whole >> 32) as u32)
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::len_code::LEN_MAX;

    #[test]
    fn every_field_comes_back_at_its_extremes() {
        let hash = KeyHash { bucket: 0x8123_4567_89ab_cdef, table: 0xfedc_ba98, route: 7 };
        for slot in [0, 1, u16::MAX] {
            for offset in [0, 8, u32::MAX - 7] {
                for len in [0, 8, 63 * 8, 64 * 8, LEN_MAX] {
                    for has_expiry in [false, true] {
                        let location = Location { slot: FileSlot(slot), offset, len, has_expiry };
                        let mut entry = Entry::new(hash, location);
                        assert_eq!(entry.location(), location);
                        assert!(!entry.is_tombstone());

                        entry = Entry::tombstone(hash);
                        assert!(entry.is_tombstone());
                        entry.set_location(location);
                        assert_eq!(entry.location(), location);
                        assert_eq!((entry.bucket(), entry.table()), (hash.bucket, hash.table));
                    }
                }
            }
        }
    }

    #[test]
    fn equality_ignores_the_route_and_nothing_else() {
        let hash = KeyHash { bucket: 1 << 40, table: 5, route: 1 };
        let entry = Entry::tombstone(hash);
        assert!(entry.is_of(KeyHash { route: 2, ..hash }));
        assert!(!entry.is_of(KeyHash { table: 6, ..hash }));
        assert!(!entry.is_of(KeyHash { bucket: 1 << 41, ..hash }));
    }
}
