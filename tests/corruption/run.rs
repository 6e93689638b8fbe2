//! A sweep: many mutations of one layout, on all cores, with panics and memory watched.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use peak_alloc::PeakAlloc;

use crate::judge::{Outcome, judge};
use crate::layout::Layout;
use crate::mutation::Mutation;
use crate::support::counted;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A length that damage made up must never be believed: all that one thread holds for a store of some ten
/// KiB, its copies of the disk and the engine's buffers, stays below this.
const MEMORY_MAX: usize = 8 << 20;

/// Failures that are told before a sweep gives up.
const FAILURES_MAX: usize = 8;

/// Messages of panics on the engine's own threads.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// How often what came of which kind of change.
#[derive(Default)]
pub(crate) struct Table(BTreeMap<(&'static str, &'static str, Outcome), u64>);

impl Table {
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub(crate) fn of(&self, outcome: Outcome) -> u64 {
        self.0.iter().filter(|((.., other), _)| *other == outcome).map(|(_, count)| count).sum()
    }

    /// Breaks if a sweep no longer does what it is there for. One mutation alone need not.
    pub(crate) fn demand(&self, outcomes: &[Outcome]) {
        for outcome in outcomes.iter().filter(|_| asked().is_none()) {
            assert!(self.of(*outcome) > 0, "{outcome:?} never happens");
        }
    }

    pub(crate) fn add(&mut self, other: Table) {
        for (row, count) in other.0 {
            *self.0.entry(row).or_default() += count;
        }
    }

    /// Says what was done, past the capture of test output.
    pub(crate) fn tell(&self) {
        for ((layout, class, outcome), count) in &self.0 {
            println!("{layout:>10} {class:>14} {outcome:?}: {count}");
        }
        counted("corruptions", self.total());
        for outcome in Outcome::ALL {
            if self.of(outcome) > 0 {
                counted(&format!("corruptions, {}", outcome.shown()), self.of(outcome));
            }
        }
    }
}

/// Whether the long version is to run.
pub(crate) fn is_long() -> bool {
    std::env::var_os("RINGCASK_LONG").is_some_and(|value| value != "0")
}

/// One sweep at a time has all cores, and the memory to itself.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Judges every mutation; every `repair_every`th is repaired, too.
pub(crate) fn sweep(layout: &Layout, mutations: Vec<Mutation>, repair_every: usize) -> Table {
    watch_panics();
    let mutations = asked_for(layout, mutations);
    println!("{}: {} mutations", layout.name, mutations.len());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    MEMORY.reset_peak_usage();
    let memory = Watch { before: MEMORY.current_usage(), growth_max: threads * MEMORY_MAX };
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let run = || {
        let mut table = Table::default();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(mutation) = mutations.get(index) else { return table };
            if failures.lock().unwrap().len() >= FAILURES_MAX {
                return table;
            }
            let deep = index.is_multiple_of(repair_every) || mutations.len() == 1;
            match judge_watched(layout, mutation, deep, &memory) {
                Ok(outcome) => {
                    *table.0.entry((layout.name, mutation.class(), outcome)).or_default() += 1;
                }
                Err(why) => {
                    let saved = save(layout, mutation);
                    let saved = saved.display();
                    let what = format!(
                        "'{}: {mutation:?}'
  {why}
  saved in {saved}",
                        layout.name
                    );
                    failures.lock().unwrap().push(what);
                }
            }
        }
    };
    let tables: Vec<Table> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "RINGCASK_MUTATION=\n{}", failures.join("\n"));
    let mut all = Table::default();
    for table in tables {
        all.add(table);
    }
    all
}

/// The mutation that is to run alone.
fn asked() -> Option<String> {
    std::env::var("RINGCASK_MUTATION").ok()
}

/// The mutation that was asked for, if it is one of these.
fn asked_for(layout: &Layout, mut mutations: Vec<Mutation>) -> Vec<Mutation> {
    if let Some(asked) = asked() {
        mutations.retain(|mutation| format!("{}: {mutation:?}", layout.name) == asked);
    }
    mutations
}

struct Watch {
    before: usize,
    growth_max: usize,
}

fn judge_watched(
    layout: &Layout,
    mutation: &Mutation,
    deep: bool,
    memory: &Watch,
) -> Result<Outcome, String> {
    let judged = catch_unwind(AssertUnwindSafe(|| judge(layout, mutation, deep)))
        .unwrap_or_else(|_panic| Err("a panic, told above".to_owned()));
    // With several threads it may be another one's mutation: run alone, it shows.
    let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(panic) = panics.first() {
        return Err(format!("about now the engine panicked: {panic}"));
    }
    let grown = MEMORY.peak_usage().saturating_sub(memory.before);
    if grown > memory.growth_max {
        MEMORY.reset_peak_usage();
        return Err(format!("about now {grown} bytes of memory were in use"));
    }
    judged
}

/// Notes panics on threads of the engine, whoever catches them there.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            if thread.name().is_some_and(|name| name.starts_with("ringcask")) {
                PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(panic.to_string());
            }
            before(panic);
        }));
    });
}

/// Writes the changed store to where a person can look at it.
fn save(layout: &Layout, mutation: &Mutation) -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("corruption-{number}"));
    let mut image = layout.image.clone();
    mutation.apply(layout, &mut image);
    // What an earlier run left under this name would be taken for a part of the store.
    let _there_may_be_none = std::fs::remove_dir_all(&root);
    for (file, bytes) in &image {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &**bytes).unwrap();
    }
    root
}
