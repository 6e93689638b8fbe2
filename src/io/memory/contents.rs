//! The bytes of one file.

use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use rustix::io::Errno;

/// Long enough that a file has few pages, short enough that whoever copies one keeps nobody waiting.
const PAGE_LEN: usize = 64 << 10;

/// Bytes by position, in pages, so that a file grows without being copied.
#[derive(Default)]
pub(super) struct Contents {
    /// Held for one page at a time.
    pages: RwLock<Vec<Vec<u8>>>,
}

impl Contents {
    pub(super) fn len(&self) -> u64 {
        len_of(&self.pages.read())
    }

    /// Cuts the file, or extends it with zeros.
    pub(super) fn set_len(&self, len: u64) {
        let mut pages = self.pages.write();
        extend(&mut pages, len);
        let (count, rest) = place(len);
        pages.truncate(count + usize::from(rest > 0));
        if let Some(last) = pages.last_mut().filter(|_| rest > 0) {
            last.truncate(rest);
            last.shrink_to_fit();
        }
    }

    /// How many bytes there were.
    fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let mut filled = 0;
        while filled < buf.len() {
            let (index, at) = place(offset + filled as u64);
            let pages = self.pages.read();
            let Some(bytes) = pages.get(index).and_then(|page| page.get(at..)) else { break };
            let count = bytes.len().min(buf.len() - filled);
            if count == 0 {
                break;
            }
            buf[filled..filled + count].copy_from_slice(&bytes[..count]);
            filled += count;
        }
        filled
    }

    fn write(&self, mut buf: &[u8], mut offset: u64) {
        while !buf.is_empty() {
            let (index, at) = place(offset);
            let (bytes, rest) = buf.split_at(buf.len().min(PAGE_LEN - at));
            let mut pages = self.pages.write();
            extend(&mut pages, offset);
            if index == pages.len() {
                pages.push(Vec::new());
            }
            let page = &mut pages[index];
            // ME2: `at` is no farther than the page's end.
            let (over, behind) = bytes.split_at(bytes.len().min(page.len() - at));
            page[at..at + over.len()].copy_from_slice(over);
            if index > 0 && page.capacity() < PAGE_LEN {
                page.reserve_exact(PAGE_LEN - page.len());
            }
            page.extend_from_slice(behind);
            offset += bytes.len() as u64;
            buf = rest;
        }
    }
}

fn len_of(pages: &[Vec<u8>]) -> u64 {
    let last = pages.last().map_or(0, Vec::len);
    (pages.len().saturating_sub(1) * PAGE_LEN + last) as u64
}

/// The page with this position, and where in it.
fn place(offset: u64) -> (usize, usize) {
    ((offset / PAGE_LEN as u64) as usize, (offset % PAGE_LEN as u64) as usize)
}

/// Zeros up to `len`, if the file ends before (ME2).
fn extend(pages: &mut Vec<Vec<u8>>, len: u64) {
    while len_of(pages) < len {
        let missing = len - len_of(pages);
        if pages.last().is_none_or(|last| last.len() == PAGE_LEN) {
            pages.push(Vec::new());
        }
        let last = pages.last_mut().expect("one was pushed if there was none");
        let room = (PAGE_LEN - last.len()) as u64;
        last.resize(last.len() + missing.min(room) as usize, 0);
    }
}

/// A file that is open.
pub(in crate::io) struct MemoryFile {
    contents: Arc<Contents>,
    writable: bool,
}

impl MemoryFile {
    pub(super) fn new(contents: Arc<Contents>, writable: bool) -> MemoryFile {
        MemoryFile { contents, writable }
    }

    /// A file without a name.
    pub(in crate::io) fn nameless() -> MemoryFile {
        MemoryFile::new(Arc::default(), true)
    }

    pub(in crate::io) fn len(&self) -> u64 {
        self.contents.len()
    }

    pub(in crate::io) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        self.contents.read(buf, offset)
    }

    pub(in crate::io) fn write(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.check_writable()?;
        self.contents.write(buf, offset);
        Ok(buf.len())
    }

    pub(in crate::io) fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.contents.set_len(len);
        Ok(())
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(Errno::BADF.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every write at every place of a file, against one vector. Breaks where a write begins or ends at the edge of a
    /// page, or leaves a hole.
    #[test]
    fn pages_hold_what_one_vector_would() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let (file, mut model) = (MemoryFile::nameless(), Vec::new());
            for _ in 0..random.usize(1..12) {
                let edge = PAGE_LEN * random.usize(..3);
                let offset = (edge + random.usize(..40)).saturating_sub(20);
                if random.u8(..4) == 0 {
                    file.set_len(offset as u64).unwrap();
                    model.resize(offset, 0);
                } else {
                    let len =
                        [random.usize(1..60), PAGE_LEN + random.usize(..40)][random.usize(..2)];
                    let bytes = vec![random.u8(1..); len];
                    file.write(&bytes, offset as u64).unwrap();
                    model.resize(model.len().max(offset + len), 0);
                    model[offset..offset + len].copy_from_slice(&bytes);
                }
                assert_eq!(file.len(), model.len() as u64);
                let mut found = vec![0; model.len() + 3];
                assert_eq!(file.read(&mut found, 0), model.len());
                assert_eq!(found[..model.len()], model);
                let start = random.usize(..=model.len());
                let mut found = vec![0; random.usize(1..100)];
                let count = file.read(&mut found, start as u64);
                assert_eq!(found[..count], model[start..model.len().min(start + found.len())]);
            }
        }
    }

    #[test]
    fn a_file_opened_to_be_read_is_not_written() {
        let file = MemoryFile::new(Arc::default(), false);
        assert!(file.write(b"x", 0).is_err());
        assert!(file.set_len(1).is_err());
        assert_eq!(file.len(), 0);
    }
}
