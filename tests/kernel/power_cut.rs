//! The power goes: everything that was not synced is gone.
//!
//! Without these tests the promise of [`Durability::Sync`] would rest on a simulation of file
//! systems by the people who wrote the code that relies on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use ringcask::{Db, Durability, ErrorKind, Io, Options};

use crate::child;
use crate::support::loop_mount::{FileSystem, LoopMount};
use crate::support::model::{Lens, Model, key_name, value_of, version_in};
use crate::support::{block_on, close, data_files, drivers, in_time, open, seeded};

const FILE_SYSTEMS: [FileSystem; 2] = [FileSystem::Ext4, FileSystem::Xfs];
const CUTS_UNDER_LOAD: usize = 24;
const WRITERS: usize = 12;

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
        block_on(async {
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
                block_on(model.write(&db, index, Durability::Buffered, true)).unwrap();
            }
            match promise {
                "sync" => block_on(db.sync()).unwrap(),
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
        block_on(async {
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
        block_on(async {
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
        block_on(async {
            for number in 0..put_count {
                let value = value_of(Lens::Same, number, 1);
                db.put(key_name(number), value).await.unwrap();
            }
        });
        let files = data_files(&mount.store()).len();
        assert!(files > 2, "{files} files: the log has not rotated");
        cut(mount, db);
        let db = open(&options, &mount.store());
        let found: Vec<bool> = block_on(async {
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
            block_on(async {
                for number in 0..80 {
                    // Mostly in memory when the power goes, with zeros written ahead before.
                    let durable = number < 24 || number == 40 + round;
                    let durability = if durable { Durability::Sync } else { Durability::Buffered };
                    model.write(&db, number % 8, durability, durable).await.unwrap();
                }
            });
            cut(mount, db);
            // Groups of the same length, by a process that is killed.
            let base = model.newest();
            model.go_on_from(base);
            let mut command = child::command(&[], "writer", &mount.store(), io);
            command.env("RINGCASK_CHILD_ARGUMENT", format!("buffered same 8 {base}"));
            let writer = child::Child::start(command);
            writer.wait_for_word();
            std::thread::sleep(Duration::from_millis(5));
            crate::kill::hold_to(&model, base, &writer.kill());
            let db = open(&options, &mount.store());
            model.check(&db);
            close(&db).unwrap();
        }
    });
}

/// Without it a cut at a moment that nobody thought of could lose an acknowledged write, invent a
/// value, or leave callers waiting for a disk that is gone.
#[test]
fn cuts_at_random_moments_under_load() {
    for kind in FILE_SYSTEMS {
        let Some(mut mount) = LoopMount::new(kind, kind.usual_len()) else { continue };
        let mut rng = seeded();
        let model = Arc::new(Model::new(WRITERS * 4, Lens::Mixed));
        let drivers = drivers();
        let mut kinds = std::collections::HashMap::<ErrorKind, usize>::new();
        for round in 0..CUTS_UNDER_LOAD {
            let io = drivers[round % drivers.len()].clone();
            let default = if rng.bool() { Durability::Sync } else { Durability::Interval(FEW_MS) };
            let options = Options::new()
                .io(io)
                .durability(default)
                .data_file_len_max(if rng.bool() { 48 << 10 } else { 64 << 20 })
                .prewrite(rng.u8(..4) > 0);
            let db = open(&options.clone().partitions(2), &mount.store());
            model.check(&db);
            let power = Arc::new(AtomicBool::new(true));
            let writers = {
                let (db, model, power) = (db.clone(), model.clone(), power.clone());
                let seed = rng.u64(..);
                std::thread::spawn(move || {
                    block_on(write_until_the_cut(&db, &model, default, &power, seed))
                })
            };
            std::thread::sleep(Duration::from_micros(rng.u64(..40_000)));
            power.store(false, Ordering::SeqCst);
            mount.shut_down();
            let ended = in_time("the writers", move || writers.join().unwrap());
            for kind in ended {
                assert!(
                    matches!(kind, ErrorKind::Poisoned | ErrorKind::Io),
                    "the disk is gone, and a write says {kind:?}"
                );
                *kinds.entry(kind).or_default() += 1;
            }
            let read = {
                let db = db.clone();
                in_time("a get", move || block_on(db.get(key_name(0))))
            };
            if let Err(error) = read {
                assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned), "{error}");
            }
            match close(&db) {
                // Nothing was written since the store was opened, or everything had been synced.
                Ok(()) => model.everything_is_durable(),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned), "{error}");
                }
            }
            drop(db);
            mount.remount();
        }
        let db = open(&Options::new(), &mount.store());
        model.check(&db);
        close(&db).unwrap();
        println!("{kind:?}: {CUTS_UNDER_LOAD} cuts, {} versions, {kinds:?}", model.newest());
    }
}

const FEW_MS: Duration = Duration::from_millis(3);

/// Tasks that write until they are refused; returns why each was.
async fn write_until_the_cut(
    db: &Db,
    model: &Model,
    default: Durability,
    power: &AtomicBool,
    seed: u64,
) -> Vec<ErrorKind> {
    let tasks = (0..WRITERS).map(|task| async move {
        let mut rng = fastrand::Rng::with_seed(seed ^ task as u64);
        loop {
            let index = task + WRITERS * rng.usize(..4);
            let durability = if rng.bool() { Durability::Sync } else { Durability::Buffered };
            let written = match model.write(db, index, durability, false).await {
                Ok(version) => {
                    // A deletion is as durable as the store's default says.
                    let deleted = crate::support::model::is_deletion(Lens::Mixed, version);
                    let mut durable =
                        if deleted { default } else { durability } == Durability::Sync;
                    let mut outcome = Ok(());
                    if !durable && rng.u8(..16) == 0 {
                        outcome = db.sync().await;
                        durable = outcome.is_ok();
                    }
                    // Nobody hears what a machine says while it goes down. The ioctl takes a while,
                    // in which ext4 and XFS let syncs succeed whose metadata they throw away; plain
                    // pwrite and fdatasync lose the same.
                    if durable && power.load(Ordering::SeqCst) {
                        model.acknowledged(index, version);
                    }
                    outcome
                }
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                return error.kind();
            }
        }
    });
    join_all(tasks).await
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
                std::thread::spawn(move || block_on(Options::new().partitions(2).open(path)))
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
            block_on(db.put("key", "value")).unwrap();
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
                block_on(model.write(&db, index, Durability::Sync, true)).unwrap();
            }
            cut(&mut mount, db);
            let opening = {
                let (options, path) = (options.clone(), mount.store());
                std::thread::spawn(move || block_on(options.open(path)))
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
