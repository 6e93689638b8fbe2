//! A batch: several writes of which all happen, or none.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::call::{Call, Prepared};
use super::transaction::too_many_conditions;
use super::value::IntoValue;
use super::{Db, Shared, Space};
use crate::error::{Error, Result};
use crate::mailbox::{
    Batch, BatchDone, BatchEntry, Body, Condition, EntryChange, Part, Request, reply_slot,
};
use crate::options::Durability;
use crate::types::{ExpiresAt, KeyHash, KeyspaceId};

/// Writes that are to happen together; send it with [`Db::write`].
///
/// Of several writes of one key in it the last counts. Nothing is checked before it is sent, and it can be sent
/// again. What it keeps is in memory: keys and short values are copied into it, long values are taken as they
/// are where they are owned.
///
/// # Example: money is neither lost nor made
/// ```
/// # futures::executor::block_on(async {
/// # let dir = tempfile::tempdir().unwrap();
/// use ringcask::{Db, WriteBatch};
/// let db = Db::open(dir.path()).await?;
/// let batch = WriteBatch::new().put("account:ada", "90").put("account:grace", "110").del("order:1");
/// let done = db.write(batch).await?;
/// assert_eq!((done.puts, done.dels, done.were_there), (2, 1, 0));
/// # db.close().await }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct WriteBatch {
    entries: Vec<Entry>,
    len_bytes: usize,
}

#[derive(Clone)]
struct Entry {
    /// `None` for the key space of the handle that sends the batch.
    keyspace: Option<KeyspaceId>,
    key: Bytes,
    /// `None` deletes.
    value: Option<Bytes>,
    expires: Expires,
}

/// When what is put expires.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expires {
    /// As the key space says.
    Default,
    After(Duration),
    At(Option<ExpiresAt>),
}

impl WriteBatch {
    /// A batch without any entry.
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Also stores `value` under `key`.
    #[must_use]
    pub fn put<K: AsRef<[u8]>, V: IntoValue>(mut self, key: K, value: V) -> WriteBatch {
        self.push(None, key.as_ref(), Some(value.into_bytes()), Expires::Default);
        self
    }

    /// Also stores `value` under `key`, to expire after `ttl` from when the batch is sent; in whole
    /// milliseconds, rounded up.
    #[must_use]
    pub fn put_with_ttl<K: AsRef<[u8]>, V: IntoValue>(
        mut self,
        key: K,
        value: V,
        ttl: Duration,
    ) -> WriteBatch {
        self.push(None, key.as_ref(), Some(value.into_bytes()), Expires::After(ttl));
        self
    }

    /// Also deletes `key`.
    #[must_use]
    pub fn del<K: AsRef<[u8]>>(mut self, key: K) -> WriteBatch {
        self.push(None, key.as_ref(), None, Expires::Default);
        self
    }

    /// Number of entries, those included that a later one of the same key supersedes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes all entries out, to use the batch again.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.len_bytes = 0;
    }

    pub(super) fn push(
        &mut self,
        keyspace: Option<KeyspaceId>,
        key: &[u8],
        value: Option<Bytes>,
        expires: Expires,
    ) {
        self.len_bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.entries.push(Entry { keyspace, key: Bytes::copy_from_slice(key), value, expires });
    }
}

impl std::fmt::Debug for WriteBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteBatch")
            .field("entries", &self.entries.len())
            .field("bytes", &self.len_bytes)
            .finish()
    }
}

/// A batch that has not been sent yet; await it to send it and learn what it did.
///
/// What is said of [`Put`](crate::Put) about polling holds here too.
#[must_use = "a batch does nothing until it is awaited"]
pub struct Write<'a> {
    prepared: Prepared<'a, BatchDone>,
}

impl<'a> Write<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        space: Space,
        batch: &WriteBatch,
        conditions: Vec<Condition>,
    ) -> Write<'a> {
        let parts = match shared.parts_of(space, batch, conditions) {
            Ok(parts) => parts,
            Err(error) => return Write { prepared: Prepared::Refused(error) },
        };
        let Some(first) = parts.first() else {
            return Write { prepared: Prepared::Known(BatchDone::default()) };
        };
        let shard = first.partition;
        let (reply, receiver) = reply_slot();
        let batch = Batch { parts, durable: shared.durable, reply };
        let call = Call::new(shared, shard, Request::Batch(Box::new(batch)), receiver);
        Write { prepared: Prepared::Ready(call) }
    }

    /// When it is acknowledged, instead of what the store was opened with. A batch over several partitions, or one
    /// too large for a single write, is on disk when it is acknowledged whatever is asked for: nothing less
    /// keeps it whole.
    pub fn durability(mut self, durability: Durability) -> Write<'a> {
        if let Some(Request::Batch(batch)) = self.prepared.request() {
            batch.durable = durability.of_write();
        }
        self
    }
}

