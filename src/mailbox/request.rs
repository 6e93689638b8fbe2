//! What callers ask of a partition.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::{Batch, PutMany, PutReply, ReplySender, Update};
use crate::error::Result;
use crate::log::codec::{Codecs, Encoded};
use crate::log::data_file::DataFile;
use crate::log::format::FormatError;
use crate::log::format::record::{Codec, Encryption, RecordHeader, RecordKind, SEAL_LEN, body_crc};
use crate::log::hint_file::Hint;
use crate::log::key_run::KeyRun;
use crate::log::stored_file::StoredFile;
use crate::moment::Place;
use crate::stats::Compacted;
use crate::types::{EntryInfo, ExpiresAt, FileId, KeyHash, KeyspaceId, Seqno};

/// How far a write must have come before it is acknowledged; the per-write form of
/// [`Durability`](crate::Durability).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    /// On disk (W2).
    Sync,
    /// In the page cache: survives the process, not the machine.
    Written,
}

/// Key and value of a record as they are stored, made by the caller: one allocation for a borrowed value, no
/// copy of an owned one, unless it is compressed or encrypted. The checksum over both is computed by the caller (F3).
#[derive(Clone)]
pub(crate) struct Body {
    pub(crate) keyspace: KeyspaceId,
    /// The key, and behind it the value unless `tail` holds it.
    pub(crate) head: Bytes,
    pub(crate) tail: Bytes,
    pub(crate) key_len: u16,
    pub(crate) codec: Codec,
    /// Length of the caller's value, if it is stored compressed.
    pub(crate) raw_len: Option<u64>,
    pub(crate) crc: u32,
}

/// Up to this many bytes, copying a value is cheaper than a second allocation.
const VALUE_COPY_LEN_MAX: usize = 4 << 10;

impl Body {
    /// Of a record that has no value.
    pub(crate) fn key_only(codecs: &Codecs, keyspace: KeyspaceId, key: Bytes) -> Body {
        match codecs.encode(RecordKind::Del, keyspace, &key, &[]) {
            Some(encoded) => Body::encoded(keyspace, key.len() as u16, encoded),
            None => Body::unencoded(keyspace, key, Bytes::new()),
        }
    }

    /// Of a put, with its value in one allocation; `None` if the value is long and stored as it is, which
    /// needs no copy of it ([`plain`](Self::plain)).
    pub(crate) fn copied(
        codecs: &Codecs,
        keyspace: KeyspaceId,
        key: &[u8],
        value: &[u8],
    ) -> Option<Body> {
        let key_len = key.len() as u16;
        match codecs.encode(RecordKind::Put, keyspace, key, value) {
            Some(encoded) => Some(Body::encoded(keyspace, key_len, encoded)),
            None if value.len() <= VALUE_COPY_LEN_MAX => {
                Some(Body::joined(keyspace, key_len, [key, value].concat().into()))
            }
            None => None,
        }
    }

    /// With a value that [`copied`](Self::copied) left where it is.
    pub(crate) fn plain(keyspace: KeyspaceId, key: &[u8], value: Bytes) -> Body {
        Body::unencoded(keyspace, Bytes::copy_from_slice(key), value)
    }

    /// Of a put, with a value that was made here.
    pub(crate) fn of(codecs: &Codecs, keyspace: KeyspaceId, key: &[u8], value: Bytes) -> Body {
        Body::copied(codecs, keyspace, key, &value)
            .unwrap_or_else(|| Body::plain(keyspace, key, value))
    }

    /// A body that [`plain`](Self::plain) has made, as it is stored in a record of any kind but a put.
    pub(crate) fn encrypted(self, codecs: &Codecs, kind: RecordKind) -> Body {
        let (keyspace, key_len) = (self.keyspace, self.key_len);
        match codecs.encode(kind, keyspace, self.key(), &self.value()) {
            Some(encoded) => Body::encoded(keyspace, key_len, encoded),
            None => self,
        }
    }

    fn unencoded(keyspace: KeyspaceId, key: Bytes, value: Bytes) -> Body {
        let (key_len, crc) = (key.len() as u16, body_crc(&key, &value));
        let codec = Codec::default();
        Body { keyspace, head: key, tail: value, key_len, codec, raw_len: None, crc }
    }

