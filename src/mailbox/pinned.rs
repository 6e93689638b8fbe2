//! Files of a partition that keep their names for whoever copies them.

use std::sync::Arc;

use super::peers::Peers;
use crate::log::files::FilesList;
use crate::types::FileId;

/// What a partition had at the moment of a backup: sealed files, which stay as they are and keep their names while
/// this lives.
pub(crate) struct Pinned {
    /// Without an active file.
    pub(crate) list: FilesList,
    /// Of these an open has to read the data file itself: they may have parts of batches that were not settled at the
    /// moment, and hints do not say so.
    pub(crate) unsettled: Vec<FileId>,
    pub(crate) partition: usize,
    pub(crate) peers: Arc<Peers>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.peers.unpin(self.partition);
    }
}
