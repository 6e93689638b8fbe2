//! Memory that upkeep needs for a moment and that must not stay with the process.
//!
//! The C library's allocator keeps what threads free, up to tens of megabytes for each; but an allocation of
//! more than 32 MiB gets a mapping of its own, which goes back to the system when it is freed (mallopt(3),
//! `M_MMAP_THRESHOLD`). Of a mapping only the pages that are written take memory.

const MAPPED_LEN: usize = 33 << 20;
/// Shorter ones are not worth two system calls.
const SHORT_LEN: usize = 256 << 10;

/// An empty vector with room for `count` items.
pub(crate) fn vec<T>(count: usize) -> Vec<T> {
    let len = count.saturating_mul(size_of::<T>());
    let len = if len > SHORT_LEN { len.max(MAPPED_LEN) } else { len };
    Vec::with_capacity(len / size_of::<T>().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ones_are_mapped_and_short_ones_are_as_long_as_asked() {
        assert_eq!(vec::<u64>(100).capacity(), 100);
        assert!(vec::<u64>(100_000).capacity() * 8 >= MAPPED_LEN - 8);
        assert!(vec::<u64>(10_000_000).capacity() >= 10_000_000);
        assert_eq!(vec::<u64>(0).capacity(), 0);
    }
}
