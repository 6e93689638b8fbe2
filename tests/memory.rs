//! How much memory a burst of large values takes; a binary of its own, because the peak is counted
//! for the whole process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use bytes::Bytes;
use futures::future::join_all;
use ringcask::{Durability, Io, Options};

const VALUE_LEN: usize = 16 << 20;
/// Each of the two partitions has one value in flight, one staged behind it, one being encoded, and one
/// that a hint's writer reads back: 128 MiB. Twice as much again for what the allocator holds on to, in an arena
/// for each thread.
const PEAK_GROWTH_MAX: u64 = 384 << 20;

/// The most memory this process has had resident, in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Without bounds in bytes, 64 puts of 16 MiB at once take a gigabyte of copies (W5).
#[test]
fn a_burst_of_large_values_takes_bounded_memory() {
    // One buffer for all, so that what grows is what the engine adds.
    let value = Bytes::from(vec![7; VALUE_LEN]);
    for io in [Io::Uring, Io::Blocking] {
        let dir = tempfile::tempdir().unwrap();
        let before = peak_bytes();
        futures::executor::block_on(async {
            let options = Options::new().partitions(2).mailbox_bytes_max(32 << 20).io(io);
            let db = options.durability(Durability::Buffered).open(dir.path()).await.unwrap();
            let puts = (0..64_u8).map(|n| db.put([n], value.clone()));
            assert!(join_all(puts).await.iter().all(Result::is_ok));
            assert_eq!(db.stats().total().keys, 64);
            for n in [0, 31, 63_u8] {
                assert!(db.get([n]).await.unwrap().unwrap() == value);
            }
            db.close().await.unwrap();
        });
        let growth = peak_bytes() - before;
        println!("peak memory grew by {} MiB", growth >> 20);
        assert!(growth < PEAK_GROWTH_MAX, "peak memory grew by {} MiB", growth >> 20);
    }
}
