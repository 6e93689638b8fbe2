//! Optimistic transactions: look, decide, and write all of it only if nothing that was looked at has changed.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;

use super::Db;
use super::batch::{Expires, Write, WriteBatch};
use super::value::IntoValue;
use crate::error::{Error, Result};
use crate::mailbox::{BatchDone, Condition, Expected};
use crate::options::Durability;

/// Reads and writes that happen as if at one moment, or not at all; made by [`Db::transaction`].
///
/// A read is remembered, writes are kept until [`commit`](Self::commit). Then the workers lock the keys,
/// look whether each one that was read is still what it was, absent ones included, and if so write everything
/// as one [batch](Db::write). Nobody waits for a transaction that is not committed, and dropping it undoes it.
///
/// What it reads is the newest state of each key at the time of that read. Two reads may be of different moments;
/// a transaction to which that happened is not committed.
///
/// # Example: an account is not overdrawn, whoever else uses it
/// ```
/// # futures::executor::block_on(async {
/// # let dir = tempfile::tempdir().unwrap();
/// use ringcask::{Db, Error};
/// let db = Db::open(dir.path()).await?;
/// db.put("ada", "100").await?;
///
/// let number = |value: Option<bytes::Bytes>| -> i64 {
///     value.map_or(0, |value| String::from_utf8_lossy(&value).parse().unwrap_or(0))
/// };
/// loop {
///     let mut transfer = db.transaction();
///     let (ada, grace) = (number(transfer.get("ada").await?), number(transfer.get("grace").await?));
///     if ada < 30 {
///         break;
///     }
///     transfer.put("ada", (ada - 30).to_string()).put("grace", (grace + 30).to_string());
///     match transfer.commit().await {
///         Err(error) if error.is_conflict() => continue,
///         done => {
///             done?;
///             break;
///         }
///     }
/// }
/// assert_eq!(db.get("grace").await?.as_deref(), Some(b"30".as_slice()));
/// # db.close().await }).unwrap();
/// ```
#[must_use = "a transaction does nothing until it is committed"]
pub struct Transaction {
    db: Db,
    durability: Option<Durability>,
    /// What each key was when it was first read.
    seen: HashMap<Bytes, Seen>,
    /// The last write of each key; `None` deletes.
    written: HashMap<Bytes, Option<Bytes>>,
    batch: WriteBatch,
}

struct Seen {
    expected: Expected,
    value: Option<Bytes>,
}

impl Transaction {
    /// The value of `key` as this transaction sees it: what it has written itself, or what it read first,
    /// or else the newest there is.
    ///
    /// # Errors
    /// As [`Db::get`].
    pub async fn get<K: AsRef<[u8]>>(&mut self, key: K) -> Result<Option<Bytes>> {
        let key = key.as_ref();
        if let Some(written) = self.written.get(key) {
            return Ok(written.clone());
        }
        if let Some(seen) = self.seen.get(key) {
            return Ok(seen.value.clone());
        }
        let entry = self.db.shared.entry(self.db.space.id, key).await?;
        let expected =
            entry.as_ref().map_or(Expected::Absent, |entry| Expected::Seqno(entry.seqno.0));
        let value = entry.map(|entry| entry.value);
        let seen = Seen { expected, value: value.clone() };
        self.seen.insert(Bytes::copy_from_slice(key), seen);
        Ok(value)
    }

    /// Whether `key` is present, as [`get`](Self::get) sees it.
    ///
    /// # Errors
    /// As [`Db::get`].
    pub async fn contains_key<K: AsRef<[u8]>>(&mut self, key: K) -> Result<bool> {
        Ok(self.get(key).await?.is_some())
    }

    /// Stores `value` under `key` when the transaction is committed.
    pub fn put<K: AsRef<[u8]>, V: IntoValue>(&mut self, key: K, value: V) -> &mut Transaction {
        self.write(key.as_ref(), Some(value.into_bytes()), Expires::Default)
    }

    /// Stores `value` under `key` when the transaction is committed, to expire after `ttl` from then.
    pub fn put_with_ttl<K: AsRef<[u8]>, V: IntoValue>(
        &mut self,
        key: K,
        value: V,
        ttl: Duration,
    ) -> &mut Transaction {
        self.write(key.as_ref(), Some(value.into_bytes()), Expires::After(ttl))
    }

    /// Deletes `key` when the transaction is committed.
    pub fn del<K: AsRef<[u8]>>(&mut self, key: K) -> &mut Transaction {
        self.write(key.as_ref(), None, Expires::Default)
    }

    fn write(&mut self, key: &[u8], value: Option<Bytes>, expires: Expires) -> &mut Transaction {
        self.batch.push(None, key, value.clone(), expires);
        self.written.insert(Bytes::copy_from_slice(key), value);
        self
    }

    /// When the commit is acknowledged, instead of what the store was opened with; as
    /// [`Write::durability`].
    pub fn durability(&mut self, durability: Durability) -> &mut Transaction {
        self.durability = Some(durability);
        self
    }

