//! Files that are not there, or that are others.

use crate::bytes::{REPAIR_EVERY, sweep_all};
use crate::judge::Outcome;
use crate::run::is_long;
use crate::sweeps::{flips, lengths, names, pairs, replacements, sectors};

/// Breaks if a file passes for another, if a lost file looks like lost keys, or if one that nobody lists is
/// read.
#[test]
fn files_under_other_names_are_found_or_never_read() {
    sweep_all(1, |layout, _| names(layout)).demand(&[Outcome::Refused, Outcome::Harmless]);
}

/// F1, F2: a file of another store is refused, and so is one of another history where `FILES` has its digest.
/// An older `FILES` is refused once a file that it lists is gone. What cannot be told is a file that nothing
/// else knows the newest version of: `FILES` itself, and the log's last file while the store is not closed.
#[test]
fn files_of_another_time_or_store_are_refused_or_whole() {
    let table = sweep_all(1, |layout, _| replacements(layout));
    table.demand(&[Outcome::Refused, Outcome::OtherHistory]);
}

/// Breaks if one damage hides another.
#[test]
fn two_changes_at_once_hide_nothing() {
    let count = if is_long() { 50_000 } else { 5_000 };
    sweep_all(REPAIR_EVERY, |layout, random| {
        let mut pool = sectors(layout, random);
        pool.extend(names(layout));
        pool.extend(lengths(layout, random).into_iter().step_by(4));
        pool.extend(flips(layout, random).into_iter().step_by(8));
        pairs(&pool, count, random)
    });
}
