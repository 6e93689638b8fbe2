//! Files that are bytes in memory, for tests and for fuzzing.

use std::io;

use super::scanner::ReadAt;

/// Hands out a few bytes at a time, as a disk may.
pub(super) struct ShortReads<'a>(pub(super) &'a [u8]);

impl ReadAt for ShortReads<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = buf.len().min(7);
        self.0.read_at(&mut buf[..len], offset)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}
