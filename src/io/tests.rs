//! The three drivers do the same to a file, and none lets go of what the kernel still uses.

mod dropped;

use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, Waker};

use futures::future::join_all;
use futures::poll;
use parking_lot::Mutex;

use super::fs::Sharing;
use super::memory::Memory;
use super::sim::SimDisk;
use super::{Disk, Driver, File, Fs, WriteMode, probe_uring, uring_denied_hint};

/// A driver, the file system that goes with it, and a directory on that.
struct Setup {
    driver: Driver,
    fs: Fs,
    dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

fn os_setup(driver: Driver) -> Setup {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("store");
    Setup { driver, fs: Fs::os(), dir, _temporary: Some(temporary) }
}

fn sim_setup(disk: &SimDisk) -> Setup {
    let (driver, fs) = (Driver::Sim(disk.clone()), Fs::sim(disk.clone()));
    Setup { driver, fs, dir: "/store".into(), _temporary: None }
}

fn memory_setup() -> Setup {
    let (driver, fs) = (Driver::Memory, Fs::memory(Memory::new()));
    Setup { driver, fs, dir: "/store".into(), _temporary: None }
}

/// Every driver this machine has; a sandbox without `io_uring` still tests the others.
fn setups() -> Vec<Setup> {
    let pieces = SimDisk::new(7);
    pieces.short_transfers(0.5);
    let mut setups = vec![
        os_setup(Driver::Blocking),
        memory_setup(),
        sim_setup(&SimDisk::new(3)),
        sim_setup(&pieces),
    ];
    if probe_uring().is_ok() {
        setups.push(os_setup(Driver::Uring));
    }
    setups
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 31 + seed * 7 + index / 251) as u8).collect()
}

fn create(fs: &Fs, dir: &Path, name: &str) -> Arc<File> {
    fs.create_dir(dir).unwrap();
    fs.create_new(&dir.join(name)).unwrap()
}

