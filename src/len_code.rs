//! Lengths of records in ten bits.
//!
//! A length is counted in units of eight bytes and kept as a float: the shift, then the leading
//! bits of the units. Below 64 units the shift is zero and every length is exact; above, there are
//! 32 lengths per octave, so rounding up wastes less than one part in 32. The log pads each record
//! to such a length, which is why the code is the true length and a read never asks twice.

use crate::limits;

/// Bytes per unit; records start and end at multiples of it.
pub(crate) const LEN_UNIT_BYTES: u32 = 8;

/// Longest representable length in bytes: the last step below 4 GiB.
pub(crate) const LEN_MAX: u32 = (63 << 23) * LEN_UNIT_BYTES;

/// Bits that a code occupies in an entry.
pub(crate) const LEN_CODE_BITS: u32 = 10;

/// Bits behind the leading one: 32 lengths per octave.
const MANTISSA_BITS: u32 = 5;

const _: () = assert!(LEN_MAX as usize >= limits::VALUE_LEN_MAX + (128 << 10));
const _: () = assert!(encode(LEN_MAX) < 1 << LEN_CODE_BITS);

/// Smallest representable length that holds `len` bytes.
pub(crate) const fn round_len(len: u32) -> u32 {
    debug_assert!(len <= LEN_MAX);
    let units = len.div_ceil(LEN_UNIT_BYTES);
    // Rounding up may reach the next octave; its first length has all low bits zero and is
    // representable there too.
    units.next_multiple_of(1 << shift_of(units)) * LEN_UNIT_BYTES
}

/// The code of `len`, which [`round_len`] has returned.
pub(crate) const fn encode(len: u32) -> u32 {
    debug_assert!(len <= LEN_MAX);
    debug_assert!(len.is_multiple_of(LEN_UNIT_BYTES));
    let units = len / LEN_UNIT_BYTES;
    let shift = shift_of(units);
    debug_assert!((units >> shift) << shift == units);
    // The leading bit is left in and counted as one more step, so the codes of one octave follow
    // those of the octave below it without a gap.
    (shift << MANTISSA_BITS) + (units >> shift)
}

/// The length in bytes that `code` stands for.
pub(crate) const fn decode(code: u32) -> u32 {
    let shift = (code >> MANTISSA_BITS).saturating_sub(1);
    ((code - (shift << MANTISSA_BITS)) << shift) * LEN_UNIT_BYTES
}

const fn shift_of(units: u32) -> u32 {
    (units | 1 << MANTISSA_BITS).ilog2() - MANTISSA_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records on disk are padded to these lengths: a change here is a change of the format.
    #[test]
    fn golden_lengths() {
        let triples = [
            (0, 0, 0),
            (1, 8, 1),
            (504, 504, 63),
            (505, 512, 64),
            (513, 528, 65),
            (1009, 1024, 96),
            (1025, 1056, 97),
            (65_537, 67_584, 289),
            (1 << 30, 1 << 30, 736),
            (LEN_MAX, LEN_MAX, 799),
        ];
        for (len, rounded, code) in triples {
            assert_eq!((round_len(len), encode(round_len(len))), (rounded, code), "{len}");
        }
    }

    #[test]
    fn every_code_is_the_code_of_its_length() {
        let mut below = None;
        for code in 0..=encode(LEN_MAX) {
            let len = decode(code);
            assert!(below < Some(len), "code {code} does not grow");
            assert_eq!(encode(len), code);
            assert_eq!(round_len(len), len);
            below = Some(len);
        }
        assert_eq!(below, Some(LEN_MAX));
    }

    #[test]
    fn rounding_finds_the_next_length_and_wastes_less_than_a_step() {
        for code in 0..encode(LEN_MAX) {
            let (len, next) = (decode(code), decode(code + 1));
            for between in [len + 1, len + (next - len) / 2, next - 1, next] {
                assert_eq!(round_len(between), next);
            }
            assert!(len < 64 * LEN_UNIT_BYTES || (next - len) * 32 <= len);
        }
    }

    #[test]
    fn short_lengths_are_exact_to_the_unit() {
        for len in 0..=64 * LEN_UNIT_BYTES {
            assert_eq!(round_len(len), len.next_multiple_of(LEN_UNIT_BYTES));
        }
        assert_eq!(round_len(64 * LEN_UNIT_BYTES + 1), 66 * LEN_UNIT_BYTES);
    }

    #[test]
    fn the_longest_value_fits() {
        let len = limits::VALUE_LEN_MAX as u32 + (128 << 10);
        let rounded = round_len(len);
        assert!(rounded >= len);
        assert_eq!(decode(encode(rounded)), rounded);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "units >> shift")]
    fn a_length_between_two_steps_is_refused() {
        encode(65 * LEN_UNIT_BYTES);
    }
}
