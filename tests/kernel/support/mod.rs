//! What the tests share: skipping loudly, seeds, deadlines, and stores opened in one line.

pub(crate) mod cgroup;
pub(crate) mod journal;
pub(crate) mod loop_mount;
pub(crate) mod model;
pub(crate) mod strace;
#[path = "../../support/wait.rs"]
mod wait;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use ringcask::{Db, ErrorKind, Io, Options};

pub(crate) use wait::{defer, until, wait};

pub(crate) const MIB: u64 = 1 << 20;

/// Nothing a test does takes this long; whatever does, hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Says that the running test, or a part of it, cannot run here; fails where it has to.
pub(crate) fn skip(why: &str) {
    let required =
        std::env::var("RINGCASK_REQUIRE_KERNEL_TESTS").is_ok_and(|required| required == "1");
    assert!(!required, "RINGCASK_REQUIRE_KERNEL_TESTS=1 asks for this test to run, but {why}");
    let current = thread::current();
    let name = current.name().unwrap_or("a test");
    // Not `eprintln`, whose output the test harness keeps to itself when a test passes.
    writeln!(std::io::stderr(), "SKIPPED: {name} because {why}").unwrap();
}

/// Says how much a suite has done, past the capture of test output: `scripts/counters.sh` collects
/// these lines, and `src/docs/durability.md` quotes them.
pub(crate) fn counted(what: &str, count: u64) {
    writeln!(std::io::stderr(), "counted: {what} = {count}").unwrap();
}

/// How often: `RINGCASK_LONG=1` asks for the runs of a night.
pub(crate) fn rounds(usual: u64, long: u64) -> u64 {
    if std::env::var("RINGCASK_LONG").is_ok_and(|long| long == "1") { long } else { usual }
}

/// Whether `tool` can be started; skips if not.
pub(crate) fn has_tool(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        skip(&format!("{tool} is not installed"));
    }
    found
}

/// Whether the process is root; skips if not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("it needs root");
    }
    root
}

/// Every driver that this machine has; skips `uring` where it is denied.
pub(crate) fn drivers() -> Vec<Io> {
    static URING: OnceLock<Option<String>> = OnceLock::new();
    let denied = URING.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        match wait(Options::new().partitions(1).io(Io::Uring).open(dir.path())) {
            Ok(db) => {
                wait(db.close()).unwrap();
                None
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::IoUringUnavailable, "{error}");
                Some(error.to_string())
            }
        }
    });
    match denied {
        None => vec![Io::Uring, Io::Blocking],
        Some(why) => {
            skip(why);
            vec![Io::Blocking]
        }
    }
}

/// Random numbers of a test, from a seed that is printed when it fails.
pub(crate) fn seeded() -> fastrand::Rng {
    let seed = match std::env::var("RINGCASK_SEED") {
        Ok(seed) => seed.parse().expect("RINGCASK_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("RINGCASK_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Runs `work` on a thread, and fails the test if it has not returned in time.
pub(crate) fn in_time<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = channel();
    let name = thread::current().name().unwrap_or_default().to_owned();
    let worker = thread::Builder::new().name(name).spawn(move || sender.send(work())).unwrap();
    match receiver.recv_timeout(PATIENCE) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => panic!("{what} did not return in {PATIENCE:?}"),
        Err(RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => unreachable!("a thread that returned has sent its outcome"),
        },
    }
}

/// Opens a store that must open.
pub(crate) fn open(options: &Options, path: &Path) -> Db {
    let (options, shown) = (options.clone(), path.to_owned());
    let opened = in_time("open", move || wait(options.open(shown)));
    opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Closes a store that may have failed before, which close then says.
pub(crate) fn close(db: &Db) -> ringcask::Result<()> {
    let db = db.clone();
    in_time("close", move || wait(db.close()))
}

/// Holds a store that is not open to be without damage, whatever was interrupted.
pub(crate) fn verify_sound(store: &Path) {
    let report = wait(Db::verify(store)).unwrap();
    assert!(report.is_sound(), "{}: {report:?}", store.display());
}

/// All files that hold records, of all partitions.
pub(crate) fn data_files(store: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for partition in std::fs::read_dir(store).unwrap() {
        let partition = partition.unwrap().path();
        if partition.is_dir() {
            let files = std::fs::read_dir(partition).unwrap().map(|file| file.unwrap().path());
            found.extend(files.filter(|file| file.extension().is_some_and(|ext| ext == "data")));
        }
    }
    found
}