fn read_all(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

#[test]
fn every_operation_on_every_driver() {
    for Setup { driver, fs, dir, _temporary } in setups() {
        let file = create(&fs, &dir, "a");
        let checked = Arc::clone(&file);
        driver
            .run(async move |disk: Disk| {
                let first = pattern(100_000, 1);
                let (result, back) = disk.write(&file, first.clone(), 0, WriteMode::Plain).await;
                result.unwrap();
                assert_eq!(back, first, "the buffer comes back as it went in");
                disk.sync(&file).await.unwrap();
                let (result, back) =
                    disk.write(&file, pattern(10, 2), 100_000, WriteMode::Dsync).await;
                result.unwrap();
                assert_eq!(back.len(), 10);
                assert_eq!(disk.read(&file, 100_000, 0).await.unwrap(), first);
                assert_eq!(disk.read(&file, 50, 99_995).await.unwrap().len(), 15, "cut at the end");
                assert!(disk.read(&file, 50, 1 << 30).await.unwrap().is_empty());
                let (result, _) = disk.write(&file, Vec::new(), 5, WriteMode::Dsync).await;
                result.unwrap();
                let (result, back) =
                    disk.write(&file, vec![1; 4], u64::MAX, WriteMode::Plain).await;
                assert!(result.is_err(), "-1 must not become the file position");
                assert_eq!(back, [1; 4]);
                let many = (0..300usize).map(|index| disk.read(&file, 7, index as u64 * 300));
                for (index, read) in join_all(many).await.into_iter().enumerate() {
                    assert_eq!(read.unwrap(), first[index * 300..index * 300 + 7]);
                }
                poll_fn(|cx| disk.poll_flush(cx)).await;
            })
            .unwrap();
        assert_eq!(checked.len().unwrap(), 100_010);
    }
}

#[test]
fn the_synchronous_face() {
    for Setup { fs, dir, driver: _, _temporary } in setups() {
        let deep = dir.join("partition-000");
        fs.create_dir(&deep).unwrap();
        fs.create_dir(&deep).unwrap();
        assert!(fs.create_new(&dir.join("nowhere/x")).is_err());
        assert!(fs.open_read(&deep.join("a")).is_err());
        let file = fs.create_new(&deep.join("b")).unwrap();
        let exists = fs.create_new(&deep.join("b")).map(drop).unwrap_err();
        assert_eq!(exists.kind(), io::ErrorKind::AlreadyExists);

        file.write_all_at(b"0123456789", 0).unwrap();
        file.set_len(20).unwrap();
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        file.set_len(12).unwrap();
        file.drop_pages().unwrap();
        file.advise_random();
        file.advise_sequential();
        assert_eq!(read_all(&file), b"0123456789\0\0");
        let mut buf = [0; 4];
        match file.read_now(&mut buf, 2) {
            Ok(count) => assert!((1..=4).contains(&count) && buf[0] == b'2'),
            // Evicted meanwhile, or a file system that cannot tell: what callers hop for (G2).
            Err(error) => assert!(
                matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Unsupported),
                "{error}"
            ),
        }

        fs.rename(&deep.join("b"), &deep.join("c")).unwrap();
        fs.replace_file(&deep, "FILES", b"one").unwrap();
        fs.replace_file(&deep, "FILES", b"three").unwrap();
        let names = |fs: &Fs| -> Vec<_> {
            let entries = fs.read_dir(&deep).unwrap();
            entries.into_iter().map(|entry| (entry.name, entry.is_dir, entry.len)).collect()
        };
        assert_eq!(names(&fs), [("FILES".into(), false, 5), ("c".into(), false, 12)]);
        assert!(fs.read_dir(&dir).unwrap()[0].is_dir);
        assert_eq!(fs.read_file(&deep.join("FILES"), 5).unwrap(), b"three");
        let long = fs.read_file(&deep.join("FILES"), 4).unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidData);

        assert!(fs.exists(&deep.join("c")).unwrap());
        fs.remove_file(&deep.join("c")).unwrap();
        assert!(!fs.exists(&deep.join("c")).unwrap());
        fs.sync_dir(&deep).unwrap();
        assert_eq!(read_all(&file).len(), 12, "an unlinked file lives while it is open");

        let lock = fs.lock(&dir.join("LOCK"), Sharing::Exclusive).unwrap();
        assert!(lock.is_some());
        assert!(
            fs.lock(&dir.join("LOCK"), Sharing::Exclusive).unwrap().is_none(),
            "a second opener must be told"
        );
        drop(lock);
        assert!(fs.lock(&dir.join("LOCK"), Sharing::Exclusive).unwrap().is_some());
    }
}

#[test]
fn directories_and_files_are_private_to_their_owner() {
    use std::os::unix::fs::PermissionsExt;
    let Setup { fs, dir, _temporary, .. } = os_setup(Driver::Blocking);
    drop(create(&fs, &dir, "a"));
    fs.replace_file(&dir, "b", b"").unwrap();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir.clone()), 0o700);
    assert_eq!([mode(dir.join("a")), mode(dir.join("b"))], [0o600; 2]);
}

/// U1, U3. A buffer freed under a write in flight would put the canary into the file; a driver
/// that cancels at its end would leave the file short.
#[test]
fn dropped_operations_finish_with_their_own_bytes() {
    const LEN: usize = 64 << 10;
    const COUNT: usize = 40;
    for Setup { driver, fs, dir, _temporary } in setups() {
        let file = create(&fs, &dir, "a");
        let checked = Arc::clone(&file);
        driver
            .run(async move |disk: Disk| {
                for index in 0..COUNT {
                    let offset = (index * LEN) as u64;
                    let mut op = disk.write(&file, pattern(LEN, index), offset, WriteMode::Plain);
                    let _ = poll!(&mut op);
                    drop(op);
                    let _canary = std::hint::black_box(vec![0xEE; LEN]);
                    let mut op = disk.read(&file, LEN, offset);
                    let _ = poll!(&mut op);
                }
            })
            .unwrap();
        // Short transfers end a dropped write early only on a ring; regular files do not have them.
        let bytes = read_all(&checked);
        assert_eq!(bytes.len(), COUNT * LEN);
        for (index, part) in bytes.chunks(LEN).enumerate() {
            assert!(part == pattern(LEN, index), "write {index}");
        }
    }
}

