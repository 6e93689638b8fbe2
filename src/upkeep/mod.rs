//! What nobody asked for: work that keeps a partition fast and small, in steps that writers and readers
//! do not wait for.
//!
//! Here it is decided what to do and when, without doing it; the partition does it between its
//! requests.

pub(crate) mod backup;
pub(crate) mod compaction;
pub(crate) mod hints;
pub(crate) mod key_runs;
pub(crate) mod prewrite;
pub(crate) mod range_del;
pub(crate) mod scrub;
pub(crate) mod throttle;