impl Future for Write<'_> {
    type Output = Result<BatchDone>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<BatchDone>> {
        Pin::new(&mut self.prepared).poll(cx)
    }
}

impl Db {
    /// Does everything in `batch`, or nothing: no reader, no crash and no error ever leaves a part of it. The
    /// keys may be in any partitions.
    ///
    /// A batch whose keys are all in one partition and that is not longer than 4 MiB costs what a put costs. Any
    /// other one is written twice and takes two syncs, one after the other; writes of its keys wait
    /// meanwhile, those of other keys do not.
    ///
    /// The future is sent when it is first polled. Dropping it after that stops the wait, not the batch. A
    /// [`get`](Db::get) that follows another one in the same partition never sees less of a batch than the other
    /// did.
    ///
    /// # Errors
    /// As [`Db::put`]; `InvalidArgument` also for more entries or bytes than
    /// [`Options::batch_entries_max`](crate::Options::batch_entries_max) and
    /// [`Options::batch_bytes_max`](crate::Options::batch_bytes_max). Nothing of the batch is stored then, with one
    /// exception: after `Poisoned` the next open tells whether a batch over several partitions was stored, which it
    /// was whole or not at all.
    ///
    /// # Example: of many writes of one key the last counts
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use ringcask::{Db, WriteBatch};
    /// let db = Db::open(dir.path()).await?;
    /// let mut batch = WriteBatch::new();
    /// for n in 0..100 {
    ///     batch = batch.put(format!("n:{}", n % 10), n.to_string());
    /// }
    /// assert_eq!(db.write(&batch).await?.puts, 10);
    /// assert_eq!(db.get("n:7").await?.as_deref(), Some(b"97".as_slice()));
    /// # db.close().await }).unwrap();
    /// ```
    pub fn write(&self, batch: impl Borrow<WriteBatch>) -> Write<'_> {
        Write::new(&self.shared, self.space, batch.borrow(), Vec::new())
    }
}

impl Shared {
    /// What each partition has to do with a batch, in the order in which the partitions first come up.
    fn parts_of(
        &self,
        space: Space,
        batch: &WriteBatch,
        conditions: Vec<Condition>,
    ) -> Result<Vec<Part>> {
        if self.lifecycle.is_closing() {
            return Err(Error::closed());
        }
        self.check_batch_len(batch)?;
        let count = batch.len() + conditions.len();
        if count > self.batch_entries_max {
            return Err(too_many_conditions(count, self.batch_entries_max));
        }
        let mut parts = Vec::new();
        let mut places = vec![None; self.partitions.len()];
        let mut part_of = |parts: &mut Vec<Part>, hash: KeyHash| {
            let partition = self.shard_of(hash);
            *places[partition].get_or_insert_with(|| {
                parts.push(Part::new(partition));
                parts.len() - 1
            })
        };
        let mut seen = HashSet::new();
        for entry in batch.entries.iter().rev() {
            let made = self.batch_entry(space, entry)?;
            if seen.insert(made.hash) {
                let part = part_of(&mut parts, made.hash);
                parts[part].entries.push(made);
            }
        }
        for condition in conditions {
            let part = part_of(&mut parts, condition.hash);
            parts[part].conditions.push(condition);
        }
        // Whoever reads the log finds the writes in the order in which they were given.
        for part in &mut parts {
            part.entries.reverse();
        }
        Ok(parts)
    }

    fn check_batch_len(&self, batch: &WriteBatch) -> Result<()> {
        let refuse = |what: String| Err(Error::invalid(format!("the batch has {what}")));
        if batch.len() > self.batch_entries_max {
            let max = self.batch_entries_max;
            refuse(format!("{} entries; batch_entries_max is {max}", batch.len()))
        } else if batch.len_bytes > self.batch_bytes_max {
            let max = self.batch_bytes_max;
            refuse(format!(
                "{} bytes of keys and values; batch_bytes_max is {max}",
                batch.len_bytes
            ))
        } else {
            Ok(())
        }
    }

    fn batch_entry(&self, space: Space, entry: &Entry) -> Result<BatchEntry> {
        self.check_key(&entry.key)?;
        let keyspace = entry.keyspace.unwrap_or(space.id);
        let hash = self.hash(keyspace, &entry.key);
        let (body, change) = match &entry.value {
            Some(value) => {
                self.check_value_len(value.len())?;
                let expires_at = match entry.expires {
                    Expires::Default => self.default_expiry(space)?,
                    Expires::After(ttl) => Some(self.after(ttl)?),
                    Expires::At(at) => at,
                };
                let body = Body::of(&self.codecs, keyspace, &entry.key, value.clone());
                (body, EntryChange::Put { expires_at })
            }
            None => (Body::key_only(&self.codecs, keyspace, entry.key.clone()), EntryChange::Del),
        };
        Ok(BatchEntry { hash, key: entry.key.clone(), body, change })
    }
}