    /// Writes everything if nothing that was read has changed.
    ///
    /// A transaction that has written nothing is committed too: it says whether what was read was true at one
    /// moment.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if something that was read has changed, even if it changed back:
    /// nothing is written then, and the transaction can be begun anew. As [`Db::write`] otherwise; what was read
    /// counts as an entry of the batch, and may have to be read again, which can fail as [`Db::get`] does.
    pub async fn commit(self) -> Result<BatchDone> {
        let Transaction { db, durability, seen, batch, .. } = self;
        let (shared, space) = (&db.shared, db.space);
        let conditions = seen.into_iter().map(|(key, seen)| Condition {
            hash: shared.hash(space.id, &key),
            keyspace: space.id,
            key,
            expected: seen.expected,
        });
        let mut write = Write::new(shared, space, &batch, conditions.collect());
        if let Some(durability) = durability {
            write = write.durability(durability);
        }
        write.await
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("read", &self.seen.len())
            .field("written", &self.written.len())
            .finish_non_exhaustive()
    }
}

impl Db {
    /// Begins a transaction, which costs nothing: see [`Transaction`].
    pub fn transaction(&self) -> Transaction {
        Transaction {
            db: self.clone(),
            durability: None,
            seen: HashMap::new(),
            written: HashMap::new(),
            batch: WriteBatch::new(),
        }
    }

    /// Stores under `key` what `change` makes of its value, or deletes it where that is `None`; returns what is
    /// stored then.
    ///
    /// `change` runs on the calling thread, once more whenever somebody else has written the key meanwhile, and is
    /// never in the way of others. What is written keeps the time to live of what it replaces; a new key gets
    /// [`Options::default_ttl`](crate::Options::default_ttl).
    ///
    /// # Errors
    /// As [`Db::put`] and [`Db::get`].
    ///
    /// # Example: a set, one name on each line
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// let add = |name: &'static str| {
    ///     let db = db.clone();
    ///     async move {
    ///         db.update("names", |old| {
    ///             let old = String::from_utf8_lossy(old.unwrap_or_default()).into_owned();
    ///             Some(old + name + "\n")
    ///         })
    ///         .await
    ///     }
    /// };
    /// let (ada, grace) = futures::join!(add("Ada"), add("Grace"));
    /// (ada?, grace?);
    /// assert_eq!(db.get("names").await?.unwrap().len(), "Ada\nGrace\n".len());
    /// # db.close().await }).unwrap();
    /// ```
    pub async fn update<K: AsRef<[u8]>, V: IntoValue>(
        &self,
        key: K,
        mut change: impl FnMut(Option<&[u8]>) -> Option<V>,
    ) -> Result<Option<Bytes>> {
        let key = key.as_ref();
        loop {
            let old = self.shared.entry(self.space.id, key).await?;
            let new = change(old.as_ref().map(|old| &old.value[..])).map(IntoValue::into_bytes);
            let expected = match &old {
                Some(old) => Expected::Seqno(old.seqno.0),
                None if new.is_none() => return Ok(None),
                None => Expected::Absent,
            };
            if self.swap_keeping_ttl(key, expected, new.clone()).await?.is_done() {
                return Ok(new);
            }
        }
    }

    /// Gives what is stored under `from` the name `to`, in place of what was there; false if there is nothing.
    ///
    /// It keeps its time to live. Nobody sees it under both names or none, wherever the two keys are.
    ///
    /// # Errors
    /// As [`Db::put`] and [`Db::get`].
    ///
    /// # Example: a draft is published
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// db.put("draft:7", "Dear Ada").await?;
    /// assert!(db.rename("draft:7", "letter:7").await?);
    /// assert!(!db.rename("draft:7", "letter:7").await?);
    /// assert_eq!(db.get("letter:7").await?.unwrap(), "Dear Ada");
    /// # db.close().await }).unwrap();
    /// ```
    pub async fn rename<K: AsRef<[u8]>, L: AsRef<[u8]>>(&self, from: K, to: L) -> Result<bool> {
        let (from, to) = (from.as_ref(), to.as_ref());
        self.shared.check_key(to)?;
        loop {
            let Some(entry) = self.shared.entry(self.space.id, from).await? else {
                return Ok(false);
            };
            if from == to {
                return Ok(true);
            }
            let mut batch = WriteBatch::new().del(from);
            batch.push(None, to, Some(entry.value), Expires::At(entry.expires_at));
            let condition = Condition {
                hash: self.shared.hash(self.space.id, from),
                keyspace: self.space.id,
                key: Bytes::copy_from_slice(from),
                expected: Expected::Seqno(entry.seqno.0),
            };
            match Write::new(&self.shared, self.space, &batch, vec![condition]).await {
                Err(error) if error.is_conflict() => {}
                done => return done.map(|_done| true),
            }
        }
    }
}

/// More was read than a batch may have entries.
#[cold]
pub(super) fn too_many_conditions(count: usize, max: usize) -> Error {
    Error::invalid(format!(
        "the transaction has read and written {count} keys; batch_entries_max is {max}"
    ))
}
