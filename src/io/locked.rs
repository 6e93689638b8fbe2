//! Bytes of files that stay in memory: mapped, and locked there.
//!
//! Reading them is a copy. It makes no system call, and waits for no disk: a locked page is never missing, which is why such
//! a mapping breaks neither G1 nor, with `SIGBUS`, the process where a plain one would. `mlock` returns when the pages are
//! there; only then is a mapping shown to anybody (`mlock(2)`).
//!
//! What may be locked is a file that does not change any more and does not become shorter, as a sealed file.
//!
//! Each piece is read before it is locked. A sector that the drive does not read is an error of `pread`; `mlock` tries
//! again for ever (Linux 6.18: `__mm_populate` takes a fault that dropped its lock for one that will succeed).

#![expect(unsafe_code, reason = "mapping files, and reading what is mapped")]

use std::ffi::c_void;
use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{
    MapFlags, MlockFlags, ProtFlags, mlock, mlock_with, mmap, mmap_anonymous, munmap,
};
use rustix::param::page_size;

use super::File;

/// How much is read and locked at once.
const PIECE_LEN: usize = 1 << 20;
/// The thread that does it has other things to do after so much.
const STEP_LEN: usize = 32 << 20;

/// How much memory a store may lock, and how much it does.
pub(crate) struct LockedMemory {
    len_max: u64,
    used: AtomicU64,
}

impl LockedMemory {
    pub(crate) fn new(len_max: u64) -> LockedMemory {
        LockedMemory { len_max, used: AtomicU64::new(0) }
    }

    /// Bytes that are locked, or about to be.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether there is room for the first `len` bytes of a file.
    pub(crate) fn has_room(&self, len: u64) -> bool {
        whole_pages(len).and_then(|len| self.longer(self.used(), len)).is_some()
    }

    /// What is used with so many bytes more, if that may be.
    fn longer(&self, used: u64, len: u64) -> Option<u64> {
        used.checked_add(len).filter(|used| *used <= self.len_max)
    }

    fn reserve(self: &Arc<Self>, len: u64) -> Option<Room> {
        let len = whole_pages(len)?;
        let longer = |used| self.longer(used, len);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, longer).ok()?;
        Some(Room { memory: Arc::clone(self), len })
    }
}

/// What so many bytes of a file take: memory is locked, and counted against the process's limit, by the page.
fn whole_pages(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(page_size() as u64)
}

/// A part of the memory that may be locked.
struct Room {
    memory: Arc<LockedMemory>,
    len: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// Whether this process may lock so much memory. None is locked: pages that nobody uses are not there.
///
/// # Errors
/// What the kernel says to who asks for more than `RLIMIT_MEMLOCK`, or than there are addresses.
pub(super) fn check_limit(len: u64) -> io::Result<()> {
    let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: the kernel chooses the address, so the mapping takes the place of nothing.
    let start = unsafe { mmap_anonymous(null_mut(), len, ProtFlags::READ, flags) }?;
    let mapping = Mapping::new(start, len)?;
    // SAFETY: locking changes no byte, and the mapping is there until `mapping` is dropped.
    Ok(unsafe { mlock_with(mapping.start.as_ptr(), len, MlockFlags::ONFAULT) }?)
}

/// Addresses that are this process's own until this is dropped.
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the addresses are the same to every thread, and nothing writes to them.
unsafe impl Send for Mapping {}
// SAFETY: as above; reading does not change it.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(start: *mut c_void, len: usize) -> io::Result<Mapping> {
        let start =
            NonNull::new(start).ok_or_else(|| io::Error::other("a mapping at address 0"))?;
        Ok(Mapping { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: these are the addresses that `mmap` returned, and `Locked::fill` keeps no pointer into them.
        let _always_mapped = unsafe { munmap(self.start.as_ptr(), self.len) };
    }
}

/// The first bytes of a file, locked in memory until this is dropped.
pub(crate) struct Locked {
    bytes: Bytes,
    _room: Room,
}

enum Bytes {
    Mapped(Mapping),
    /// Of a simulated file: what it was when it was locked.
    #[cfg(any(test, feature = "sim"))]
    Copy(Vec<u8>),
}

impl Bytes {
    fn of(file: &File, len: usize) -> io::Result<Bytes> {
        #[cfg(any(test, feature = "sim"))]
        if file.simulated().is_ok() {
            return Ok(Bytes::Copy(vec![0; len]));
        }
        let (descriptor, flags) = (file.descriptor()?, MapFlags::SHARED);
        // SAFETY: the kernel chooses the address, so the mapping takes the place of nothing.
        let start = unsafe { mmap(null_mut(), len, ProtFlags::READ, flags, descriptor, 0) }?;
        Ok(Bytes::Mapped(Mapping::new(start, len)?))
    }