/// U2. Group commit builds its operations before it decides to start them.
#[test]
fn an_operation_that_was_never_polled_did_nothing() {
    for Setup { driver, fs, dir, _temporary } in setups() {
        let file = create(&fs, &dir, "a");
        let checked = Arc::clone(&file);
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        driver
            .run(async move |disk: Disk| {
                drop(disk.write(&file, vec![1; 10], 0, WriteMode::Plain));
                drop(disk.cold(move || flag.store(true, Ordering::SeqCst)));
            })
            .unwrap();
        assert_eq!(checked.len().unwrap(), 0);
        assert!(!ran.load(Ordering::SeqCst));
    }
}

/// U3 holds for a worker that panics, too: its operations are on the ring all the same.
#[test]
fn a_panicking_engine_leaves_no_operation_behind() {
    for Setup { driver, fs, dir, _temporary } in setups() {
        let file = create(&fs, &dir, "a");
        let checked = Arc::clone(&file);
        let run = std::panic::AssertUnwindSafe(|| {
            driver.run(async move |disk: Disk| {
                let mut op = disk.write(&file, pattern(1 << 20, 5), 0, WriteMode::Plain);
                let _ = poll!(&mut op);
                panic!("as a bug in the engine would");
            })
        });
        assert!(std::panic::catch_unwind(run).is_err());
        assert!(read_all(&checked) == pattern(1 << 20, 5));
    }
}

#[test]
fn cold_jobs_answer_and_survive_a_panic() {
    for Setup { driver, fs, dir, _temporary } in setups() {
        let made = dir.clone();
        driver
            .run(async move |disk: Disk| {
                let job = move || fs.create_dir(&made).map(|()| 7);
                assert_eq!(disk.cold(job).await.unwrap().unwrap(), 7);
                assert_eq!(disk.cold(|| panic!("as a bug in a job would")).await, None::<()>);
                assert_eq!(disk.cold(|| 8).await, Some(8));
            })
            .unwrap();
    }
}

/// The worst that the protocol of `disk.rs` allows callers to do: wake the worker in the very turn
/// in which it says it may be woken. Where the worker says so too early, the runtime never parks
/// and the first write is never submitted.
#[test]
fn a_worker_woken_in_every_turn_still_submits() {
    const POLLS_MAX: u64 = 20_000_000;
    for Setup { driver, fs, dir, _temporary } in setups() {
        let file = create(&fs, &dir, "a");
        driver
            .run(async move |disk: Disk| {
                for index in 0..100 {
                    let mut write = disk.write(&file, pattern(8, 0), index * 8, WriteMode::Plain);
                    let mut polls = 0;
                    let (result, _) = poll_fn(|cx| {
                        polls += 1;
                        assert!(polls < POLLS_MAX, "write {index} was not submitted");
                        let done = write.as_mut().poll(cx);
                        if done.is_pending() && disk.poll_flush(cx).is_ready() {
                            cx.waker().wake_by_ref();
                        }
                        done
                    })
                    .await;
                    result.unwrap();
                }
            })
            .unwrap();
    }
}

