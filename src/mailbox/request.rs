//! What callers ask of a partition.

use std::sync::Arc;

use bytes::Bytes;

use super::{ReplySender, Update};
use crate::error::Result;
use crate::log::data_file::DataFile;
use crate::log::format::record::{RecordHeader, body_crc};
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

/// Key and value of a record as the caller made them: one allocation for a borrowed value, no copy
/// of an owned one. The checksum over both is computed by the caller (F3).
pub(crate) struct Body {
    pub(crate) keyspace: KeyspaceId,
    /// The key, and behind it the value unless `tail` holds it.
    pub(crate) head: Bytes,
    pub(crate) tail: Bytes,
    pub(crate) key_len: u16,
    pub(crate) crc: u32,
}

impl Body {
    pub(crate) fn key_only(keyspace: KeyspaceId, key: Bytes) -> Body {
        let (key_len, crc) = (key.len() as u16, body_crc(&key, &[]));
        Body { keyspace, head: key, tail: Bytes::new(), key_len, crc }
    }

    /// As [`key_only`](Self::key_only), with a value; the checksum is computed here.
    pub(crate) fn of(keyspace: KeyspaceId, key: &[u8], value: Bytes) -> Body {
        let (key_len, crc) = (key.len() as u16, body_crc(key, &value));
        Body { keyspace, head: Bytes::copy_from_slice(key), tail: value, key_len, crc }
    }

    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    pub(crate) fn value_len(&self) -> usize {
        self.len() - usize::from(self.key_len)
    }
}

/// A key's value, and what else its record says.
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

pub(crate) enum Request {
    Put {
        hash: KeyHash,
        body: Body,
        expires_at: Option<ExpiresAt>,
        durable: Durable,
        reply: ReplySender<Result<()>>,
    },
    Del {
        hash: KeyHash,
        body: Body,
        durable: Durable,
        reply: ReplySender<Result<bool>>,
    },
    /// Decided with the newest state of the key at hand.
    Update(Box<Update>),
    Get {
        hash: KeyHash,
        keyspace: KeyspaceId,
        key: Bytes,
        reply: ReplySender<Result<Option<Entry>>>,
    },
    Sync {
        reply: ReplySender<Result<()>>,
    },
    /// `walk` is `None` for the first page of a walk, and what that page said for the others.
    Page {
        keyspace: KeyspaceId,
        walk: Option<Arc<Walk>>,
        from: PagePosition,
        reply: ReplySender<Result<Page>>,
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
            Request::Put { body, .. } | Request::Del { body, .. } => body.len(),
            Request::Update(update) => update.key.len() + update.change.len_bytes(),
            Request::Get { key, .. } => key.len(),
            Request::Sync { .. }
            | Request::Page { .. }
            | Request::Compact { .. }
            | Request::CompactCancel { .. } => 0,
        }
    }
}

/// What a walk over a partition's log reads: the files as they were when it began. They stay readable
/// while it lasts, whatever compaction does.
pub(crate) struct Walk {
    /// Each with the end of its records then.
    pub(crate) files: Vec<(Arc<DataFile>, u64)>,
}

impl Walk {
    /// Whether the walk comes past this place.
    pub(crate) fn covers(&self, file: FileId, offset: u64) -> bool {
        self.files.iter().any(|(data, end)| data.id == file && offset < *end)
    }
}

/// Where in a walk a page begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PagePosition {
    /// Which of the walk's files.
    pub(crate) file: usize,
    pub(crate) offset: u64,
}

/// Keys with a record in one stretch of the log that were there when the walk began and are still,
/// in log order; slices of one buffer.
pub(crate) struct Page {
    pub(crate) keys: Vec<Bytes>,
    pub(crate) walk: Arc<Walk>,
    /// Where the next page begins; `None` when this was the last one.
    pub(crate) next: Option<PagePosition>,
}