    /// Locks a piece that lies at `offset`, a multiple of the page's length, and has just been read as `piece`.
    fn lock(&mut self, offset: usize, piece: &[u8]) -> io::Result<()> {
        match self {
            Bytes::Mapped(mapping) => {
                assert!(offset + piece.len() <= mapping.len, "a piece lies within its mapping");
                // SAFETY: `offset` is at most `mapping.len`, which is the length of one allocation.
                let start = unsafe { mapping.start.as_ptr().byte_add(offset) };
                // SAFETY: locking changes no byte, and the piece lies within the mapping.
                Ok(unsafe { mlock(start, piece.len()) }?)
            }
            #[cfg(any(test, feature = "sim"))]
            Bytes::Copy(bytes) => {
                bytes[offset..offset + piece.len()].copy_from_slice(piece);
                Ok(())
            }
        }
    }
}

impl Locked {
    /// Fills `buf` with the bytes at `offset`; false if they are not all there.
    pub(crate) fn fill(&self, buf: &mut [u8], offset: u64) -> bool {
        let len = self.len() as u64;
        let is_within = offset.checked_add(buf.len() as u64).is_some_and(|end| end <= len);
        if !is_within {
            return false;
        }
        let offset = offset as usize;
        match &self.bytes {
            Bytes::Mapped(mapping) => {
                // SAFETY: `offset` is at most `mapping.len`, which is the length of one allocation.
                let from = unsafe { mapping.start.cast::<u8>().as_ptr().add(offset) };
                // SAFETY: all of `from..from + buf.len()` lies within the mapping, which `self` keeps, and its pages
                // are locked, so they are there. `buf` is memory of Rust's own, which no mapping is part of.
                // No reference to the file's bytes exists: if another process changes them, against all
                // rules, the copy is some bytes, which no checksum will agree with.
                unsafe { std::ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len()) };
            }
            #[cfg(any(test, feature = "sim"))]
            Bytes::Copy(bytes) => buf.copy_from_slice(&bytes[offset..offset + buf.len()]),
        }
        true
    }

    fn len(&self) -> usize {
        match &self.bytes {
            Bytes::Mapped(mapping) => mapping.len,
            #[cfg(any(test, feature = "sim"))]
            Bytes::Copy(bytes) => bytes.len(),
        }
    }
}

/// Bytes that are being locked, a piece at a time.
pub(crate) struct Locking {
    file: Arc<File>,
    locked: Locked,
    done: usize,
}

