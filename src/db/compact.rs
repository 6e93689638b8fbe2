//! Compaction on request.

use super::call::Call;
use super::{Db, Shared};
use crate::error::Result;
use crate::mailbox::{ReplySender, Request, reply_slot};
use crate::stats::Compacted;

impl Db {
    /// Gives back the space of every record that no longer counts, and returns when it is done.
    ///
    /// Goes on beside reads and writes, which do not wait for it. Files in which everything counts are not
    /// touched. Space is needed for the live records of one data file at a time; the
    /// [rate](crate::Compaction::bytes_per_sec) holds, the hours do not.
    ///
    /// # Errors
    /// `NoSpace` if there is no room to copy even the file with the least live data; `Corrupt` if a file is
    /// damaged, which is left as it is; `Cancelled` by [`Db::cancel_compaction`]; `Poisoned`, `Closed` and
    /// `Io` as for [`Db::put`]. What was finished before the error stays done.
    ///
    /// # Example: overwritten values leave nothing behind
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// for round in 0..10 {
    ///     db.put("k", vec![round; 1000]).await?;
    /// }
    /// let done = db.compact().await?;
    /// assert_eq!((done.records_kept, done.records_dropped), (1, 9));
    /// assert!(db.stats().total().log_bytes < 2000);
    /// # db.close().await }).unwrap();
    /// ```
    pub async fn compact(&self) -> Result<Compacted> {
        let compact = |only, reply| Request::Compact { only, reply };
        let calls = (0..self.shared.partitions.len())
            .map(|shard| self.shared.compact(shard, |reply| compact(None, reply)));
        let mut total = Compacted::default();
        for done in futures::future::join_all(calls).await {
            total.add(&done?);
        }
        Ok(total)
    }

    /// Gives up the compactions under way, those that somebody waits for included; what they had finished
    /// stays done. Background compaction starts again when there is a reason.
    ///
    /// # Errors
    /// `Closed` after close.
    pub async fn cancel_compaction(&self) -> Result<()> {
        let calls = (0..self.shared.partitions.len()).map(|shard| {
            let (reply, receiver) = reply_slot();
            Call::new(&self.shared, shard, Request::CompactCancel { reply }, receiver)
        });
        futures::future::try_join_all(calls).await?;
        Ok(())
    }

    /// Compacts these data files of one partition and no others.
    #[cfg(any(test, feature = "sim"))]
    #[doc(hidden)]
    pub async fn compact_files(&self, partition: usize, files: &[u64]) -> Result<Compacted> {
        let only = Some(files.iter().map(|id| crate::types::FileId(*id)).collect());
        self.shared.compact(partition, |reply| Request::Compact { only, reply }).await
    }
}

impl Shared {
    fn compact(
        &self,
        shard: usize,
        request: impl FnOnce(ReplySender<Result<Compacted>>) -> Request,
    ) -> Call<'_, Compacted> {
        let (reply, receiver) = reply_slot();
        Call::new(self, shard, request(reply), receiver)
    }
}
