//! The power goes: everything that was not synced is gone.
//!
//! Without these tests the promise of [`Durability::Sync`] would rest on a simulation of file
//! systems by the people who wrote the code that relies on them.

mod random;

use std::time::Duration;

use futures::future::join_all;
use ringcask::{Db, Durability, ErrorKind, Io, Options};

use crate::child;
use crate::support::journal::{Phase, replay};
use crate::support::loop_mount::{FileSystem, LoopMount};
use crate::support::model::{Lens, Model, key_name, value_of, version_in};
use crate::support::{close, data_files, drivers, in_time, open, seeded, wait};

const FILE_SYSTEMS: [FileSystem; 2] = [FileSystem::Ext4, FileSystem::Xfs];

/// Runs a test on every file system, with every driver.
fn everywhere(test: impl Fn(&mut LoopMount, &Io)) {
    for kind in FILE_SYSTEMS {
        for io in drivers() {
            let Some(mut mount) = LoopMount::new(kind, kind.usual_len()) else { continue };
            println!("{kind:?}, {io:?}");
            test(&mut mount, &io);
        }
    }
}

/// A store that goes down with its disk; whatever close says is true then.
fn cut(mount: &mut LoopMount, db: Db) {
    mount.shut_down();
    let _the_disk_is_gone = close(&db);
    drop(db);
    mount.remount();
}

/// Without it a write could be acknowledged when it is in the page cache only.
#[test]
fn sync_acknowledged_writes_survive() {
    everywhere(|mount, io| {
        let options = Options::new().partitions(2).io(io.clone());
        let db = open(&options, &mount.store());
        let model = Model::new(40, Lens::Mixed);
        wait(async {
            for _round in 0..4 {
                let write = |index| model.write(&db, index, Durability::Sync, true);
                for outcome in join_all((0..model.key_count()).map(write)).await {
                    outcome.unwrap();
                }
            }
        });
        cut(mount, db);
        let db = open(&options, &mount.store());
        model.check(&db);
        close(&db).unwrap();
    });
}

/// Without it a close that says "done" could leave the last writes to luck, or a dropped handle
/// could lose what was acknowledged.
#[test]
fn what_close_and_sync_promise_survives() {
    everywhere(|mount, io| {
        let options = Options::new().partitions(2).io(io.clone()).durability(Durability::Buffered);
        let model = Model::new(20, Lens::Mixed);
        for promise in ["sync", "close"] {
            let db = open(&options, &mount.store());
            for index in 0..model.key_count() {
                wait(model.write(&db, index, Durability::Buffered, true)).unwrap();
            }
            match promise {
                "sync" => wait(db.sync()).unwrap(),
                _ => close(&db).unwrap(),
            }
            cut(mount, db);
            let db = open(&options, &mount.store());
            model.check(&db);
            close(&db).unwrap();
        }
    });
}

/// Without it one DSYNC write behind bytes that were never synced is acknowledged, and the power
/// cut takes those bytes and, because the log ends there, the acknowledged write as well.
#[test]
fn w2_a_sync_put_covers_the_buffered_ones_before_it() {
    everywhere(|mount, io| {
        let options = Options::new().partitions(1).io(io.clone());
        let db = open(&options, &mount.store());
        let value = vec![7_u8; 16 << 10];
        wait(async {
            // Small durable groups first, which make the engine write zeros ahead and use DSYNC.
            for number in 0..40 {
                db.put(format!("small-{number}"), "durable").await.unwrap();
            }
            for number in 0..256 {
                let key = format!("buffered-{number}");
                db.put(key, &value).durability(Durability::Buffered).await.unwrap();
            }
            db.put("last", "durable").durability(Durability::Sync).await.unwrap();
        });
        cut(mount, db);
        let db = open(&options, &mount.store());
        wait(async {
            for number in 0..256 {
                let found = db.get(format!("buffered-{number}")).await.unwrap();
                assert!(found.is_some_and(|found| found == value), "buffered-{number}");
            }
            for number in 0..40 {
                assert!(db.contains_key(format!("small-{number}")).await.unwrap());
            }
            assert!(db.contains_key("last").await.unwrap());
        });
        close(&db).unwrap();
    });
}