    fn encoded(keyspace: KeyspaceId, key_len: u16, encoded: Encoded) -> Body {
        let Encoded { codec, raw_len, body } = encoded;
        Body { codec, raw_len, ..Body::joined(keyspace, key_len, body.into()) }
    }

    /// With the value behind its key, both as they are.
    pub(crate) fn joined(keyspace: KeyspaceId, key_len: u16, head: Bytes) -> Body {
        let (crc, tail) = (body_crc(&head, &[]), Bytes::new());
        Body { keyspace, head, tail, key_len, codec: Codec::default(), raw_len: None, crc }
    }

    /// Whether a put's value is stored as it is, behind its key.
    pub(crate) fn is_copied(codecs: &Codecs, value: &[u8]) -> bool {
        codecs.leave(value.len()) && value.len() <= VALUE_COPY_LEN_MAX
    }

    /// As it was read, but under the newest key.
    pub(crate) fn renewed(
        codecs: &Codecs,
        header: &RecordHeader,
        key_and_value: Bytes,
    ) -> Result<Body, FormatError> {
        let key_len = header.key_len;
        let (key, value) = key_and_value.split_at(usize::from(key_len));
        if let Some(encoded) = codecs.renew(header, key, value)? {
            return Ok(Body::encoded(header.keyspace, key_len, encoded));
        }
        Ok(Body {
            keyspace: header.keyspace,
            head: key_and_value,
            tail: Bytes::new(),
            key_len,
            codec: header.codec,
            raw_len: header.raw_len,
            crc: header.body_crc,
        })
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.head[..usize::from(self.key_len)]
    }

    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// What is stored under the key.
    pub(crate) fn value(&self) -> Bytes {
        let of_head = self.head.slice(usize::from(self.key_len)..);
        if of_head.is_empty() { self.tail.clone() } else { of_head }
    }

    pub(crate) fn value_len(&self) -> usize {
        self.len() - usize::from(self.key_len)
    }

    /// Length of the caller's value.
    pub(crate) fn raw_len(&self) -> u64 {
        let seal_len = if self.codec.encryption == Encryption::None { 0 } else { SEAL_LEN };
        self.raw_len.unwrap_or((self.value_len() - seal_len) as u64)
    }
}

/// A record of the key that was asked for, its value as it is stored.
pub(crate) struct Stored {
    pub(crate) header: RecordHeader,
    pub(crate) value: Bytes,
    /// Where it was read, for whoever finds that it cannot be decoded; nobody needs it of a value that is
    /// stored as it is.
    pub(crate) place: Option<Box<(PathBuf, u64)>>,
}

impl Stored {
    pub(crate) fn new(
        header: RecordHeader,
        value: Bytes,
        place: impl FnOnce() -> (PathBuf, u64),
    ) -> Stored {
        let place = (header.codec != Codec::default()).then(|| Box::new(place()));
        Stored { header, value, place }
    }

    /// The entry, decoded on the caller's thread.
    pub(crate) fn decode(self, codecs: &Codecs) -> Result<Entry> {
        match (codecs.decode(&self.header, &self.value), self.place) {
            (Ok(Some(value)), _) => Ok(Entry::new(value.into(), &self.header)),
            (Ok(None), _) => Ok(Entry::new(self.value, &self.header)),
            (Err(why), place) => {
                let (path, offset) = *place.unwrap_or_default();
                Err(why.at(&path, offset))
            }
        }
    }
}

/// A key's value as its caller gave it, and what else its record says.
pub(crate) struct Entry {
    pub(crate) value: Bytes,
    pub(crate) seqno: Seqno,
    pub(crate) expires_at: Option<ExpiresAt>,
}

impl Entry {
    pub(crate) fn new(value: Bytes, header: &RecordHeader) -> Entry {
        Entry { value, seqno: header.seqno, expires_at: header.expires_at() }
    }

    pub(crate) fn info(&self) -> EntryInfo {
        EntryInfo {
            seqno: self.seqno.0,
            value_len: self.value.len() as u64,
            expires_at: self.expires_at.map(ExpiresAt::as_time),
        }
    }
}

/// What came of asking for a part of a value.
pub(crate) enum ValuePart {
    Bytes(Bytes),
    /// What is stored has to be decoded as a whole.
    Coded,
}

