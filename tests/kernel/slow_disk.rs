//! A disk that is slow, as that of a neighbour's noisy virtual machine.
//!
//! Without this test something that takes seconds instead of microseconds could be taken for something
//! that will never happen.

use futures::future::join_all;
use ringcask::{Durability, ErrorKind, Io, Options};

use crate::child::{Child, command, say, task};
use crate::support::cgroup::Cgroup;
use crate::support::loop_mount::{FileSystem, LoopMount};
use crate::support::{close, drivers, has_tool, wait};

const BYTES_PER_SEC: u64 = 2 << 20;
const VALUE_LEN: usize = 16 << 10;
const KEYS: usize = 16;
const ROUNDS: usize = 8;

/// The child: durable and buffered writes of two megabytes each, a close that has to wait for the
/// buffered ones, and an open that has to wait for the close (X1).
pub(crate) fn patient() {
    let task = task();
    let options = Options::new().partitions(1).io(task.io).data_file_len_max(1 << 20);
    let value = |round: usize, key: usize| vec![(round * KEYS + key) as u8; VALUE_LEN];
    let db = wait(options.clone().open(&task.store)).unwrap();
    for durability in [Durability::Sync, Durability::Buffered] {
        for round in 0..ROUNDS {
            let put = |key| {
                db.put(format!("{key}"), value(round, key)).durability(durability).into_future()
            };
            for outcome in wait(join_all((0..KEYS).map(put))) {
                outcome.unwrap();
            }
        }
    }
    say("written");
    let closing = {
        let db = db.clone();
        std::thread::spawn(move || close(&db))
    };
    // Refused only as long as the close has not begun.
    let reopened = loop {
        let was_closing = wait(db.contains_key("0")).is_err_and(|error| error.is_closed());
        match wait(options.clone().open(&task.store)) {
            Err(error) if error.kind() == ErrorKind::Locked && !was_closing => {}
            outcome => break outcome,
        }
    };
    closing.join().unwrap().unwrap();
    let db = reopened.unwrap();
    for key in 0..KEYS {
        let found = wait(db.get(format!("{key}"))).unwrap();
        assert!(found.is_some_and(|found| found == value(ROUNDS - 1, key)), "key {key}");
    }
    close(&db).unwrap();
    say("done");
}

fn nothing_gives_up(io: &Io) {
    let Some(mount) = LoopMount::new(FileSystem::Ext4, FileSystem::Ext4.usual_len()) else {
        return;
    };
    let Some(group) = Cgroup::new("blkio") else { return };
    let device = mount.device();
    group.set("blkio.throttle.write_bps_device", &format!("{device} {BYTES_PER_SEC}"));
    let wrapper = group.wrapper();
    let command = command(&wrapper.each_ref().map(String::as_str), "patient", &mount.store(), io);
    assert_eq!(Child::start(command).finish(), ["written", "done"]);

    let served = group.get("blkio.throttle.io_service_bytes");
    let written = served.lines().find_map(|line| line.strip_prefix(&format!("{device} Write ")));
    let written: u64 = written.expect("the device was written to").parse().unwrap();
    println!("{io:?}: {written} bytes were held back");
    assert!(written > (ROUNDS * KEYS * VALUE_LEN) as u64, "only {written} bytes were held back");
}

/// Without it see above.
#[test]
fn x1_a_slow_disk_is_waited_for() {
    if has_tool("sh") {
        drivers().iter().for_each(nothing_gives_up);
    }
}
