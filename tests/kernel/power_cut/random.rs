//! Cuts at random moments of a store's life, by the hundred: under load, while it compacts, opens, closes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{join, join_all};
use ringcask::{Compaction, Db, Durability, ErrorKind, Options};

use crate::support::loop_mount::{FileSystem, LoopMount};
use crate::support::model::{Lens, Model, is_deletion, key_name};
use crate::support::{close, counted, drivers, in_time, open, rounds, seeded, verify_sound, wait};

const WRITERS: usize = 12;
const KEYS: usize = WRITERS * 4;
const FEW_MS: Duration = Duration::from_millis(3);

/// What a store is doing when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum During {
    Load,
    Compaction,
    Opening,
    Closing,
}

#[derive(Default)]
struct Tally {
    cuts: u64,
    during: HashMap<During, u64>,
    kept: usize,
    lost: usize,
    cuts_that_lost: u64,
    compactions: u64,
    rotations: u64,
    refusals: HashMap<ErrorKind, u64>,
}

/// Without it a cut at a moment that nobody thought of could lose an acknowledged write, invent a
/// value, or leave callers waiting for a disk that is gone.
#[test]
fn i1_cuts_at_random_moments_on_ext4() {
    counted("power cuts ext4", cuts_on(FileSystem::Ext4));
}

/// Without it see above.
#[test]
fn i1_cuts_at_random_moments_on_xfs() {
    counted("power cuts xfs", cuts_on(FileSystem::Xfs));
}

fn cuts_on(kind: FileSystem) -> u64 {
    let Some(mut mount) = LoopMount::new(kind, kind.usual_len()) else { return 0 };
    let mut rng = seeded();
    let model = Arc::new(Model::new(KEYS, Lens::Mixed));
    let drivers = drivers();
    let mut tally = Tally::default();
    let cuts = rounds(330, 10_000);
    while tally.cuts < cuts {
        let io = drivers[rng.usize(..drivers.len())].clone();
        let durability = if rng.bool() { Durability::Sync } else { Durability::Interval(FEW_MS) };
        let options = Options::new()
            .partitions(2)
            .io(io)
            .durability(durability)
            .data_file_len_max(if rng.u8(..4) > 0 { 24 << 10 } else { 64 << 20 })
            .compaction(if rng.bool() { Compaction::new() } else { Compaction::off() })
            .prewrite(rng.u8(..4) > 0);
        // What a cut leaves is not damage.
        if rng.u8(..16) == 0 && tally.cuts > 0 {
            verify_sound(&mount.store());
        }
        let during = match rng.u8(..8) {
            0 => During::Opening,
            1 => During::Closing,
            2 | 3 => During::Compaction,
            _ => During::Load,
        };
        let mut round = Round { mount: &mount, model: &model, rng: &mut rng, tally: &mut tally };
        match during {
            During::Opening => round.cut_while_opening(&options),
            _ => round.cut_while_open(&options, durability, during),
        }
        *tally.during.entry(during).or_default() += 1;
        tally.cuts += 1;
        mount.remount();
    }
    let db = open(&Options::new(), &mount.store());
    model.check(&db);
    close(&db).unwrap();
    println!(
        "{kind:?}: {:?}; {} writes survived, {} cuts took {} that were not durable; {} compactions, {} \
         rotations; refused with {:?}",
        tally.during,
        tally.kept,
        tally.cuts_that_lost,
        tally.lost,
        tally.compactions,
        tally.rotations,
        tally.refusals
    );
    assert!(tally.cuts_that_lost > 0, "cuts that never take anything are none");
    assert!(tally.compactions > 0 && tally.rotations > 0, "the log never moved");
    tally.cuts
}

struct Round<'a> {
    mount: &'a LoopMount,
    model: &'a Arc<Model>,
    rng: &'a mut fastrand::Rng,
    tally: &'a mut Tally,
}