impl Locking {
    /// Begins with the first `len` bytes of `file`; `None` if there is no room for them.
    ///
    /// # Errors
    /// The file is shorter, or cannot be mapped.
    pub(crate) fn begin(
        file: Arc<File>,
        len: u64,
        memory: &Arc<LockedMemory>,
    ) -> io::Result<Option<Locking>> {
        let Some(room) = memory.reserve(len) else { return Ok(None) };
        if len == 0 || file.len()? < len {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let bytes = Bytes::of(&file, len)?;
        Ok(Some(Locking { file, locked: Locked { bytes, _room: room }, done: 0 }))
    }

    /// Locks the next pieces, which are read from the disk if they have to be; true if those were the last. Blocks.
    ///
    /// # Errors
    /// The process may not lock so much, there is not so much memory, or the disk does not read it.
    pub(crate) fn step(&mut self) -> io::Result<bool> {
        let end = self.locked.len().min(self.done + STEP_LEN);
        let mut buf = vec![0; PIECE_LEN.min(end - self.done)];
        while self.done < end {
            let piece = &mut buf[..PIECE_LEN.min(end - self.done)];
            if self.file.read_at(piece, self.done as u64)? < piece.len() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            self.locked.bytes.lock(self.done, piece)?;
            self.done += piece.len();
        }
        Ok(self.is_done())
    }

    fn is_done(&self) -> bool {
        self.done == self.locked.len()
    }

    /// What [`step`](Self::step) has locked all of.
    pub(crate) fn finish(self) -> Option<Locked> {
        self.is_done().then_some(self.locked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Fs;

    fn locked(file: &Arc<File>, len: u64, memory: &Arc<LockedMemory>) -> Option<Locked> {
        let mut locking = Locking::begin(file.clone(), len, memory).unwrap()?;
        while !locking.step().unwrap() {}
        locking.finish()
    }

    #[test]
    fn bytes_that_are_locked_are_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n / 7) as u8).collect();
        let path = dir.path().join("file");
        std::fs::write(&path, &bytes).unwrap();
        let file = Fs::os().open_read(&path).unwrap();
        let memory = Arc::new(LockedMemory::new(1 << 20));
        let locked = locked(&file, 99_999, &memory).unwrap();
        for (offset, len) in [(0, 99_999), (0, 1), (4095, 2), (99_998, 1), (50_000, 0), (99_999, 0)]
        {
            let mut buf = vec![0; len];
            assert!(locked.fill(&mut buf, offset as u64));
            assert_eq!(buf, bytes[offset..offset + len]);
        }
        for (offset, len) in [(0, 100_000), (99_999, 1), (100_000, 0), (u64::MAX, 1), (u64::MAX, 0)]
        {
            assert!(!locked.fill(&mut vec![0; len], offset));
        }
        // The name may go while it is read.
        std::fs::remove_file(&path).unwrap();
        drop(file);
        let mut buf = [0; 7];
        assert!(locked.fill(&mut buf, 70_000));
        assert_eq!(buf, bytes[70_000..70_007]);
    }

    #[test]
    fn no_more_is_locked_than_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let page = page_size();
        let (len, pages) = (page as u64 + 1, 2 * page as u64);
        std::fs::write(&path, vec![7; page + 1]).unwrap();
        let file = Fs::os().open_read(&path).unwrap();
        let memory = Arc::new(LockedMemory::new(2 * pages + 1));
        let (first, second) = (locked(&file, len, &memory), locked(&file, len, &memory));
        assert!(first.is_some() && second.is_some());
        // Whole pages, as the kernel counts them.
        assert_eq!(memory.used(), 2 * pages);
        assert!(memory.has_room(0) && !memory.has_room(1));
        assert!(locked(&file, 1, &memory).is_none());
        drop(first);
        assert_eq!(memory.used(), pages);
        assert!(memory.has_room(pages) && !memory.has_room(pages + 1));
        assert!(!memory.has_room(u64::MAX));
        assert!(locked(&file, len, &memory).is_some());
        assert_eq!(memory.used(), pages);
        let too_long = Locking::begin(file.clone(), len + 1, &Arc::new(LockedMemory::new(1 << 20)));
        assert_eq!(too_long.err().map(|error| error.kind()), Some(io::ErrorKind::UnexpectedEof));
        assert_eq!(memory.used(), pages);
        // What is begun and not locked is not handed out.
        let begun = Locking::begin(file.clone(), len, &memory).unwrap().unwrap();
        assert!(begun.finish().is_none());
        assert_eq!(memory.used(), pages);
    }

    #[test]
    fn long_files_are_locked_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let len = STEP_LEN + PIECE_LEN + 1;
        let bytes: Vec<u8> = (0..len as u32).map(|n| (n / 1000) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = Fs::os().open_read(&path).unwrap();
        let memory = Arc::new(LockedMemory::new(2 * len as u64));
        let mut locking = Locking::begin(file, len as u64, &memory).unwrap().unwrap();
        assert!(!locking.step().unwrap());
        assert!(locking.step().unwrap());
        let mut buf = vec![0; len];
        assert!(locking.finish().unwrap().fill(&mut buf, 0));
        assert!(buf == bytes);
    }

    #[test]
    fn a_limit_that_no_process_has_is_an_error() {
        check_limit(4096).unwrap();
        check_limit(1 << 62).unwrap_err();
        check_limit(u64::MAX).unwrap_err();
    }
}
