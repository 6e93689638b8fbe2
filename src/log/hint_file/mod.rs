//! Hint files: made while a data file is written or scanned, read instead of scanning it (H1).
//!
//! A hint is an accelerator. Whoever reads one gets the entries of its data file, or is told why not
//! and scans the data file; the state is the same.
//!
//! ```text
//! builder   collects records in log order, writes the hint
//! order     records by key, the newest of each
//! reader    an open hint: entries, index, filter
//! check     a hint held against the records of its data file
//! ```

mod builder;
mod check;
mod order;
mod reader;

pub(crate) use builder::HintBuilder;
pub(crate) use check::disagreement;
pub(crate) use reader::HintFile;

#[cfg(test)]
mod tests;
