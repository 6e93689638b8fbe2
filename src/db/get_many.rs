//! Several keys as they are together: never a part of a batch (S1).
//!
//! Each partition's keys are read on the caller's thread while its epoch stands still, or by its worker, who looks
//! them all up at one moment. Over partitions a count of published batches is compared before and after; if
//! it moved, everything is read again. After some attempts the caller holds the gate for the length of one
//! attempt, and batches over partitions, already durable, wait to be published until it is done.

use bytes::Bytes;

use super::call::Call;
use super::read::{self, ReadNow};
use super::{Db, Shared};
use crate::error::Result;
use crate::mailbox::{Entry, GetMany, Request, reply_slot};
use crate::types::{KeyHash, KeyspaceId};

/// Attempts before publications have to wait.
const ATTEMPTS_FREE: usize = 4;

/// The keys that are read, and what was found.
struct Many {
    keyspace: KeyspaceId,
    keys: Vec<(KeyHash, Bytes)>,
    /// Partitions, and which of the keys each of them has.
    shards: Vec<(usize, Vec<usize>)>,
}

impl Db {
    /// Returns the values of `keys`, in their order; cold records are read at the same time.
    ///
    /// What is returned shows each [batch](Db::write) whole or not at all, wherever its keys are, and each
    /// [`rename`](Db::rename) and [transaction](Db::transaction) too. Writes that belong to no batch may be seen
    /// one without the other.
    ///
    /// # Errors
    /// As [`Db::get`]; the first error is returned.
    ///
    /// # Example: a missing key is `None`
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// db.put("a", "1").await?;
    /// assert_eq!(db.get_many(["a", "b"]).await?, [Some("1".into()), None]);
    /// # db.close().await }).unwrap();
    /// ```
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Bytes>>> {
        let mut many = Many { keyspace: self.space.id, keys: Vec::new(), shards: Vec::new() };
        for key in keys {
            let key = key.as_ref();
            self.shared.check_key(key)?;
            let hash = self.shared.hash(self.space.id, key);
            many.add(self.shared.shard_of(hash), hash, Bytes::copy_from_slice(key));
        }
        let found = self.shared.get_many(&many).await?;
        Ok(found.into_iter().map(|entry| entry.map(|entry| entry.value)).collect())
    }
}

impl Many {
    fn add(&mut self, shard: usize, hash: KeyHash, key: Bytes) {
        let index = self.keys.len();
        self.keys.push((hash, key));
        match self.shards.iter_mut().find(|(known, _)| *known == shard) {
            Some((_, indexes)) => indexes.push(index),
            None => self.shards.push((shard, vec![index])),
        }
    }
}

impl Shared {
    async fn get_many(&self, many: &Many) -> Result<Vec<Option<Entry>>> {
        let publications = self.peers.publications();
        for _attempt in 0..ATTEMPTS_FREE {
            let quiet = publications.quiet();
            let found = self.read_many(many, false).await?;
            // One partition shows a batch whole by itself.
            if many.shards.len() <= 1 || quiet.is_some_and(|seen| publications.is_still(seen)) {
                return Ok(found);
            }
        }
        loop {
            let hold = self.peers.hold();
            std::future::poll_fn(|cx| hold.poll_quiet(cx)).await;
            let found = self.read_many(many, true).await?;
            if hold.is_valid() {
                return Ok(found);
            }
        }
    }

    /// Of each partition what it holds at one moment.
    async fn read_many(&self, many: &Many, is_held: bool) -> Result<Vec<Option<Entry>>> {
        self.check_open(many.keyspace)?;
        let mut found: Vec<Option<Entry>> = many.keys.iter().map(|_| None).collect();
        let mut cold = Vec::new();
        let epochs: Vec<u64> = many
            .shards
            .iter()
            .map(|(shard, indexes)| {
                let view = &self.partitions[*shard].view;
                let epoch = view.epoch();
                let mut hops = Vec::new();
                for &index in indexes {
                    let (hash, key) = &many.keys[index];
                    match read::read_now(self, *shard, *hash, (many.keyspace, key), true) {
                        ReadNow::Found(entry) => found[index] = Some(entry),
                        ReadNow::Missing => {}
                        ReadNow::Hop => hops.push(index),
                    }
                }
                if !hops.is_empty() {
                    cold.push((*shard, hops));
                }
                epoch
            })
            .collect();
        self.ask_many(many, &cold, &mut found, is_held).await?;
        // What was read here and what was read there are of one moment if nothing was published in between.
        let moved = many.shards.iter().zip(&epochs).filter(|((shard, _), epoch)| {
            *epoch % 2 == 1 || self.partitions[*shard].view.epoch() != **epoch
        });
        let moved: Vec<_> = moved.map(|(shard, _)| shard.clone()).collect();
        self.ask_many(many, &moved, &mut found, is_held).await?;
        Ok(found)
    }

    /// Asks the workers of these partitions for these keys.
    async fn ask_many(
        &self,
        many: &Many,
        shards: &[(usize, Vec<usize>)],
        found: &mut [Option<Entry>],
        is_held: bool,
    ) -> Result<()> {
        let calls = shards.iter().map(|(shard, indexes)| async move {
            let keys = indexes.iter().map(|index| many.keys[*index].clone()).collect();
            let (reply, receiver) = reply_slot();
            let request = GetMany { keyspace: many.keyspace, keys, reply };
            if is_held {
                // The mailbox may be full of writes that wait for the batches that wait for this.
                self.peers.read(*shard, request);
                let answer = std::future::poll_fn(|cx| receiver.poll_answer(cx)).await;
                answer.unwrap_or_else(|| Err(self.no_answer(*shard)))
            } else {
                Call::new(self, *shard, Request::GetMany(Box::new(request)), receiver).await
            }
        });
        let answers = futures::future::try_join_all(calls).await?;
        for ((_, indexes), answer) in shards.iter().zip(answers) {
            for (index, entry) in indexes.iter().zip(answer) {
                found[*index] = entry.map(|stored| stored.decode(&self.codecs)).transpose()?;
            }
        }
        Ok(())
    }
}
