//! Limits of the process: descriptors, and the length of files.
//!
//! Without these tests a service with many connections would find out what the engine does without
//! descriptors when it happens.

use std::os::fd::AsRawFd;

use ringcask::{Durability, ErrorKind, Io, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::child::{Child, command, say, task};
use crate::support::{close, drivers, has_tool, wait};

fn limit(resource: Resource, current: u64) {
    setrlimit(resource, Rlimit { current: Some(current), maximum: getrlimit(resource).maximum })
        .unwrap();
}

/// The number of the next descriptor: all below are taken, which is what the limit counts.
fn next_descriptor() -> u64 {
    let next = std::fs::File::open("/proc/self").unwrap();
    u64::try_from(next.as_raw_fd()).unwrap()
}

fn descriptor_count() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn run(role: &str, io: &Io) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    Child::start(command(&[], role, &dir.path().join("store"), io)).finish()
}

/// Without it an open that runs out of descriptors could hang, panic, leak the rest of them, or
/// fail with nothing but "too many open files".
#[test]
fn an_open_without_descriptors_says_what_to_raise() {
    for io in drivers().into_iter().chain([Io::Auto]) {
        let said = run("open-with-few-descriptors", &io);
        let refused = said.iter().filter(|line| line.starts_with("refused")).count();
        println!("{io:?}: {refused} of {} refused", said.len());
        assert!(refused > 0 && refused < said.len(), "{said:#?}");
    }
}

pub(crate) fn open_with_few_descriptors() {
    let task = task();
    let options = Options::new().partitions(2).io(task.io);
    let db = wait(options.clone().open(&task.store)).unwrap();
    wait(db.put("key", "value")).unwrap();
    close(&db).unwrap();
    drop(db);
    let (idle, next) = (descriptor_count(), next_descriptor());
    for spare in 0..24 {
        limit(Resource::Nofile, next + spare);
        let opened = wait(options.clone().open(&task.store));
        limit(Resource::Nofile, 1024);
        match opened {
            Ok(db) => {
                assert_eq!(wait(db.get("key")).unwrap().as_deref(), Some(&b"value"[..]));
                close(&db).unwrap();
                say(&format!("opened with {spare}"));
            }
            Err(error) => {
                let kind = error.kind();
                assert!(matches!(kind, ErrorKind::Io | ErrorKind::IoUringUnavailable), "{error:?}");
                assert!(error.to_string().contains("ulimit -n"), "no cure is named: {error}");
                say(&format!("refused with {spare}: {error:?}"));
            }
        }
    }
    let started = std::time::Instant::now();
    while descriptor_count() > idle {
        assert!(
            started.elapsed().as_secs() < 5,
            "{idle} descriptors became {}",
            descriptor_count()
        );
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Without it a log that cannot open its next file could stop for good.
#[test]
fn a_rotation_without_descriptors_recovers() {
    for io in drivers() {
        println!("{io:?}: {:#?}", run("rotate-without-descriptors", &io));
    }
}

pub(crate) fn rotate_without_descriptors() {
    let task = task();
    let options = Options::new().partitions(1).io(task.io).data_file_len_max(16 << 10);
    let db = wait(options.clone().open(&task.store)).unwrap();
    let mut stored = Vec::new();
    // Too few for the file, for its directory, for the list.
    for round in 0..3 {
        for number in 0..40 {
            let key = format!("{round}-{number}");
            wait(db.put(&key, vec![1; 1000])).unwrap();
            stored.push(key);
        }
        limit(Resource::Nofile, next_descriptor() + round);
        let mut refused = 0;
        for number in 0..60 {
            let key = format!("{round}-{number}-tight");
            let durability = if number % 2 == 0 { Durability::Sync } else { Durability::Buffered };
            match wait(db.put(&key, vec![2; 1000]).durability(durability)) {
                Ok(()) => stored.push(key),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
                    assert!(error.to_string().contains("ulimit -n"), "no cure: {error}");
                    refused += 1;
                    if refused == 1 {
                        say(&format!("refused: {error}"));
                    }
                }
            }
        }
        assert!(refused > 30, "{refused} refused: the log went on without descriptors");
        for key in &stored {
            assert!(wait(db.get(key)).unwrap().is_some(), "{key}");
        }
        limit(Resource::Nofile, 1024);
    }
    wait(db.put("last", "value")).unwrap();
    close(&db).unwrap();
    drop(db);
    let db = wait(options.open(&task.store)).unwrap();
    for key in &stored {
        assert!(wait(db.get(key)).unwrap().is_some(), "{key} after reopening");
    }
    assert_eq!(db.stats().total().keys, stored.len() as u64 + 1);
    close(&db).unwrap();
}

/// Without it a limit on the length of files could poison a store that is only full.
#[test]
fn a_file_length_limit_refuses_writes_only() {
    if !has_tool("sh") {
        return;
    }
    for io in drivers() {
        let dir = tempfile::tempdir().unwrap();
        // The signal that comes with EFBIG would end the process; a service ignores it.
        let wrapper = ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""];
        let command = command(&wrapper, "limited-file-length", &dir.path().join("store"), &io);
        println!("{io:?}: {:#?}", Child::start(command).finish());
    }
}

pub(crate) fn limited_file_length() {
    let task = task();
    let options = Options::new().partitions(1).io(task.io);
    let db = wait(options.clone().open(&task.store)).unwrap();
    limit(Resource::Fsize, 512 << 10);
    let value = |number: usize| vec![number as u8; 10_000 + number];
    let mut stored = 0;
    let error = loop {
        assert!(stored < 1000, "there is no limit");
        match wait(db.put(stored.to_string(), value(stored))) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    assert!(error.to_string().contains("ulimit -f"), "no cure is named: {error}");
    say(&format!("after {stored}: {error}"));
    let check = |db: &ringcask::Db| {
        for number in 0..stored {
            let found = wait(db.get(number.to_string())).unwrap();
            assert!(found.is_some_and(|found| found == value(number)), "key {number}");
        }
    };
    check(&db);
    setrlimit(Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    wait(db.put("more", "value")).unwrap();
    close(&db).unwrap();
    drop(db);
    let db = wait(options.open(&task.store)).unwrap();
    check(&db);
    assert_eq!(db.stats().total().keys, stored as u64 + 1);
    close(&db).unwrap();
}