/// Keys of one partition that are looked up at one moment.
pub(crate) struct GetMany {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) keys: Vec<(KeyHash, Bytes)>,
    pub(crate) reply: ReplySender<Result<Vec<Option<Stored>>>>,
}

/// The record at a place that somebody holds on to, whatever the keydir says.
pub(crate) struct GetAt {
    pub(crate) place: Place,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: Bytes,
    pub(crate) reply: ReplySender<Result<Option<Stored>>>,
}

pub(crate) enum Request {
    Put {
        hash: KeyHash,
        body: Body,
        expires_at: Option<ExpiresAt>,
        durable: Durable,
        reply: PutReply,
    },
    /// Puts that are acknowledged together, once they are written.
    PutMany(Box<PutMany>),
    Del {
        hash: KeyHash,
        body: Body,
        durable: Durable,
        reply: ReplySender<Result<bool>>,
    },
    /// Deletes every key of a range, which the body has as key and value ([`RangeDel`](crate::ranges::RangeDel)).
    RangeDel {
        body: Body,
        /// Nothing is ever to be put into the keyspace again.
        is_drop: bool,
        durable: Durable,
        reply: ReplySender<Result<()>>,
    },
    /// Decided with the newest state of the key at hand.
    Update(Box<Update>),
    /// All of it happens, or nothing.
    Batch(Box<Batch>),
    Get {
        hash: KeyHash,
        keyspace: KeyspaceId,
        key: Bytes,
        reply: ReplySender<Result<Option<Stored>>>,
    },
    GetAt(Box<GetAt>),
    /// A part of a long value: these offsets, as far as it goes.
    GetRange {
        hash: KeyHash,
        keyspace: KeyspaceId,
        key: Bytes,
        range: Range<u64>,
        reply: ReplySender<Result<Option<ValuePart>>>,
    },
    GetMany(Box<GetMany>),
    Sync {
        reply: ReplySender<Result<()>>,
    },
    /// Bytes of a file that are not in memory; fewer only where the file ends.
    Page {
        of: PageOf,
        offset: u64,
        len: usize,
        reply: ReplySender<Result<Vec<u8>>>,
    },
    /// A hint was found wrong by a scan (H1).
    HintBroken {
        data: Arc<DataFile>,
        hint: Arc<Hint>,
        reply: ReplySender<Result<()>>,
    },
    /// Compacts what gains anything; with `only`, of these files alone.
    Compact {
        only: Option<Vec<FileId>>,
        reply: ReplySender<Result<Compacted>>,
    },
    CompactCancel {
        reply: ReplySender<Result<()>>,
    },
}

impl Request {
    /// Bytes that the request keeps in memory while it is queued (W5).
    pub(crate) fn len_bytes(&self) -> usize {
        match self {
            Request::Put { body, .. }
            | Request::Del { body, .. }
            | Request::RangeDel { body, .. } => body.len(),
            Request::PutMany(many) => many.puts.iter().map(|(_, body)| body.len()).sum(),
            Request::Update(update) => update.key.len() + update.change.len_bytes(),
            Request::Batch(batch) => batch.len_bytes(),
            Request::Get { key, .. } | Request::GetRange { key, .. } => key.len(),
            Request::GetAt(get) => get.key.len(),
            Request::GetMany(many) => many.keys.iter().map(|(_, key)| key.len()).sum(),
            Request::Sync { .. }
            | Request::Page { .. }
            | Request::HintBroken { .. }
            | Request::Compact { .. }
            | Request::CompactCancel { .. } => 0,
        }
    }
}

/// The file that a page is of; it stays readable while anybody reads it, whatever compaction does.
#[derive(Clone)]
pub(crate) enum PageOf {
    Data(Arc<DataFile>),
    /// Of the hint; upkeep is to be the last to let go of the data file (G3).
    Hint(#[expect(dead_code, reason = "held, not read")] Arc<DataFile>, Arc<Hint>),
    Keys(Arc<KeyRun>),
}

impl PageOf {
    pub(crate) fn stored(&self) -> &Arc<StoredFile> {
        match self {
            PageOf::Data(data) => &data.stored,
            PageOf::Hint(_, hint) => &hint.stored,
            PageOf::Keys(run) => &run.stored,
        }
    }
}
