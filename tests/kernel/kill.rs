//! `kill -9` at any moment: while opening, writing, rotating, compacting, writing hints, closing.
//!
//! Without these tests "buffered writes survive a killed process" would be a guess, and a lock or a
//! half-moved log could keep the next process out.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use ringcask::{Db, Durability, Options};

use crate::child::{Child, command, say, task};
use crate::support::journal::{Journal, Phase, replay};
use crate::support::model::{Lens, Model, Version, write};
use crate::support::{
    close, counted, data_files, drivers, open, rounds, seeded, verify_sound, wait,
};

const KEYS: usize = 16;

/// As the child has it, so that the parent leaves the same files behind.
fn options(lens: Lens) -> Options {
    match lens {
        Lens::Same => Options::new().partitions(1),
        // A rotation every few dozen writes, and files to compact all the time.
        Lens::Mixed => Options::new().partitions(2).data_file_len_max(16 << 10),
    }
}

/// The child: opens the store, writes every key many times, compacting now and then, closes it, and
/// begins again. Its argument is whether to wait for the disk, how long values are, how many keys
/// there are, the version to begin after, and a seed.
pub(crate) fn writer() {
    let task = task();
    let words: Vec<&str> = task.argument.split(' ').collect();
    let [mode, lens, keys, base, seed] = words[..] else { panic!("what is {:?}?", task.argument) };
    let durability = if mode == "sync" { Durability::Sync } else { Durability::Buffered };
    let lens = if lens == "same" { Lens::Same } else { Lens::Mixed };
    let (keys, mut base): (usize, Version) = (keys.parse().unwrap(), base.parse().unwrap());
    let mut rng = fastrand::Rng::with_seed(seed.parse().unwrap());
    let options = options(lens).io(task.io).durability(durability);
    let journal = Journal::of(&task.store);
    let enter = |phase: Phase| {
        journal.phase(phase);
        say(phase.word());
    };
    loop {
        enter(Phase::Opening);
        let db = wait(options.clone().open(&task.store)).unwrap();
        for _ in 0..rng.u32(1..4) {
            enter(Phase::Writing);
            let burst = Burst { db: &db, journal: &journal, lens, durability };
            let end = base + rng.u64(1..60);
            wait(join_all((0..keys).map(|index| burst.write(index, base, end))));
            base = end;
            if lens == Lens::Mixed && rng.bool() {
                enter(Phase::Compacting);
                let end = base + 4;
                let writing = join_all((0..keys).map(|index| burst.write(index, base, end)));
                let (compacted, _) = wait(futures::future::join(db.compact(), writing));
                journal.compacted(compacted.unwrap().files_removed);
                base = end;
            }
        }
        enter(Phase::Closing);
        wait(db.close()).unwrap();
    }
}

struct Burst<'a> {
    db: &'a Db,
    journal: &'a Journal,
    lens: Lens,
    durability: Durability,
}

impl Burst<'_> {
    async fn write(&self, index: usize, base: Version, end: Version) {
        for version in base + 1..=end {
            // The journal has the order of the log: nothing is awaited before the write is sent.
            self.journal.sent(index, version);
            write(self.db, self.lens, index, version, self.durability).await.unwrap();
            self.journal.answered(index, version);
        }
    }
}

/// What a [`writer`] is told that goes on where the model is.
pub(crate) fn argument(mode: &str, lens: Lens, model: &Model, seed: u64) -> String {
    let lens = if lens == Lens::Same { "same" } else { "mixed" };
    format!("{mode} {lens} {} {} {seed}", model.key_count(), model.go_on())
}

#[derive(Default)]
struct Tally {
    kills: u64,
    phases: BTreeMap<Phase, u64>,
    answered: u64,
    unanswered: usize,
    files_compacted: u64,
}

/// One store, killed again and again.
fn killed_again_and_again(mode: &str, kills: u64, mut rng: fastrand::Rng) -> Tally {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let model = Model::new(KEYS, Lens::Mixed);
    let drivers = drivers();
    let mut tally = Tally::default();
    while tally.kills < kills {
        let io = &drivers[rng.usize(..drivers.len())];
        let mut command = command(&[], "writer", &store, io);
        let argument = argument(mode, Lens::Mixed, &model, rng.u64(..));
        command.env("RINGCASK_CHILD_ARGUMENT", argument);
        let writer = Child::start(command);
        // Half of the kills aim at what takes little of a process's time.
        let aim = [Phase::Opening, Phase::Compacting, Phase::Closing].get(rng.usize(..6));
        match aim {
            Some(phase) => {
                writer.wait_for(phase.word());
                std::thread::sleep(Duration::from_micros(rng.u64(..4_000)));
            }
            None => std::thread::sleep(Duration::from_micros(rng.u64(..60_000))),
        }
        writer.kill();
        let last = replay(&store, &model);
        tally.kills += 1;
        *tally.phases.entry(last.phase).or_default() += 1;
        tally.answered += last.answered;
        tally.files_compacted += last.files_compacted;
        // What a kill leaves is not damage.
        if rng.u8(..8) == 0 && store.join("MANIFEST").exists() {
            verify_sound(&store);
        }
        // Also proves that the lock went with its process.
        let db = open(&options(Lens::Mixed).io(io.clone()), &store);
        tally.unanswered += model.check(&db).lost;
        close(&db).unwrap();
    }
    let newest = data_files(&store).into_iter().max().unwrap();
    println!(
        "{mode}: {} kills: {:?}; {} writes acknowledged, {} in flight were not kept; {} files compacted \
         on demand; the newest file is {}",
        tally.kills,
        tally.phases,
        tally.answered,
        tally.unanswered,
        tally.files_compacted,
        newest.display()
    );
    tally
}

/// Without it a write could be acknowledged before it is in the log, or while it is in the memory of
/// the process only; and a rotation, a compaction or a close that is interrupted could take with it what
/// it was moving.
#[test]
fn i1_what_was_acknowledged_survives_any_kill() {
    let mut rng = seeded();
    let kills = rounds(250, 10_000);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let run = |mode| {
            let rng = rng.fork();
            std::thread::Builder::new()
                .name(format!("kill {mode}"))
                .spawn_scoped(scope, move || killed_again_and_again(mode, kills, rng))
                .unwrap()
        };
        let running = ["sync", "buffered"].map(run);
        running
            .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .into()
    });
    counted("kills", tallies.iter().map(|tally| tally.kills).sum());
    for phase in [Phase::Opening, Phase::Writing, Phase::Compacting, Phase::Closing] {
        let in_phase: u64 =
            tallies.iter().map(|tally| tally.phases.get(&phase).copied().unwrap_or(0)).sum();
        counted(&format!("kills while {}", phase.word()), in_phase);
        assert!(in_phase > 0, "no kill came while {}", phase.word());
    }
    assert!(tallies.iter().all(|tally| tally.answered > 0), "a writer never came to write");
    assert!(tallies.iter().any(|tally| tally.files_compacted > 0), "nothing was compacted");
}
