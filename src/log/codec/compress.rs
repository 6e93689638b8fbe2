//! Compression of single values: LZ4 blocks and Zstandard frames.
//!
//! Both are complete in themselves, without a dictionary and without a checksum: the record's body checksum
//! covers the stored bytes.

use super::Method;
use crate::log::format::FormatError;
use crate::options::Compression;

/// The value compressed, however long that is; `None` if it is not to be, or cannot be.
#[cfg_attr(
    not(any(feature = "lz4", feature = "zstd")),
    expect(unused_variables, reason = "there is nothing to compress with")
)]
pub(super) fn compress(how: Compression, value: &[u8]) -> Option<(Method, Vec<u8>)> {
    match how {
        Compression::None => None,
        #[cfg(feature = "lz4")]
        Compression::Lz4 => Some((Method::Lz4, lz4_flex::block::compress(value))),
        #[cfg(feature = "zstd")]
        Compression::Zstd { level } => Some((Method::Zstd, zstd::compress(level, value)?)),
    }
}

/// What was compressed; of damaged bytes perhaps more or less than `raw_len`, which the caller looks at.
#[cfg_attr(
    not(any(feature = "lz4", feature = "zstd")),
    expect(unused_variables, reason = "there is nothing to decompress with")
)]
pub(super) fn decompress(
    method: Method,
    stored: &[u8],
    raw_len: usize,
) -> Result<Vec<u8>, FormatError> {
    match method {
        #[cfg(feature = "lz4")]
        Method::Lz4 => lz4::decompress(stored, raw_len),
        #[cfg(feature = "zstd")]
        Method::Zstd => zstd::decompress(stored, raw_len),
        _ => unreachable!("`can_decode` has been asked"),
    }
}

#[cfg(any(feature = "lz4", feature = "zstd"))]
fn damaged() -> FormatError {
    FormatError::invalid("a compressed value does not decompress to the length it claims")
}

#[cfg(feature = "lz4")]
mod lz4 {
    use super::{FormatError, damaged};

    /// One byte of an LZ4 block stands for at most this many of the value.
    const RATIO_MAX: usize = 255;

    pub(super) fn decompress(stored: &[u8], raw_len: usize) -> Result<Vec<u8>, FormatError> {
        if raw_len > stored.len().saturating_mul(RATIO_MAX) {
            return Err(damaged()); // CO2
        }
        let mut value = vec![0; raw_len];
        let len =
            lz4_flex::block::decompress_into(stored, &mut value).map_err(|_error| damaged())?;
        value.truncate(len);
        Ok(value)
    }
}

#[cfg(feature = "zstd")]
mod zstd {
    use std::cell::RefCell;
    use std::io::Read;

    use zstd::bulk::{Compressor, Decompressor};
    use zstd::stream::read::Decoder;
    use zstd::zstd_safe::compress_bound;

    use super::{FormatError, damaged};

    /// A thread keeps its contexts, hundreds of kilobytes, for the next value; for one that is longer than
    /// this a context grows by megabytes, and making one is cheap beside using it.
    const CONTEXT_KEPT_LEN_MAX: usize = 256 << 10;

    /// A value that is this many times longer than its stored form is decompressed piece by piece, into
    /// memory that grows with what comes out (CO2); up to there it gets its memory at once.
    const RATIO_AT_ONCE_MAX: usize = 256;

    /// No level that this build compresses with looks back over more than 2²³ bytes, and a frame that claims
    /// to would have its decoder take that much memory.
    const WINDOW_LOG_MAX: u32 = 23;

    thread_local! {
        static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> =
            const { RefCell::new(None) };
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }

    /// `None` if there is no memory for a context: the value is stored as it is.
    pub(super) fn compress(level: i32, value: &[u8]) -> Option<Vec<u8>> {
        if value.len() > CONTEXT_KEPT_LEN_MAX {
            return compress_with(&mut Compressor::new(level).ok()?, value);
        }
        COMPRESSOR.with_borrow_mut(|kept| match kept {
            Some((of_level, compressor)) if *of_level == level => compress_with(compressor, value),
            _ => {
                let (_, compressor) = kept.insert((level, Compressor::new(level).ok()?));
                compress_with(compressor, value)
            }
        })
    }

    fn compress_with(compressor: &mut Compressor<'_>, value: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(compress_bound(value.len()));
        compressor.compress_to_buffer(value, &mut bytes).ok()?;
        Some(bytes)
    }

    pub(super) fn decompress(stored: &[u8], raw_len: usize) -> Result<Vec<u8>, FormatError> {
        if raw_len > stored.len().saturating_mul(RATIO_AT_ONCE_MAX) {
            return decompress_in_pieces(stored, raw_len).map_err(|_error| damaged());
        }
        let mut value = Vec::with_capacity(raw_len);
        DECOMPRESSOR
            .with_borrow_mut(|kept| {
                let decompressor = match kept {
                    Some(decompressor) => decompressor,
                    none => none.insert(Decompressor::new()?),
                };
                decompressor.decompress_to_buffer(stored, &mut value)
            })
            .map_err(|_error| damaged())?;
        Ok(value)
    }

    fn decompress_in_pieces(stored: &[u8], raw_len: usize) -> std::io::Result<Vec<u8>> {
        let mut decoder = Decoder::with_buffer(stored)?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        let mut value = Vec::new();
        // One byte more, so that a longer one is noticed.
        decoder.take(raw_len as u64 + 1).read_to_end(&mut value)?;
        Ok(value)
    }
}
