//! Holds a target to memory in proportion to its input: a length that is believed before it is checked
//! shows here, long before the machine runs out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What any target may take: pieces of a file, threads of a store, its mailbox and keydir.
const FIXED_BYTES: usize = 48 << 20;
/// A record of the smallest length takes some three times that when it is decoded, a vector of them that
/// grows twice as much again, and the checks keep copies.
const BYTES_PER_INPUT_BYTE: usize = 256;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn took(bytes: usize) {
    let used = USED.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(used, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        took(new_size);
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// Runs a target on an input of this length, and panics if it took more memory than that explains.
pub fn bounded(input_len: usize, run: impl FnOnce()) {
    let before = USED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    run();
    let taken = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let bound = FIXED_BYTES + BYTES_PER_INPUT_BYTE * input_len;
    assert!(taken <= bound, "{taken} bytes of memory for {input_len} bytes of input");
}