impl Round<'_> {
    /// A recovery that the next one has to begin again.
    fn cut_while_opening(&mut self, options: &Options) {
        let opening = {
            let (options, path) = (options.clone(), self.mount.store());
            std::thread::spawn(move || wait(options.open(path)))
        };
        std::thread::sleep(Duration::from_micros(self.rng.u64(..6_000)));
        self.mount.shut_down();
        match in_time("open", move || opening.join().unwrap()) {
            Ok(db) => drop(close(&db)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
        }
    }

    fn cut_while_open(&mut self, options: &Options, durability: Durability, during: During) {
        let db = open(options, &self.mount.store());
        let survived = self.model.check(&db);
        self.tally.kept += survived.kept;
        self.tally.lost += survived.lost;
        self.tally.cuts_that_lost += u64::from(survived.lost > 0);

        let power = Arc::new(AtomicBool::new(true));
        let load = {
            let (db, model, power) = (db.clone(), self.model.clone(), power.clone());
            let load = Load { durability, seed: self.rng.u64(..) };
            std::thread::spawn(move || {
                let writing = load.until_the_cut(&db, &model, &power);
                if during == During::Compaction {
                    wait(join(writing, compact_until_the_cut(&db, &power))).0
                } else {
                    wait(writing)
                }
            })
        };
        std::thread::sleep(Duration::from_micros(self.rng.u64(..40_000)));
        let closing = (during == During::Closing).then(|| {
            let db = db.clone();
            let closing = std::thread::spawn(move || wait(db.close()));
            std::thread::sleep(Duration::from_micros(self.rng.u64(..4_000)));
            closing
        });
        power.store(false, Ordering::SeqCst);
        self.mount.shut_down();
        for kind in in_time("the writers", move || load.join().unwrap()) {
            let expected = match kind {
                ErrorKind::Poisoned | ErrorKind::Io => true,
                ErrorKind::Closed => during == During::Closing,
                _ => false,
            };
            assert!(expected, "the disk is gone, and a write says {kind:?}");
            *self.tally.refusals.entry(kind).or_default() += 1;
        }
        let total = db.stats().total();
        self.tally.compactions += total.compactions;
        self.tally.rotations += total.rotations;
        expect_to_be_gone(&db);
        match closing {
            // Whether it was done before the cut is not known, so it promises nothing.
            Some(closing) => drop(in_time("close", move || closing.join().unwrap())),
            None => self.close(&db),
        }
    }

    fn close(&self, db: &Db) {
        match close(db) {
            // Nothing was written since the store was opened, or everything had been synced.
            Ok(()) => self.model.everything_is_durable(),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned), "{error}");
            }
        }
    }
}

/// A read of a disk that is gone returns, whatever it says.
fn expect_to_be_gone(db: &Db) {
    let read = {
        let db = db.clone();
        in_time("a get", move || wait(db.get(key_name(0))))
    };
    if let Err(error) = read {
        let kind = error.kind();
        let expected = matches!(kind, ErrorKind::Io | ErrorKind::Poisoned | ErrorKind::Closed);
        assert!(expected, "{error}");
    }
}

/// One compaction after the other. A partition that has nothing to compact does not notice the cut.
async fn compact_until_the_cut(db: &Db, power: &AtomicBool) {
    while power.load(Ordering::SeqCst) && db.compact().await.is_ok() {}
}

struct Load {
    durability: Durability,
    seed: u64,
}

impl Load {
    /// Tasks that write until they are refused; returns why each was.
    async fn until_the_cut(&self, db: &Db, model: &Model, power: &AtomicBool) -> Vec<ErrorKind> {
        let tasks = (0..WRITERS).map(|task| async move {
            let mut rng = fastrand::Rng::with_seed(self.seed ^ task as u64);
            loop {
                let index = task + WRITERS * rng.usize(..KEYS / WRITERS);
                if let Err(error) = self.write(db, model, power, index, &mut rng).await {
                    return error.kind();
                }
            }
        });
        join_all(tasks).await
    }

    async fn write(
        &self,
        db: &Db,
        model: &Model,
        power: &AtomicBool,
        index: usize,
        rng: &mut fastrand::Rng,
    ) -> ringcask::Result<()> {
        let durability = if rng.bool() { Durability::Sync } else { Durability::Buffered };
        let ticket = model.write(db, index, durability, false).await?;
        // A deletion is as durable as the store's default says.
        let is_deletion = is_deletion(Lens::Mixed, ticket.version);
        let asked = if is_deletion { self.durability } else { durability };
        let mut durable = asked == Durability::Sync;
        if !durable && rng.u8(..16) == 0 {
            db.sync().await?;
            durable = true;
        }
        // Nobody hears what a machine says while it goes down. The ioctl takes a while, in which ext4
        // and XFS let syncs succeed whose metadata they throw away; plain pwrite and fdatasync lose
        // the same.
        if durable && power.load(Ordering::SeqCst) {
            model.durable(ticket);
        }
        Ok(())
    }
}
