//! Bytes and sectors that are not what was written.

use std::sync::OnceLock;

use crate::judge::Outcome;
use crate::layout::{End, Layout, Plan};
use crate::mutation::Mutation;
use crate::run::{Table, is_long, sweep, turn};
use crate::support::seed;
use crate::sweeps::{flips, lengths, sectors};

/// One in so many changed stores is repaired, too.
pub(crate) const REPAIR_EVERY: usize = 16;

/// One partition that was closed, and has hints.
pub(crate) const CLOSED: Plan = Plan {
    name: "closed",
    is_variant: false,
    partitions: 1,
    end: End::Closed,
    with_hints: true,
    with_long_keys: false,
    is_compressed: false,
    is_encrypted: false,
    rounds: 1,
};

const KILLED: Plan = Plan { name: "killed", is_variant: true, end: End::Killed, ..CLOSED };

const UNSYNCED: Plan = Plan {
    name: "unsynced",
    is_variant: true,
    end: End::KilledUnsynced,
    with_hints: false,
    ..CLOSED
};

/// Two partitions, and data files that opening has to read, with batches over both.
const TWO: Plan =
    Plan { name: "two", is_variant: true, partitions: 2, with_hints: false, ..CLOSED };

/// Keys as long as they may be, in data files and in hints.
const LONG_KEYS: Plan =
    Plan { name: "long keys", is_variant: true, with_long_keys: true, ..CLOSED };

/// Values that are not what is stored.
const COMPRESSED: Plan =
    Plan { name: "compressed", is_variant: true, is_compressed: true, ..CLOSED };

/// Keys and values are not what is stored, and hints are in pages.
const ENCRYPTED: Plan = Plan {
    name: "encrypted",
    is_variant: true,
    partitions: 2,
    is_compressed: true,
    is_encrypted: true,
    ..CLOSED
};

/// The same for all tests of a run.
fn layouts() -> &'static [Layout] {
    static LAYOUTS: OnceLock<Vec<Layout>> = OnceLock::new();
    LAYOUTS.get_or_init(|| {
        let rounds = if is_long() { 4 } else { 1 };
        let plans = [CLOSED, KILLED, UNSYNCED, TWO, LONG_KEYS, COMPRESSED, ENCRYPTED];
        plans.map(|plan| Layout::build(&Plan { rounds, ..plan })).into()
    })
}

/// Sweeps all layouts, and says what came of it.
pub(crate) fn sweep_all(
    repair_every: usize,
    mut changes: impl FnMut(&Layout, &mut fastrand::Rng) -> Vec<Mutation>,
) -> Table {
    let _turn = turn();
    let random = &mut fastrand::Rng::with_seed(seed());
    let mut table = Table::default();
    for layout in layouts() {
        let mutations = changes(layout, random);
        // One of three is drawn, and the others by other runs.
        let step = if is_long() { 1 } else { 3 };
        let first = random.usize(..step);
        let mutations = mutations.into_iter().skip(first).step_by(step).collect();
        table.add(sweep(layout, mutations, repair_every));
    }
    table.tell();
    table
}

/// Breaks if any bit of a store can change and a read is wrong, a key is gone, or nobody is told.
#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let table = sweep_all(REPAIR_EVERY, flips);
    table.demand(&[Outcome::Refused, Outcome::ErrorAtRead, Outcome::Harmless, Outcome::TailCut]);
    assert_eq!(table.of(Outcome::OtherHistory), 0);
}

/// Breaks if a file that lost its end passes for a shorter one, or what follows its end comes alive.
#[test]
fn a_file_of_another_length_is_found_or_cut() {
    sweep_all(REPAIR_EVERY, lengths).demand(&[Outcome::Refused, Outcome::TailLost]);
}

/// A drive loses sectors, writes them to the wrong place, or does not write them.
#[test]
fn a_sector_that_is_not_the_last_one_written_there_is_found() {
    sweep_all(REPAIR_EVERY, sectors).demand(&[Outcome::Refused, Outcome::ErrorAtRead]);
}
