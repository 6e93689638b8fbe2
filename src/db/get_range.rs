//! Parts of values.

use std::ops::{Bound, Range, RangeBounds};

use bytes::Bytes;

use super::call::Call;
use super::{Db, Shared};
use crate::error::Result;
use crate::limits::READ_NOW_LEN_MAX;
use crate::mailbox::{Request, ValuePart, reply_slot};
use crate::types::KeyspaceId;

impl Db {
    /// Returns the bytes of the value of `key` at the offsets in `range`, or `None` if the key is absent.
    ///
    /// What is beyond the end of the value is left out, so the answer may be shorter than asked, or empty.
    ///
    /// For values that are too long to have in memory: that takes memory for the part, and 1 MiB. All of the
    /// record is read all the same, piece by piece, because its checksum covers all of it and no byte is handed
    /// out that was not checked; so the time is that of the whole value, and several parts are better asked for
    /// as one. A value that is stored compressed is decompressed as a whole, which takes memory for all of it.
    ///
    /// # Errors
    /// As [`Db::get`]. A damaged byte is an error also outside the part.
    ///
    /// # Example: the head of a long value
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// db.put("film", vec![7; 5 << 20]).await?;
    /// let head = db.get_range("film", ..1000).await?.unwrap();
    /// assert_eq!(head, vec![7; 1000]);
    /// assert_eq!(db.get_range("film", 5 << 20..).await?.unwrap(), "");
    /// assert_eq!(db.get_range("book", ..).await?, None);
    /// # db.close().await }).unwrap();
    /// ```
    pub async fn get_range<K: AsRef<[u8]>>(
        &self,
        key: K,
        range: impl RangeBounds<u64>,
    ) -> Result<Option<Bytes>> {
        self.shared.get_range(self.space.id, key.as_ref(), offsets(&range)).await
    }
}

impl Shared {
    async fn get_range(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        range: Range<u64>,
    ) -> Result<Option<Bytes>> {
        self.check_key(key)?;
        self.check_open(keyspace)?;
        let hash = self.hash(keyspace, key);
        let shard = self.shard_of(hash);
        let len = self.partitions[shard].view.keydir.lookup(hash, |location| location.len);
        if len.is_some_and(|len| len as usize > READ_NOW_LEN_MAX) {
            let (reply, receiver) = reply_slot();
            let (key, range) = (Bytes::copy_from_slice(key), range.clone());
            let request = Request::GetRange { hash, keyspace, key, range, reply };
            match Call::new(self, shard, request, receiver).await? {
                Some(ValuePart::Bytes(part)) => return Ok(Some(part)),
                Some(ValuePart::Coded) => {}
                None => return Ok(None),
            }
        }
        let value = self.get(keyspace, key).await?;
        Ok(value.map(|value| {
            let end = (value.len() as u64).min(range.end);
            // A copy, so that the part does not keep the whole value alive.
            Bytes::copy_from_slice(&value[range.start.min(end) as usize..end as usize])
        }))
    }
}

/// The offsets from the first to behind the last; none if they are the wrong way round.
fn offsets(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Unbounded => 0,
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at.saturating_add(1),
    };
    let end = match range.end_bound() {
        Bound::Unbounded => u64::MAX,
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => *at,
    };
    start..end.max(start)
}
