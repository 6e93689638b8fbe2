//! One open file, shared by its writer and by readers on any thread.
//!
//! Offsets are always explicit: no file position is shared, so calls from several threads cannot
//! disturb each other. The descriptor is closed with the last `Arc`; who drops that decides on
//! which thread an unlinked file is freed (G3).

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};

use super::cached;
use super::memory::MemoryFile;
#[cfg(any(test, feature = "sim"))]
use super::sim::SimFile;
use crate::planted::{Bug, is_planted};

/// Leave nothing in the page cache that this transfer brought there.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// An open file. `Send + Sync`; every method takes `&self`.
pub(crate) struct File(Kind);

enum Kind {
    Os(std::fs::File),
    Memory(MemoryFile),
    #[cfg(any(test, feature = "sim"))]
    Sim(SimFile),
}

impl File {
    pub(super) fn os(file: std::fs::File) -> File {
        File(Kind::Os(file))
    }

    pub(super) fn memory(file: MemoryFile) -> File {
        File(Kind::Memory(file))
    }

    /// A file in memory that no directory has.
    pub(crate) fn nameless() -> File {
        File::memory(MemoryFile::nameless())
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn sim(file: SimFile) -> File {
        File(Kind::Sim(file))
    }

    /// Whether its bytes are in memory alone, where nothing has to be waited for.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.0, Kind::Memory(_))
    }

