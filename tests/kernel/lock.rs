//! One store, two processes.
//!
//! Without these tests two writers could share a log, or a dead process could keep a live one out.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringcask::{ErrorKind, Options};

use crate::child::{Child, command, say, task};
use crate::support::{close, defer, drivers, open, wait};

/// The child: holds the store until its standard input ends, then closes it.
pub(crate) fn holder() {
    let task = task();
    let db = wait(Options::new().partitions(2).io(task.io).open(&task.store)).unwrap();
    wait(db.put("holder", "was here")).unwrap();
    say("open");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    close(&db).unwrap();
}

/// Without it the second of two processes would write into the first one's log.
#[test]
fn a_second_process_is_refused_until_the_first_is_dead() {
    for io in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let holder = Child::start(command(&[], "holder", &store, &io));
        holder.wait_for_word();
        for _again in 0..3 {
            let error = wait(Options::new().open(&store)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
            assert!(error.to_string().contains("lock_wait"), "no cure is named: {error}");
        }
        holder.kill();
        let db = open(&Options::new(), &store);
        assert!(wait(db.contains_key("holder")).unwrap());
        close(&db).unwrap();
    }
}

/// Without it two parts of a program could write into one log.
#[test]
fn a_second_opener_in_the_same_process_is_refused() {
    for io in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let db = open(&Options::new().io(io.clone()), &store);
        wait(db.put("first", "was here")).unwrap();
        for again in drivers() {
            let error = wait(Options::new().io(again).open(&store)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
        }
        // The refusals have not let go of the lock that the first one holds.
        let error = wait(Options::new().open(&store)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
        let said = Child::start(command(&[], "refused", &store, &io)).finish();
        assert_eq!(said, ["Locked"]);
        wait(db.put("second", "too")).unwrap();
        close(&db).unwrap();
        let db = open(&Options::new(), &store);
        assert_eq!(wait(db.get("first")).unwrap().as_deref(), Some(&b"was here"[..]));
        close(&db).unwrap();
    }
}

/// The child: tries to open what its parent has open.
pub(crate) fn refused() {
    let task = task();
    let error = wait(Options::new().io(task.io).open(&task.store)).unwrap_err();
    say(&format!("{:?}", error.kind()));
}

/// Without it a rolling restart would have to poll.
#[test]
fn lock_wait_outlasts_a_closing_process() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let mut holder = Child::start(command(&[], "holder", &store, &ringcask::Io::Auto));
    holder.wait_for_word();
    let patient = Options::new().lock_wait(Duration::from_millis(20));
    let error = wait(patient.open(&store)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");

    let waiting = {
        let (patient, store) = (Options::new().lock_wait(Duration::from_secs(15)), store.clone());
        std::thread::spawn(move || open(&patient, &store))
    };
    holder.release();
    let db = waiting.join().unwrap();
    assert!(wait(db.contains_key("holder")).unwrap());
    close(&db).unwrap();
    holder.finish();
}

/// Without it a service that starts programs would now and then find its own store locked after it
/// closed it: a child holds every descriptor of its parent until it has called exec.
#[test]
fn a_closed_store_is_free_while_processes_are_started() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // A working directory makes std fork; what is started does not matter.
                    drop(
                        std::process::Command::new("/proc/self/nothing").current_dir("/").status(),
                    );
                }
            });
        }
        let _end = defer(|| stop.store(true, Ordering::Relaxed));
        for _ in 0..60 {
            let db = wait(Options::new().partitions(1).open(&store)).unwrap();
            wait(db.close()).unwrap();
        }
    });
}
