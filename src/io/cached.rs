//! Reads of what is in the page cache, and of nothing else.
//!
//! A read with `RWF_NOWAIT` does not wait. But where it finds nothing it has set the kernel to work all the same, on the
//! caller's thread: pages are allotted, for which others may have to be freed, and a request of its own goes to the
//! drive. The worker, who is asked next, has that cheaper, since its ring sends many at once. So after a read that found
//! nothing a thread's next [`ASKS`] ask first what is there, which starts nothing (`cachestat(2)`, Linux 6.5), and each
//! that finds nothing makes it as many again. Where nearly all is in memory nobody asks.

#![expect(unsafe_code, reason = "a system call that no library here wraps")]

use std::cell::Cell;
use std::fs::File;
use std::io::{IoSliceMut, Result};
use std::os::fd::AsRawFd;

use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::param::page_size;

/// After a read that found nothing, so many in a row that find all make a thread stop asking.
const ASKS: u32 = 32;

/// The number of `cachestat` (`asm-generic/unistd.h`); where it has another, no call has this one, and nobody asks.
const CACHESTAT: libc::c_long = 451;

thread_local! {
    static ASKS_LEFT: Cell<u32> = const { Cell::new(0) };
}

/// As [`File::read_now`](super::File::read_now), of a file of the operating system.
pub(super) fn read_now(file: &File, buf: &mut [u8], offset: u64) -> Result<usize> {
    let asks_left = ASKS_LEFT.get();
    if asks_left > 0 {
        if is_in_memory(file, offset, buf.len() as u64) == Some(false) {
            ASKS_LEFT.set(ASKS);
            return Err(Errno::AGAIN.into());
        }
        ASKS_LEFT.set(asks_left - 1);
    }
    let len = buf.len();
    let read = preadv2(file, &mut [IoSliceMut::new(buf)], offset, ReadWriteFlags::NOWAIT);
    if read == Err(Errno::AGAIN) || read.is_ok_and(|count| count < len) {
        ASKS_LEFT.set(ASKS);
    }
    Ok(read?)
}

/// Whether the page cache has all pages of a range; `None` where the kernel does not say.
pub(super) fn is_in_memory(file: &File, offset: u64, len: u64) -> Option<bool> {
    /// `struct cachestat_range` of `linux/mman.h`.
    #[repr(C)]
    struct Range {
        offset: u64,
        len: u64,
    }
    /// `struct cachestat` of `linux/mman.h`: counts of pages.
    #[repr(C)]
    #[derive(Default)]
    struct Found {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let page_len = page_size() as u64;
    let Some(last) = len.checked_sub(1).and_then(|rest| offset.checked_add(rest)) else {
        return Some(true); // Of nothing, all is there.
    };
    let pages = last / page_len - offset / page_len + 1;
    let (range, mut found) = (Range { offset, len }, Found::default());
    // SAFETY: the descriptor is open for as long as `file` is borrowed. The kernel reads one `Range` and writes one `Found`,
    // both of the layout that it has for them and alive until the call returns, and keeps neither pointer.
    let status = unsafe {
        libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut found, 0_u32)
    };
    (status == 0).then_some(found.cached >= pages)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    use super::*;
    use crate::io::File as StoreFile;

    /// Breaks if a thread that has found nothing goes on to let the kernel read what it only looks for, or if one
    /// for which all is there goes on asking.
    #[test]
    fn only_the_first_of_many_misses_starts_to_read() {
        const PAGES: u64 = 128;
        let page_len = page_size() as u64;
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; (PAGES * page_len) as usize], 0).unwrap();
        file.sync_all().unwrap();
        let stored = StoreFile::os(file.try_clone().unwrap());
        stored.drop_pages().unwrap();
        stored.advise_random();
        let has = |page: u64| is_in_memory(&file, page * page_len, page_len).expect("Linux 6.5");
        assert!((0..PAGES).all(|page| !has(page)), "a file system whose pages can be dropped");
        let mut bytes = [0; 100];
        let mut miss = |page: u64| {
            let error = read_now(&file, &mut bytes, page * page_len).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        };
        let is_read_soon = |page| {
            (0..500).any(|_| {
                has(page) || {
                    std::thread::sleep(Duration::from_millis(1));
                    false
                }
            })
        };

        ASKS_LEFT.set(0);
        miss(0);
        assert!(is_read_soon(0), "what makes it worth asking");
        (1..PAGES - 1).for_each(&mut miss);
        std::thread::sleep(Duration::from_millis(20));
        assert!((1..PAGES).all(|page| !has(page)));

        stored.advise_needed((PAGES - 1) * page_len, 100);
        assert!(is_read_soon(PAGES - 1), "somebody else may have it read ahead");

        for _ in 0..ASKS {
            assert_eq!(read_now(&file, &mut [0; 100], 0).unwrap(), 100);
        }
        assert_eq!(ASKS_LEFT.get(), 0);
    }

    #[test]
    fn a_range_is_in_memory_when_its_last_page_is_too() {
        let page_len = page_size() as u64;
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 4 * page_size()], 0).unwrap();
        file.sync_all().unwrap();
        let stored = StoreFile::os(file.try_clone().unwrap());
        stored.drop_pages().unwrap();
        stored.advise_random();
        file.read_exact_at(&mut [0], page_len).unwrap();
        let has = |offset, len| is_in_memory(&file, offset, len).expect("Linux 6.5");
        assert!(has(page_len, page_len) && has(2 * page_len - 1, 1) && has(0, 0));
        assert!(!has(page_len, page_len + 1) && !has(page_len - 1, 2) && !has(0, 1));
        assert_eq!(
            is_in_memory(&file, u64::MAX, 2),
            Some(true),
            "no such range, of which all is there"
        );
    }
}
