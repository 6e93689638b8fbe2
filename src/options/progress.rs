//! Telling the caller how far an open has come.

use std::fmt;
use std::sync::Arc;

/// How far opening a store has come; see [`Options::on_open_progress`](crate::Options::on_open_progress).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenProgress {
    /// Data files loaded, from their hints or by reading them.
    pub files: u64,
    /// Data files to load, as far as partitions have looked.
    pub files_total: u64,
    /// Records in the loaded files.
    pub records: u64,
}

#[derive(Clone)]
pub(crate) struct OnOpenProgress(Arc<dyn Fn(OpenProgress) + Send + Sync>);

impl OnOpenProgress {
    pub(crate) fn new(callback: impl Fn(OpenProgress) + Send + Sync + 'static) -> OnOpenProgress {
        OnOpenProgress(Arc::new(callback))
    }

    pub(crate) fn call(&self, progress: OpenProgress) {
        (self.0)(progress);
    }
}

impl fmt::Debug for OnOpenProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnOpenProgress")
    }
}
