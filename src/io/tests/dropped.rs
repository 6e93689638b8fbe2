//! U1 where it could go wrong unseen: the kernel writes into a buffer whose future was dropped.
//!
//! No sanitizer sees what the kernel writes. So the reads here come from a pipe, which answers when the test
//! says so; until then every block that the allocator hands out is filled with a canary. A buffer that was
//! given back too early is among them, and the kernel's bytes are found in it.

use std::future::{poll_fn, ready};

use super::*;

const LEN: usize = 4096;
const READS: usize = 8;
const CANARIES: usize = 256;
const FROM_KERNEL: u8 = 0x5A;
const CANARY: u8 = 0xC7;

/// How far a read has come when its future is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The entry is in the queue and the kernel has not seen it.
    Pushed,
    /// The kernel has it and waits for the pipe.
    InFlight,
    /// The kernel has written, and nobody has looked at the completion.
    Completed,
}

fn fifo(dir: &Path) -> Arc<File> {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    std::fs::create_dir(dir).unwrap();
    let path = dir.join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // For reading and writing, so that neither end waits for the other.
    Fs::os().open_write(&path).unwrap()
}

fn canaries() -> Vec<Vec<u8>> {
    (0..CANARIES).map(|_| std::hint::black_box(vec![CANARY; LEN])).collect()
}

/// Writes what `READS` reads have waited for.
fn answer(dir: &Path) {
    use std::io::Write;
    let mut pipe = std::fs::OpenOptions::new().write(true).open(dir.join("fifo")).unwrap();
    for _ in 0..READS {
        pipe.write_all(&[FROM_KERNEL; LEN]).unwrap();
    }
}

/// Breaks if a dropped future gives its buffer back before the kernel is done with it.
#[test]
fn the_kernel_writes_into_no_memory_that_was_given_back() {
    probe_uring().expect("this test needs io_uring; run it where that is allowed");
    for stage in [Stage::Pushed, Stage::InFlight, Stage::Completed] {
        let Setup { driver, dir, _temporary, .. } = os_setup(Driver::Uring);
        let file = fifo(&dir);
        let blocks = driver
            .run(async move |disk: Disk| {
                let mut reads: Vec<_> = (0..READS).map(|_| disk.read(&file, LEN, 0)).collect();
                for read in &mut reads {
                    assert!(poll!(read).is_pending(), "the pipe is empty");
                }
                if stage != Stage::Pushed {
                    poll_fn(|cx| disk.poll_flush(cx)).await;
                }
                if stage == Stage::Completed {
                    answer(&dir);
                }
                drop(reads);
                let blocks = canaries();
                if stage != Stage::Completed {
                    poll_fn(|cx| disk.poll_flush(cx)).await;
                    answer(&dir);
                }
                // What is in flight completes before the driver returns (U3).
                ready(blocks).await
            })
            .unwrap();
        for block in blocks {
            assert!(block.iter().all(|byte| *byte == CANARY), "dropped when {stage:?}");
        }
    }
}

/// The test above sees what it is for: bytes that the pipe was asked for end up in the buffer of a read
/// that nobody dropped.
#[test]
fn a_read_of_the_pipe_brings_the_kernels_bytes() {
    probe_uring().expect("this test needs io_uring; run it where that is allowed");
    let Setup { driver, dir, _temporary, .. } = os_setup(Driver::Uring);
    let file = fifo(&dir);
    driver
        .run(async move |disk: Disk| {
            let mut read = disk.read(&file, LEN, 0);
            assert!(poll!(&mut read).is_pending());
            answer(&dir);
            assert!(read.await.unwrap() == [FROM_KERNEL; LEN]);
        })
        .unwrap();
}
