//! The disk at hundreds of moments, while the store that writes to it goes on.
//!
//! A copy of a file system's image that shares its blocks takes two milliseconds. It is what a machine
//! that loses power at that moment leaves, as far as a loop device keeps the order of writes; unlike a
//! cut it also has what the kernel wrote back by itself, and journals in the middle of a commit.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::future::{join, join_all};
use ringcask::{Db, Durability, Options};

use crate::support::loop_mount::{FileSystem, LoopMount, Mount};
use crate::support::model::{Lens, Model, Promised, is_deletion};
use crate::support::{close, counted, drivers, open, rounds, seeded, wait};

const WRITERS: usize = 12;
const KEYS: usize = WRITERS * 4;

/// Snapshots before the store itself is closed and held to account, so that its history stays short.
const SNAPSHOTS_A_STRETCH: u64 = 15;

#[derive(Default)]
struct Tally {
    snapshots: u64,
    /// Of all writes sent before a snapshot, those that it had, and had not.
    kept: usize,
    lost: usize,
    compactions: u64,
}

/// Without it a moment at which the disk holds less than was promised, or something half done that
/// cannot be opened, would have to be met by chance.
#[test]
fn i1_a_snapshot_of_the_disk_holds_what_was_acknowledged() {
    // In memory, so that two writers and their snapshots do not wait for one drive.
    let dir = tempfile::tempdir().unwrap();
    let Some(memory) = Mount::new("tmpfs", "size=3g", &dir.path().join("memory")) else { return };
    let image = memory.path().join("image");
    let Some(outer) = LoopMount::with_image(FileSystem::Xfs, 4 << 30, image) else { return };
    let mut rng = seeded();
    let snapshots = rounds(160, 5_000);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let run = |kind| {
            let (dir, rng) = (outer.path(), rng.fork());
            std::thread::Builder::new()
                .name(format!("snapshots {kind:?}"))
                .spawn_scoped(scope, move || snapshots_of(kind, dir, snapshots, rng))
                .unwrap()
        };
        let running = [FileSystem::Ext4, FileSystem::Xfs].map(run);
        running
            .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .into()
    });
    counted("reflink snapshots", tallies.iter().map(|tally| tally.snapshots).sum());
    for tally in tallies {
        assert!(tally.lost > 0, "every write is in every snapshot, so none was taken in between");
        assert!(tally.compactions > 0, "nothing was compacted");
    }
}

fn snapshots_of(kind: FileSystem, dir: &Path, count: u64, mut rng: fastrand::Rng) -> Tally {
    let mut tally = Tally::default();
    let image = dir.join(format!("{kind:?}"));
    let Some(mount) = LoopMount::with_image(kind, kind.usual_len(), image) else { return tally };
    let model = Arc::new(Model::new(KEYS, Lens::Mixed));
    let drivers = drivers();
    while tally.snapshots < count {
        let options = Options::new()
            .partitions(2)
            .io(drivers[rng.usize(..drivers.len())].clone())
            .data_file_len_max(24 << 10)
            .prewrite(rng.bool());
        let db = open(&options, &mount.store());
        model.check(&db);
        for _ in 0..SNAPSHOTS_A_STRETCH {
            let writer = Writer::start(&db, &model, &mut rng);
            std::thread::sleep(Duration::from_micros(rng.u64(..10_000)));
            let snapshot = Snapshot::take(kind, &mount, &model);
            // What comes after the snapshot would only make checking it slower.
            writer.stop();
            snapshot.check(&model, &mut tally);
        }
        tally.compactions += db.stats().total().compactions;
        close(&db).unwrap();
        model.everything_is_durable();
    }
    println!(
        "{kind:?}: {} snapshots with {} writes, without {} that were on their way; {} compactions",
        tally.snapshots, tally.kept, tally.lost, tally.compactions
    );
    tally
}

/// A copy of the image, and what had been acknowledged before it was begun.
struct Snapshot {
    kind: FileSystem,
    image: PathBuf,
    promised: Promised,
}

impl Snapshot {
    fn take(kind: FileSystem, mount: &LoopMount, model: &Model) -> Snapshot {
        let image = mount.image().with_extension("snapshot");
        let promised = model.promised();
        let copy = File::create(&image).unwrap();
        rustix::fs::ioctl_ficlone(&copy, File::open(mount.image()).unwrap()).unwrap();
        Snapshot { kind, image, promised }
    }

    fn check(self, model: &Model, tally: &mut Tally) {
        let copy = LoopMount::of_copy(self.kind, self.image);
        let db = open(&Options::new(), &copy.store());
        let survived = model.check_copy(&db, &self.promised);
        close(&db).unwrap();
        tally.snapshots += 1;
        tally.kept += survived.kept;
        tally.lost += survived.lost;
    }
}

/// Writes until it is stopped, some durable and some not, and compacts now and then.
struct Writer {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start(db: &Db, model: &Arc<Model>, rng: &mut fastrand::Rng) -> Writer {
        let (seed, compacts) = (rng.u64(..), rng.bool());
        let stopped = Arc::new(AtomicBool::new(false));
        let thread = {
            let (db, model, stopped) = (db.clone(), model.clone(), stopped.clone());
            std::thread::spawn(move || {
                let is_stopped = || stopped.load(Ordering::SeqCst);
                let tasks = (0..WRITERS).map(|task| {
                    let rng = fastrand::Rng::with_seed(seed ^ task as u64);
                    write_on(&db, &model, task, rng, &is_stopped)
                });
                wait(join(join_all(tasks), async {
                    if compacts {
                        db.compact().await.unwrap();
                    }
                }));
            })
        };
        Writer { stopped, thread }
    }

    fn stop(self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

async fn write_on(
    db: &Db,
    model: &Model,
    task: usize,
    mut rng: fastrand::Rng,
    is_stopped: &impl Fn() -> bool,
) {
    while !is_stopped() {
        let index = task + WRITERS * rng.usize(..KEYS / WRITERS);
        let durability = if rng.u8(..4) > 0 { Durability::Sync } else { Durability::Buffered };
        let ticket = model.write(db, index, durability, false).await.unwrap();
        if durability == Durability::Sync || is_deletion(Lens::Mixed, ticket.version) {
            model.durable(ticket);
        }
    }
}
