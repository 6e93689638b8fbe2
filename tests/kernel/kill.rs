//! `kill -9` at any moment: while opening, writing, rotating.
//!
//! Without these tests "buffered writes survive a killed process" would be a guess, and a lock or a
//! half-moved log could keep the next process out.

use std::time::Duration;

use futures::future::join_all;
use ringcask::{Db, Durability, Options};

use crate::child::{Child, command, say, task};
use crate::support::model::{Lens, Model, Version, write};
use crate::support::{block_on, close, drivers, open, seeded};

const KILLS: usize = 60;
const KEYS: usize = 16;

/// The child: writes every key again and again, and says what was acknowledged. It is told whether
/// to wait for the disk, how long values are, how many keys there are and the version to begin after.
pub(crate) fn writer() {
    let task = task();
    let words: Vec<&str> = task.argument.split(' ').collect();
    let [mode, lens, keys, base] = words[..] else { panic!("what is {:?}?", task.argument) };
    let durability = if mode == "sync" { Durability::Sync } else { Durability::Buffered };
    let lens = if lens == "same" { Lens::Same } else { Lens::Mixed };
    let (keys, base): (usize, Version) = (keys.parse().unwrap(), base.parse().unwrap());
    let file_len_max = if lens == Lens::Same { 64 << 20 } else { 32 << 10 };
    let options = Options::new()
        .partitions(if lens == Lens::Same { 1 } else { 2 })
        .io(task.io)
        .durability(durability)
        .data_file_len_max(file_len_max);
    block_on(async {
        let db = options.open(&task.store).await.unwrap();
        let writing = (0..keys).map(|index| write_forever(&db, lens, index, base, durability));
        join_all(writing).await;
    });
}

async fn write_forever(db: &Db, lens: Lens, index: usize, base: Version, durability: Durability) {
    // A parent that dies takes the pipe with it, which ends the child.
    for version in base + 1.. {
        write(db, lens, index, version, durability).await.unwrap();
        say(&format!("{index} {version}"));
    }
}

/// Holds the model to what a killed writer had said: every key is in the state that was
/// acknowledged last, or in the next one. Returns how many writes were acknowledged.
pub(crate) fn hold_to(model: &Model, base: Version, said: &[String]) -> u64 {
    let mut newest = vec![base; model.key_count()];
    for line in said {
        let (index, version) = line.split_once(' ').unwrap();
        newest[index.parse::<usize>().unwrap()] = version.parse().unwrap();
    }
    let mut acknowledged = 0;
    for (index, newest) in newest.into_iter().enumerate() {
        for version in base + 1..=newest + 1 {
            assert_eq!(model.attempt(index), version);
        }
        if newest > base {
            model.acknowledged(index, newest);
        }
        acknowledged += newest - base;
    }
    acknowledged
}

fn killed_again_and_again(mode: &str) {
    let mut rng = seeded();
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let model = Model::new(KEYS, Lens::Mixed);
    let drivers = drivers();
    let (mut acknowledged, mut silent) = (0, 0);
    for round in 0..KILLS {
        let base = model.newest();
        model.go_on_from(base);
        let mut command = command(&[], "writer", &store, &drivers[round % drivers.len()]);
        command.env("RINGCASK_CHILD_ARGUMENT", format!("{mode} mixed {KEYS} {base}"));
        let writer = Child::start(command);
        std::thread::sleep(Duration::from_micros(rng.u64(..60_000)));
        let heard = hold_to(&model, base, &writer.kill());
        silent += usize::from(heard == 0);
        acknowledged += heard;
        // Also proves that the lock went with its process.
        let db = open(&Options::new().partitions(2), &store);
        model.check(&db);
        close(&db).unwrap();
    }
    println!("{mode}: {KILLS} kills, {silent} before the first of {acknowledged} acknowledgements");
    assert!(acknowledged > 0, "no writer ever came to write");
}

/// Without it a group could be acknowledged before it is in the log.
#[test]
fn sync_writes_survive() {
    killed_again_and_again("sync");
}

/// Without it a buffered write could be acknowledged while it is in the memory of the process only.
#[test]
fn buffered_writes_survive() {
    killed_again_and_again("buffered");
}