/// Without it a file is begun before the one in front of it is durable, and the power cut leaves a
/// log with a hole: an open that fails, or later writes without the earlier ones.
#[test]
fn w4_a_rotating_log_loses_only_its_end() {
    everywhere(|mount, io| {
        let options = Options::new()
            .partitions(1)
            .io(io.clone())
            .durability(Durability::Buffered)
            .data_file_len_max(64 << 10);
        let db = open(&options, &mount.store());
        let put_count = 600;
        wait(async {
            for number in 0..put_count {
                let value = value_of(Lens::Same, number, 1);
                db.put(key_name(number), value).await.unwrap();
            }
        });
        let files = data_files(&mount.store()).len();
        assert!(files > 2, "{files} files: the log has not rotated");
        cut(mount, db);
        let db = open(&options, &mount.store());
        let found: Vec<bool> = wait(async {
            let mut found = Vec::new();
            for number in 0..put_count {
                let value = db.get(key_name(number)).await.unwrap();
                if let Some(value) = &value {
                    version_in(Lens::Same, number, value);
                }
                found.push(value.is_some());
            }
            found
        });
        let kept = found.iter().take_while(|found| **found).count();
        assert!(found[kept..].iter().all(|found| !found), "after {kept} puts there is a hole");
        // Everything in front of the active file was synced when the log moved on.
        let sealed_len = (files - 1) * (64 << 10);
        assert!(kept * 400 >= sealed_len / 2, "only {kept} puts are left of {files} files");
        close(&db).unwrap();
    });
}

/// Without it groups that a power cut had taken back, or that lie behind the new end of the log,
/// would come alive when groups of the same length are written over their neighbours.
#[test]
fn f4_no_stale_group_comes_alive() {
    everywhere(|mount, io| {
        let options = Options::new().partitions(1).io(io.clone());
        let model = Model::new(8, Lens::Same);
        for round in 0..4 {
            let db = open(&options, &mount.store());
            wait(async {
                for number in 0..80 {
                    // Mostly in memory when the power goes, with zeros written ahead before.
                    let durable = number < 24 || number == 40 + round;
                    let durability = if durable { Durability::Sync } else { Durability::Buffered };
                    model.write(&db, number % 8, durability, durable).await.unwrap();
                }
            });
            cut(mount, db);
            let db = open(&options, &mount.store());
            model.check(&db);
            close(&db).unwrap();
            drop(db);
            // Groups of the same length, by a process that is killed.
            let mut command = child::command(&[], "writer", &mount.store(), io);
            let argument = crate::kill::argument("buffered", Lens::Same, &model, round as u64);
            command.env("RINGCASK_CHILD_ARGUMENT", argument);
            let writer = child::Child::start(command);
            writer.wait_for(Phase::Writing.word());
            std::thread::sleep(Duration::from_millis(5));
            writer.kill();
            replay(&mount.store(), &model);
            let db = open(&options, &mount.store());
            model.check(&db);
            close(&db).unwrap();
        }
    });
}

/// Without it a machine that goes down while a store is created could leave a directory that is
/// neither a store nor empty.
#[test]
fn a_creation_cut_short_starts_over() {
    for kind in FILE_SYSTEMS {
        let Some(mut mount) = LoopMount::new(kind, kind.usual_len()) else { continue };
        let mut rng = seeded();
        let mut created = 0;
        for round in 0..12 {
            let path = mount.path().join(format!("store-{round}"));
            let opening = {
                let path = path.clone();
                std::thread::spawn(move || wait(Options::new().partitions(2).open(path)))
            };
            std::thread::sleep(Duration::from_micros(rng.u64(..12_000)));
            mount.shut_down();
            let outcome = in_time("open", move || opening.join().unwrap());
            let had_opened = outcome.is_ok();
            match outcome {
                Ok(db) => drop(close(&db)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
            }
            mount.remount();
            let db = open(&Options::new().create_if_missing(!had_opened).partitions(2), &path);
            wait(db.put("key", "value")).unwrap();
            close(&db).unwrap();
            created += usize::from(had_opened);
        }
        println!("{kind:?}: 12 cuts, {created} after the store was there");
    }
}

/// Without it a recovery that is interrupted could leave a log that the next one cannot read.
#[test]
fn a_recovery_cut_short_starts_over() {
    for kind in FILE_SYSTEMS {
        let Some(mut mount) = LoopMount::new(kind, kind.usual_len()) else { continue };
        let mut rng = seeded();
        let model = Model::new(16, Lens::Mixed);
        let options = Options::new().partitions(2).data_file_len_max(64 << 10);
        for _round in 0..12 {
            let db = open(&options, &mount.store());
            model.check(&db);
            for index in 0..model.key_count() {
                wait(model.write(&db, index, Durability::Sync, true)).unwrap();
            }
            cut(&mut mount, db);
            let opening = {
                let (options, path) = (options.clone(), mount.store());
                std::thread::spawn(move || wait(options.open(path)))
            };
            std::thread::sleep(Duration::from_micros(rng.u64(..8_000)));
            mount.shut_down();
            match in_time("open", move || opening.join().unwrap()) {
                Ok(db) => drop(close(&db)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
            }
            mount.remount();
        }
        let db = open(&options, &mount.store());
        model.check(&db);
        close(&db).unwrap();
    }
}
