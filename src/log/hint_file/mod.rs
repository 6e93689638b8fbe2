//! Hint files: made while a data file is written or scanned, read instead of scanning it (H1).
//!
//! A hint is an accelerator. Whoever reads one gets the entries of its data file, or is told why not
//! and scans the data file; the state is the same.
//!
//! ```text
//! builder   collects records in log order, writes the hint
//! order     records by key, the newest of each
//! reader    an open hint: entries, index, filter
//! sealed    a hint in encrypted pages
//! check     a hint held against the records of its data file
//! handle    the hint of a data file as scans read it, block by block
//! run       what a hint would say of some records, in memory
//! cursor    entries of one block after the other, either way
//! ```

mod builder;
mod check;
mod cursor;
mod handle;
mod order;
mod reader;
mod run;
mod sealed;

pub(crate) use builder::HintBuilder;
pub(crate) use check::disagreement;
pub(crate) use cursor::{KeyAt, KeyCursor};
pub(crate) use handle::{Hint, Parsed, Shape};
pub(crate) use reader::HintFile;
pub(crate) use run::{NO_HASH, RUN_RECORDS_MAX, Run, RunSet, Runs};
pub(crate) use sealed::HintReader;

#[cfg(test)]
mod tests;
