//! Giving back the space of records that no longer count.
//!
//! ```text
//! policy      which files, and when
//! tombstones  which deletions are still needed (C1)
//! job         copies what counts into new files, in steps
//! ```

pub(crate) mod job;
pub(crate) mod policy;
mod tombstones;
