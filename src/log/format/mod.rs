//! Bytes of data and hint files, and nothing else: encoders and decoders without any I/O.
//!
//! Everything is little-endian with explicit widths. The layout of a structure is stated once, in
//! the table at the head of its module; the constants under that table are the only offsets that
//! its encoder and its decoder use, so the two cannot drift apart.
//!
//! ```text
//! data file = data header (128) · commit group · commit group · … · closing mark (48)
//! group     = group header (48) · record · record · …
//! record    = header (32 + extension) · key · value · zeros up to a length with a code
//! ```

pub(crate) mod data_header;
pub(crate) mod group;
pub(crate) mod hint;
pub(crate) mod record;

use std::borrow::Cow;
use std::path::Path;

use crate::error::Error;
use crate::types::KeyId;

/// The newest version of the data file and of `FILES` that this build reads, and the one it writes.
pub(crate) const FORMAT_VERSION: u16 = 1;

/// Why bytes were not accepted: a clause that completes "damaged at offset 40960: …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    /// Normal flow for a reader that asks piece by piece: come back with `need` bytes, counted from
    /// the start of the slice that was handed in.
    #[error("the bytes end before the {need} that are needed")]
    Incomplete { need: usize },

    /// The bytes are something else, or nothing that was ever written.
    #[error("{what} starts with the wrong magic")]
    Magic { what: &'static str },

    /// Written by a newer build; not damage, and not to be cut or repaired by this one.
    #[error("format version {0} is newer than any this build reads")]
    NewerVersion(u32),

    /// The checksum holds and the meaning is unknown: a newer build wrote it.
    #[error("{0} is not known to this build, a newer one wrote it")]
    Unsupported(&'static str),

    /// `expected` is the checksum that was written, `found` the one of the bytes that are there.
    #[error("{what} checksum mismatch (expected {expected:08x}, found {found:08x})")]
    Checksum { what: &'static str, expected: u32, found: u32 },

    /// The bytes are sound and belong to another file or store.
    #[error("the file belongs to another {0}")]
    Foreign(&'static str),

    /// The hint is sound and was made from its data file when that was another.
    #[error("the hint does not match its data file")]
    Stale,

    /// The group is sound and does not follow the one before it.
    #[error("the commit group does not chain: {0}")]
    Unchained(&'static str),

    /// The bytes are sound, and whoever built this left out what reads them.
    #[error("it holds a value that is {what}, and this build has no cargo feature `{feature}`")]
    FeatureMissing { what: &'static str, feature: &'static str },

    /// The bytes are sound, and can be read by whoever has the key.
    #[error("it is encrypted with the key {0}, which was not given")]
    KeyMissing(KeyId),

    /// The checksum holds and the content contradicts itself.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
}

impl FormatError {
    /// Whether a newer build could read what this one cannot, so that nothing may be cut.
    pub(crate) fn is_newer(&self) -> bool {
        matches!(self, FormatError::NewerVersion(_) | FormatError::Unsupported(_))
    }

    /// What callers are told: damage at `offset` of `path`, or that another build reads it.
    #[cold]
    pub(crate) fn at(self, path: &Path, offset: u64) -> Error {
        match self {
            FormatError::FeatureMissing { feature, .. } => {
                Error::feature_missing(path, feature, self)
            }
            FormatError::KeyMissing(_) => Error::wrong_key(path, self),
            _ if self.is_newer() => Error::newer(path, self),
            _ => Error::corrupt(path, offset, self),
        }
    }

    #[cold]
    pub(crate) fn invalid(clause: impl Into<Cow<'static, str>>) -> FormatError {
        FormatError::Invalid(clause.into())
    }
}

/// Compares the checksum that was written with the one of the bytes that are there.
pub(in crate::log) fn check_crc(
    what: &'static str,
    expected: u32,
    found: u32,
) -> Result<(), FormatError> {
    if expected == found { Ok(()) } else { Err(FormatError::Checksum { what, expected, found }) }
}

/// The `N` bytes at `offset`.
#[inline]
pub(in crate::log) fn array_at<const N: usize>(
    bytes: &[u8],
    offset: usize,
) -> Result<[u8; N], FormatError> {
    match bytes.get(offset..).and_then(|rest| rest.first_chunk::<N>()) {
        Some(field) => Ok(*field),
        None => Err(FormatError::Incomplete { need: offset.saturating_add(N) }),
    }
}

#[inline]
pub(in crate::log) fn u8_at(bytes: &[u8], offset: usize) -> Result<u8, FormatError> {
    array_at(bytes, offset).map(u8::from_le_bytes)
}

#[inline]
pub(in crate::log) fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, FormatError> {
    array_at(bytes, offset).map(u16::from_le_bytes)
}

#[inline]
pub(in crate::log) fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, FormatError> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

#[inline]
pub(in crate::log) fn u64_at(bytes: &[u8], offset: usize) -> Result<u64, FormatError> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

/// Writes a field of a header that is being built in an array of its exact size.
#[inline]
pub(in crate::log) fn put<const N: usize>(header: &mut [u8], offset: usize, field: [u8; N]) {
    header[offset..offset + N].copy_from_slice(&field);
}

#[cfg(test)]
pub(in crate::log) mod tests {
    use super::*;

    /// Bytes of a hex literal; spaces and line breaks are for the reader.
    pub(in crate::log) fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// Every byte of `bytes`, changed in every bit position and to its complement, one at a time.
    ///
    /// Without this, a field that no checksum covers would pass review and then pass damage.
    pub(in crate::log) fn each_flip(bytes: &[u8], mut check: impl FnMut(usize, &[u8])) {
        let mut copy = bytes.to_vec();
        for index in 0..bytes.len() {
            for mask in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
                copy[index] ^= mask;
                check(index, &copy);
                copy[index] ^= mask;
            }
        }
    }

    #[test]
    fn fields_outside_the_bytes_say_how_many_are_needed() {
        assert_eq!(u32_at(&[1, 2, 3, 4, 5], 1), Ok(0x0504_0302));
        assert_eq!(u32_at(&[0; 5], 2), Err(FormatError::Incomplete { need: 6 }));
        assert_eq!(u64_at(&[], usize::MAX), Err(FormatError::Incomplete { need: usize::MAX }));
    }

    #[test]
    fn errors_are_one_clause() {
        let error = FormatError::Checksum { what: "record header", expected: 0x9f3c, found: 0 };
        assert_eq!(
            error.to_string(),
            "record header checksum mismatch (expected 00009f3c, found 00000000)"
        );
        assert!(FormatError::NewerVersion(2).is_newer());
        assert!(!error.is_newer());
    }
}
