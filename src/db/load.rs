//! Loading in bulk: puts are packed by partition, some hundred to a request.
//!
//! ## Invariants
//! - **LO1** Requests are first polled in the order in which they were made, and a mailbox lets them in in the order of
//!   their first polls. So of a partition's records the last one of a key stays.

use std::task::Poll;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::call::Call;
use super::put::body;
use super::value::IntoValue;
use super::{Db, Shared, Space};
use crate::error::{Error, Result};
use crate::limits::{LOAD_CHUNK_LEN_BYTES, LOAD_CHUNKS_IN_FLIGHT_MAX};
use crate::log::codec::Codecs;
use crate::mailbox::{Body, PutMany, Request, Together, reply_slot};
use crate::types::{KeyHash, KeyspaceId};

impl Db {
    /// Puts many records as fast as the disk takes them; all are durable when it returns, whatever the store's
    /// [`Durability`](crate::Durability). Returns their number.
    ///
    /// Every record is a put of its own, with all that belongs to it: it replaces what was there, the last of several
    /// records with one key stays, [`default_ttl`](crate::Options::default_ttl) counts, watchers are told. Only the cost is
    /// shared: no future, no reply and, for values up to 4 KiB that are stored as they are, no allocation for each. Readers
    /// see records as they are written. The iterator runs ahead of the disk by a few requests of some 64 KiB for each
    /// partition, or of one longer value.
    ///
    /// To have all of the records or none, see [`Db::write`]; to load from a stream, put with
    /// [`buffer_unordered`](futures::StreamExt::buffer_unordered).
    ///
    /// # Errors
    /// As [`Db::put`]; the sentence counts the record if it was refused itself. What came before that record is in the
    /// store and durable. After any other error, and if the future is dropped, some of the records are there.
    ///
    /// # Example: a million records
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// # let million = 1_000;
    /// let records = (0..million).map(|n: u64| (n.to_be_bytes(), format!("record {n}")));
    /// assert_eq!(db.load(records).await?, million);
    /// assert_eq!(db.get(7_u64.to_be_bytes()).await?.as_deref(), Some(b"record 7".as_slice()));
    /// # db.close().await }).unwrap();
    /// ```
    pub async fn load<K: AsRef<[u8]>, V: IntoValue>(
        &self,
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Result<u64> {
        let mut load = Load::new(&self.shared, self.space);
        let (mut count, mut refused) = (0, None);
        for (key, value) in records {
            match load.push(key.as_ref(), value) {
                Ok(None) => {}
                Ok(Some(full)) => load.send(full).await?,
                Err(error) => {
                    let sentence = format!("record {} of the load: {error}", count + 1);
                    refused = Some(Error::new(error.kind(), sentence));
                    break;
                }
            }
            count += 1;
        }
        load.finish().await?;
        self.sync().await?;
        refused.map_or(Ok(count), Err)
    }
}

struct Load<'a> {
    shared: &'a Shared,
    space: Space,
    /// By partition.
    chunks: Vec<Chunk>,
    in_flight: FuturesUnordered<Call<'a, ()>>,
}

impl<'a> Load<'a> {
    fn new(shared: &'a Shared, space: Space) -> Load<'a> {
        let chunks = shared.partitions.iter().map(|_| Chunk::default()).collect();
        Load { shared, space, chunks, in_flight: FuturesUnordered::new() }
    }

    /// The partition whose chunk is full now.
    fn push(&mut self, key: &[u8], value: impl IntoValue) -> Result<Option<usize>> {
        let (shared, keyspace) = (self.shared, self.space.id);
        shared.check_place(keyspace, key)?;
        let hash = shared.hash(keyspace, key);
        let shard = shared.shard_of(hash);
        let chunk = &mut self.chunks[shard];
        let borrowed = value.as_value();
        shared.check_value_len(borrowed.len())?;
        if !chunk.copy(hash, &shared.codecs, key, borrowed) {
            let body = body(shared, keyspace, key, value)?;
            chunk.len_bytes += body.len();
            chunk.puts.push((hash, Draft::Whole(body)));
        }
        Ok((chunk.len_bytes >= LOAD_CHUNK_LEN_BYTES).then_some(shard))
    }

    /// Sends what there is for a partition, and waits until the next chunk may be in flight. Gives the executor a turn in
    /// any case.
    async fn send(&mut self, shard: usize) -> Result<()> {
        let (shared, space) = (self.shared, self.space);
        let Chunk { bytes, puts, .. } = std::mem::take(&mut self.chunks[shard]);
        let (bytes, (reply, receiver)) = (Bytes::from(bytes), reply_slot());
        let many = PutMany {
            reply: Together::new(puts.len(), reply),
            expires_at: shared.default_expiry(space)?,
            puts: puts
                .into_iter()
                .map(|(hash, draft)| (hash, draft.body(space.id, &bytes)))
                .collect(),
        };
        let request = Request::PutMany(Box::new(many));
        self.in_flight.push(Call::new(shared, shard, request, receiver));
        let in_flight_max = LOAD_CHUNKS_IN_FLIGHT_MAX * self.chunks.len();
        let mut has_waited = false;
        std::future::poll_fn(|cx| {
            // Those that were polled before come in between, but new ones wait for their first poll in a line (LO1).
            while let Poll::Ready(Some(done)) = self.in_flight.poll_next_unpin(cx) {
                done?;
            }
            if has_waited && self.in_flight.len() < in_flight_max {
                return Poll::Ready(Ok(()));
            }
            if !std::mem::replace(&mut has_waited, true) {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }

    async fn finish(mut self) -> Result<()> {
        for shard in 0..self.chunks.len() {
            if !self.chunks[shard].puts.is_empty() {
                self.send(shard).await?;
            }
        }
        while let Some(done) = self.in_flight.next().await {
            done?;
        }
        Ok(())
    }
}

/// Puts of one partition.
#[derive(Default)]
struct Chunk {
    /// Keys and values of those that were copied.
    bytes: Vec<u8>,
    puts: Vec<(KeyHash, Draft)>,
    len_bytes: usize,
}

enum Draft {
    /// In the chunk's bytes.
    Copied {
        at: usize,
        key_len: u16,
        len: usize,
    },
    Whole(Body),
}

impl Chunk {
    /// Copies a record that is stored as it is and short; false for others.
    fn copy(&mut self, hash: KeyHash, codecs: &Codecs, key: &[u8], value: &[u8]) -> bool {
        if !Body::is_copied(codecs, value) {
            return false;
        }
        let (at, len) = (self.bytes.len(), key.len() + value.len());
        if at == 0 {
            self.bytes.reserve(LOAD_CHUNK_LEN_BYTES + len);
        }
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.puts.push((hash, Draft::Copied { at, key_len: key.len() as u16, len }));
        self.len_bytes += len;
        true
    }
}

impl Draft {
    fn body(self, keyspace: KeyspaceId, bytes: &Bytes) -> Body {
        match self {
            Draft::Copied { at, key_len, len } => {
                Body::joined(keyspace, key_len, bytes.slice(at..at + len))
            }
            Draft::Whole(body) => body,
        }
    }
}
