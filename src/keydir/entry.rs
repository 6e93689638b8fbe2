//! What the keydir keeps of one key: 20 bytes.
//!
//! ```text
//! word 0, 1   bucket hash, low and high half      chooses the bucket when a table is rebuilt
//! word 2      table hash                          chooses the table when their number grows
//! word 3, 4   place, low and high half:
//!             bits  0..8    age ([`age`](super::age)), zero without eviction; a reader may change it (G4)
//!             bit   8       the record has an expiry
//!             bits  9..19   length code
//!             bits 19..48   offset in units of eight bytes
//!             bits 48..64   file slot
//! ```
//!
//! Halves rather than `u64` keep the alignment at four and the size at 20: with alignment eight
//! every entry would carry four bytes of padding, a sixth of the RAM per key.
//!
//! Word 3 is atomic for the sake of the age: readers write it while they hold no more than the read lock of
//! the table. Everything else in the word, and in the entry, changes under the write lock only, so a reader
//! that stores the word puts back what is there. Two that do it at once lose one of two ages, which
//! nobody misses. Not from `crate::sync`: nothing is ordered by it, and loom's would not fit.

use std::sync::atomic::{AtomicU32, Ordering};

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

pub(super) struct Entry {
    bucket: [u32; 2],
    table: u32,
    place_low: AtomicU32,
    place_high: u32,
}

const _: () = assert!(size_of::<Entry>() == 20);
const _: () = assert!(align_of::<Entry>() == 4);

const AGE_MASK: u32 = 0xff;
const EXPIRY_SHIFT: u32 = 8;
const LEN_SHIFT: u32 = EXPIRY_SHIFT + 1;
const OFFSET_SHIFT: u32 = LEN_SHIFT + LEN_CODE_BITS;
const OFFSET_BITS: u32 = 29;
const SLOT_SHIFT: u32 = OFFSET_SHIFT + OFFSET_BITS;

const _: () = assert!(SLOT_SHIFT + u16::BITS == u64::BITS);

/// No location packs to this: its length code is above the longest length.
const NOWHERE: u64 = u64::MAX;

impl Clone for Entry {
    fn clone(&self) -> Self {
        Self { place_low: AtomicU32::new(self.place_low()), ..*self }
    }
}

impl Entry {
    pub(super) fn new(hash: KeyHash, location: Location, age: u8) -> Self {
        Self::with_place(hash, location.pack() | u64::from(age))
    }

    /// The entry of a deleted key, which exists only while loading.
    pub(super) fn tombstone(hash: KeyHash) -> Self {
        Self::with_place(hash, NOWHERE)
    }

    fn with_place(hash: KeyHash, place: u64) -> Self {
        let (bucket_low, bucket_high) = halves(hash.bucket);
        let (place_low, place_high) = halves(place);
        Self {
            bucket: [bucket_low, bucket_high],
            table: hash.table,
            place_low: AtomicU32::new(place_low),
            place_high,
        }
    }

    /// Whether this is the entry of `hash`; the route is equal for all keys of a partition.
    pub(super) fn is_of(&self, hash: KeyHash) -> bool {
        self.bucket() == hash.bucket && self.table() == hash.table
    }

    pub(super) fn bucket(&self) -> u64 {
        join(self.bucket[0], self.bucket[1])
    }

    pub(super) fn table(&self) -> u32 {
        self.table
    }

    pub(super) fn location(&self) -> Location {
        Location::unpack(self.place())
    }

    pub(super) fn is_tombstone(&self) -> bool {
        self.place() == NOWHERE
    }

    /// Points the entry at another record of its key, and leaves its age.
    pub(super) fn set_location(&mut self, location: Location) {
        let age = self.age();
        let (place_low, place_high) = halves(location.pack() | u64::from(age));
        *self.place_low.get_mut() = place_low;
        self.place_high = place_high;
    }

    pub(super) fn age(&self) -> u8 {
        (self.place_low() & AGE_MASK) as u8
    }

    /// Writes nothing if that is its age already: the line may be shared with other readers.
    pub(super) fn set_age(&self, age: u8) {
        let place_low = self.place_low();
        let aged = place_low & !AGE_MASK | u32::from(age);
        if aged != place_low {
            self.place_low.store(aged, Ordering::Relaxed);
        }
    }

    fn place_low(&self) -> u32 {
        self.place_low.load(Ordering::Relaxed)
    }

    fn place(&self) -> u64 {
        join(self.place_low(), self.place_high)
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
                        let mut entry = Entry::new(hash, location, 7);
                        assert_eq!((entry.location(), entry.age()), (location, 7));
                        assert!(!entry.is_tombstone());
                        entry.set_age(u8::MAX);
                        assert_eq!((entry.location(), entry.age()), (location, u8::MAX));
                        let clone = entry.clone();
                        assert_eq!((clone.location(), clone.age()), (location, u8::MAX));

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