/// The protocol loses no wake-up and no write against a caller on another thread that never pauses.
#[test]
fn a_caller_that_never_pauses_does_not_starve_submissions() {
    const WRITES: u64 = 1_000;
    for Setup { driver, fs, dir, _temporary } in setups() {
        let file = create(&fs, &dir, "a");
        let checked = Arc::clone(&file);
        let bell = Arc::new(Bell::default());
        let hammered = Arc::clone(&bell);
        let hammer = std::thread::spawn(move || {
            while !hammered.done.load(Ordering::SeqCst) {
                hammered.requests.fetch_add(1, Ordering::SeqCst);
                hammered.ring();
            }
        });
        let engine_bell = Arc::clone(&bell);
        driver
            .run(async move |disk: Disk| {
                let mut written = 0;
                let mut write = None;
                poll_fn(|cx| {
                    engine_bell.wakeable.store(false, Ordering::SeqCst);
                    engine_bell.requests.swap(0, Ordering::SeqCst);
                    while written < WRITES {
                        let op = write.get_or_insert_with(|| {
                            disk.write(
                                &file,
                                pattern(8, written as usize),
                                written * 8,
                                WriteMode::Plain,
                            )
                        });
                        let Poll::Ready((result, _)) = op.as_mut().poll(cx) else { break };
                        result.unwrap();
                        write = None;
                        written += 1;
                    }
                    if written == WRITES {
                        return Poll::Ready(());
                    }
                    if disk.poll_flush(cx).is_ready() {
                        *engine_bell.waker.lock() = Some(cx.waker().clone());
                        engine_bell.wakeable.store(true, Ordering::SeqCst);
                        if engine_bell.requests.load(Ordering::SeqCst) > 0 {
                            engine_bell.ring();
                        }
                    }
                    Poll::Pending
                })
                .await;
            })
            .unwrap();
        bell.done.store(true, Ordering::SeqCst);
        hammer.join().unwrap();
        assert_eq!(checked.len().unwrap(), WRITES * 8);
    }
}

#[derive(Default)]
struct Bell {
    wakeable: AtomicBool,
    requests: AtomicU64,
    done: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Bell {
    fn ring(&self) {
        if self.wakeable.swap(false, Ordering::SeqCst)
            && let Some(waker) = self.waker.lock().as_ref()
        {
            waker.wake_by_ref();
        }
    }
}

#[test]
fn files_of_another_driver_are_refused() {
    let disk = SimDisk::new(1);
    let simulated = create(&Fs::sim(disk.clone()), Path::new("/store"), "a");
    let Setup { fs, dir, _temporary, .. } = os_setup(Driver::Blocking);
    let real = create(&fs, &dir, "a");
    let survivor = disk.kill();
    let stale = Arc::clone(&simulated);
    let on_sim = async move |disk: Disk| {
        assert!(disk.sync(&real).await.is_err());
        assert!(disk.sync(&stale).await.is_err(), "opened before the crash");
    };
    Driver::Sim(survivor).run(on_sim).unwrap();
    if probe_uring().is_ok() {
        let on_ring = async move |disk: Disk| {
            let (result, buf) = disk.write(&simulated, vec![1], 0, WriteMode::Plain).await;
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::Unsupported);
            assert_eq!(buf, [1]);
        };
        Driver::Uring.run(on_ring).unwrap();
    }
}

#[test]
fn every_refusal_of_the_ring_has_its_own_advice() {
    let hints: std::collections::BTreeSet<_> = [1, 38, 12, 24, 5]
        .map(|errno| uring_denied_hint(&io::Error::from_raw_os_error(errno)))
        .into();
    assert_eq!(hints.len(), 5);
}

/// With or without the kernel's help the bytes are the same, and a short file ends where it ends.
#[test]
fn transfers_around_the_page_cache_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let real = Fs::os().create_new(&dir.path().join("f")).unwrap();
    let simulated = Fs::sim(SimDisk::new(1)).create_new(std::path::Path::new("/f")).unwrap();
    let bytes: Vec<u8> = (0..300_000_u32).map(|index| index as u8).collect();
    for file in [real, simulated] {
        file.write_all_uncached_at(&bytes[..1000], 0).unwrap();
        file.write_all_uncached_at(&bytes[1000..], 1000).unwrap();
        file.sync_data().unwrap();
        file.drop_pages().unwrap();
        let mut read = vec![0; bytes.len() + 10];
        let (count, _) = file.read_uncached_at(&mut read, 0).unwrap();
        assert!(read[..count] == bytes);
        let mut middle = [0; 100];
        assert_eq!(file.read_uncached_at(&mut middle, 150_001).unwrap().0, 100);
        assert_eq!(middle, bytes[150_001..150_101]);
    }
}
