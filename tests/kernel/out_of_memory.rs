//! The kernel runs out of memory and kills the process that has most of it.
//!
//! Without this test a container with too little memory, which ends like that every night, could lose
//! what it had acknowledged.

use std::os::unix::process::ExitStatusExt;

use ringcask::{Io, Options};

use crate::child::{Child, command};
use crate::kill;
use crate::support::cgroup::Cgroup;
use crate::support::journal::{Phase, replay};
use crate::support::model::{Lens, Model};
use crate::support::{close, drivers, has_tool, open, seeded};

const LIMIT_BYTES: usize = 96 << 20;
const SIGKILL: i32 = 9;

/// The child: a [`kill::writer`] that eats memory as soon as its standard input ends.
pub(crate) fn hungry_writer() {
    std::thread::spawn(|| {
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut Vec::new()).unwrap();
        let mut eaten = Vec::new();
        while eaten.len() < (2 * LIMIT_BYTES) >> 20 {
            eaten.push(std::hint::black_box(vec![1_u8; 1 << 20]));
        }
        // Whoever has so much was not limited.
        std::process::exit(1);
    });
    kill::writer();
}

fn killed_by_the_kernel(io: &Io, rng: &mut fastrand::Rng) {
    let Some(group) = Cgroup::new("memory") else { return };
    group.set("memory.limit_in_bytes", &LIMIT_BYTES.to_string());
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let model = Model::new(16, Lens::Mixed);
    for round in 0..3 {
        let wrapper = group.wrapper();
        let mut command =
            command(&wrapper.each_ref().map(String::as_str), "hungry-writer", &store, io);
        let mode = if round % 2 == 0 { "sync" } else { "buffered" };
        let argument = kill::argument(mode, Lens::Mixed, &model, rng.u64(..));
        command.env("RINGCASK_CHILD_ARGUMENT", argument);
        let mut writer = Child::start(command);
        writer.wait_for(Phase::Writing.word());
        writer.release();
        let status = writer.wait();
        assert_eq!(status.signal(), Some(SIGKILL), "{status}");
        let last = replay(&store, &model);
        let db = open(&Options::new().io(io.clone()), &store);
        println!("{io:?}, {mode}: {last:?}, {:?}", model.check(&db));
        close(&db).unwrap();
    }
    let control = group.get("memory.oom_control");
    let kills = control.lines().find_map(|line| line.strip_prefix("oom_kill "));
    assert_eq!(kills, Some("3"), "somebody else killed it: {control}");
}

/// Without it see above.
#[test]
fn i1_what_was_acknowledged_survives_the_end_of_memory() {
    if has_tool("sh") {
        let mut rng = seeded();
        for io in drivers() {
            killed_by_the_kernel(&io, &mut rng);
        }
    }
}