    /// The descriptor, for entries of the ring; only a file of the operating system has one.
    pub(super) fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.0 {
            Kind::Os(file) => Ok(file.as_fd()),
            Kind::Memory(_) => Err(mismatch("a file in memory has no descriptor for a ring")),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => Err(mismatch("a simulated file has no descriptor for a ring")),
        }
    }

    /// The simulated file; a real one cannot be used on the simulated disk.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn simulated(&self) -> io::Result<&SimFile> {
        match &self.0 {
            Kind::Os(_) | Kind::Memory(_) => {
                Err(mismatch("a real file cannot be used on the simulated disk"))
            }
            Kind::Sim(file) => Ok(file),
        }
    }

    /// Reads what is in the page cache, in one call that never waits for the disk (G1).
    ///
    /// The count may be short, also in the middle of the file, and is 0 at its end.
    ///
    /// # Errors
    /// `WouldBlock` if the bytes are not in memory, or not all of them exist; `EOPNOTSUPP` on file systems that cannot tell.
    pub(crate) fn read_now(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.0 {
            Kind::Os(file) => cached::read_now(file, buf, offset),
            Kind::Memory(file) => Ok(file.read(buf, offset)),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(file) => file.read_now(buf, offset),
        }
    }

    /// Reads until `buf` is full or the file ends; returns how many bytes there were. Blocks.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            let rest = &mut buf[filled..];
            let position = position_after(offset, filled)?;
            let count = match &self.0 {
                Kind::Os(file) => file.read_at(rest, position),
                Kind::Memory(file) => Ok(file.read(rest, position)),
                #[cfg(any(test, feature = "sim"))]
                Kind::Sim(file) => file.read_some(rest, position),
            };
            match count {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Writes all of `buf`. Blocks; after an error any prefix may be in the file.
    pub(crate) fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_flagged(buf, offset, false)
    }

    /// Writes all of `buf` and returns once exactly these bytes are on disk; nothing is said about
    /// bytes before them (W2). Blocks.
    pub(super) fn write_all_dsync_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_flagged(buf, offset, true)
    }

    fn write_all_flagged(&self, buf: &[u8], offset: u64, dsync: bool) -> io::Result<()> {
        let mut written = 0;
        while written < buf.len() {
            let rest = &buf[written..];
            let position = position_after(offset, written)?;
            let count = match &self.0 {
                Kind::Os(file) if dsync => {
                    let parts = [io::IoSlice::new(rest)];
                    rustix::io::pwritev2(file, &parts, position, ReadWriteFlags::DSYNC)
                        .map_err(io::Error::from)
                }
                Kind::Os(file) => file.write_at(rest, position),
                Kind::Memory(file) => file.write(rest, position),
                #[cfg(any(test, feature = "sim"))]
                Kind::Sim(file) => file.write_some(rest, position, dsync),
            };
            match count {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) if is_planted(Bug::ShortWriteIgnored) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `buf` without leaving it in the page cache once it is on disk, where kernel and
    /// file system can do that (`RWF_DONTCACHE`, Linux 6.14), and like any other write elsewhere. Blocks.
    pub(crate) fn write_all_uncached_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut written = 0;
        while written < buf.len() {
            let position = position_after(offset, written)?;
            let count = match &self.0 {
                Kind::Os(file) => {
                    let parts = [io::IoSlice::new(&buf[written..])];
                    rustix::io::pwritev2(file, &parts, position, DONTCACHE)
                }
                Kind::Memory(_) => Err(Errno::OPNOTSUPP),
                #[cfg(any(test, feature = "sim"))]
                Kind::Sim(_) => Err(Errno::OPNOTSUPP),
            };
            match count {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                    return self.write_all_at(&buf[written..], position);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// As [`read_at`](Self::read_at), without bringing anything into the page cache that was not there,
    /// where kernel and file system can do that. Also says whether all of it was there.
    pub(crate) fn read_uncached_at(
        &self,
        buf: &mut [u8],
        offset: u64,
    ) -> io::Result<(usize, bool)> {
        if self.read_now(buf, offset).is_ok_and(|count| count == buf.len()) {
            return Ok((buf.len(), true));
        }
        let mut filled = 0;
        while filled < buf.len() {
            let position = position_after(offset, filled)?;
            let count = match &self.0 {
                Kind::Os(file) => {
                    let mut parts = [io::IoSliceMut::new(&mut buf[filled..])];
                    rustix::io::preadv2(file, &mut parts, position, DONTCACHE)
                }
                Kind::Memory(_) => Err(Errno::OPNOTSUPP),
                #[cfg(any(test, feature = "sim"))]
                Kind::Sim(_) => Err(Errno::OPNOTSUPP),
            };
            match count {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                    filled += self.read_at(&mut buf[filled..], position)?;
                    break;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok((filled, false))
    }

    /// Makes data and length durable (`fdatasync`). One call: std's own repeats it on `EINTR` (U4).
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        match &self.0 {
            Kind::Os(file) => Ok(rustix::fs::fdatasync(file)?),
            Kind::Memory(_) => Ok(()),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(file) => file.sync(),
        }
    }

    /// Makes data and all metadata durable (`fsync`).
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        match &self.0 {
            Kind::Os(file) => Ok(rustix::fs::fsync(file)?),
            Kind::Memory(_) => Ok(()),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(file) => file.sync(),
        }
    }

    /// Cuts the file, or extends it with zeros. Not durable before the next sync.
    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            Kind::Os(file) => file.set_len(len),
            Kind::Memory(file) => file.set_len(len),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(file) => file.set_len(len),
        }
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        match &self.0 {
            Kind::Os(file) => Ok(file.metadata()?.len()),
            Kind::Memory(file) => Ok(file.len()),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(file) => file.len(),
        }
    }

    /// Drops the clean pages of the file from memory, so that the next read comes from the disk
    /// and recovery judges what a power cut would leave (F4). Dirty pages stay: sync first.
    pub(crate) fn drop_pages(&self) -> io::Result<()> {
        match &self.0 {
            Kind::Os(file) => Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?),
            Kind::Memory(_) => Ok(()),
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(file) => file.drop_pages(),
        }
    }

    /// Turns read-ahead off: a point read of 200 bytes should not fetch 128 KiB. Best effort.
    pub(crate) fn advise_random(&self) {
        self.advise(Advice::Random);
    }

    /// Doubles read-ahead, for recovery and compaction. Best effort.
    pub(crate) fn advise_sequential(&self) {
        self.advise(Advice::Sequential);
    }

    /// Starts to read bytes that are not in memory, without waiting for them. Best effort.
    pub(super) fn advise_needed(&self, offset: u64, len: usize) {
        self.advise_part(Advice::WillNeed, offset, NonZeroU64::new(len as u64));
    }

    fn advise(&self, advice: Advice) {
        self.advise_part(advice, 0, None);
    }

    fn advise_part(&self, advice: Advice, offset: u64, len: Option<NonZeroU64>) {
        match &self.0 {
            // A refused hint costs speed, not correctness.
            Kind::Os(file) => drop(rustix::fs::fadvise(file, offset, len, advice)),
            Kind::Memory(_) => {}
            #[cfg(any(test, feature = "sim"))]
            Kind::Sim(_) => {}
        }
    }
}

/// `offset + count`, refused where the kernel would read it as a negative number: the ring takes
/// -1 for "at the file position", which nobody here keeps.
pub(super) fn position_after(offset: u64, count: usize) -> io::Result<u64> {
    offset
        .checked_add(count as u64)
        .filter(|&position| position < i64::MAX as u64)
        .ok_or_else(|| Errno::FBIG.into())
}

/// How many descriptors this process may have open.
pub(crate) fn descriptors_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX))
}

#[cold]
fn mismatch(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, message)
}
