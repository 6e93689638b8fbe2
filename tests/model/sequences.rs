//! Random sequences of everything a store can be asked for, on every kind of disk.

use crate::op::Case;
use crate::run::{On, run};
use crate::shrink::shrink;
use crate::support::{counted, seed};

/// Runs of a failing case, at most, while it is made shorter.
const SHRINK_TRIES_MAX: usize = 3000;
/// Runs of one case that must all pass for it to pass, if threads have a say in it.
const REPEATS: usize = 5;

/// How many times as much as usual is done: `RINGCASK_LONG=1` is for a machine that has the night.
pub(crate) fn effort() -> u64 {
    if std::env::var("RINGCASK_LONG").is_ok_and(|long| long == "1") { 50 } else { 1 }
}

/// Fails with the shortest sequence that shows it.
fn explain(case: &Case, on: On, what: &str) -> ! {
    let failures = |on: On, case: &Case| (0..REPEATS).filter(|_| run(case, on).is_err()).count();
    // Where a run takes no time, if it shows there.
    let (on, count) = match failures(On::Sim, case) {
        0 => (on, failures(on, case)),
        count => (On::Sim, count),
    };
    let repeats = if count == REPEATS { 1 } else { REPEATS };
    let fails = |case: &Case| (0..repeats).any(|_| run(case, on).is_err());
    let shortest = shrink(case, SHRINK_TRIES_MAX, fails);
    let now =
        (0..REPEATS).find_map(|_| run(&shortest, on).err()).unwrap_or_else(|| what.to_owned());
    panic!(
        "{what}\n\nthe shortest sequence that fails on {on:?}, with {} operations, ends with: {now}\n\n{}",
        shortest.ops.len(),
        shortest.code()
    );
}

fn random_sequences(on: On, cases: u64) {
    let random = &mut fastrand::Rng::with_seed(seed());
    let mut operations = 0;
    let cases = cases * effort();
    for _ in 0..cases {
        let case = Case::random(random, 60);
        operations += case.ops.iter().map(crate::op::Op::count).sum::<u64>();
        if let Err(what) = run(&case, on) {
            explain(&case, on, &what);
        }
    }
    counted("model cases", cases);
    counted("model operations", operations);
}

/// Whatever comes after whatever: the store is an ordered map, through closing, being dropped, being killed
/// and futures that nobody waits for.
#[test]
fn any_sequence_is_what_an_ordered_map_does() {
    random_sequences(On::Sim, 3000);
}

#[test]
fn any_sequence_is_what_an_ordered_map_does_on_a_ring() {
    random_sequences(On::Uring, 60);
}

#[test]
fn any_sequence_is_what_an_ordered_map_does_on_helper_threads() {
    random_sequences(On::Blocking, 60);
}

#[test]
fn any_sequence_is_what_an_ordered_map_does_in_memory() {
    random_sequences(On::Memory, 300);
}
