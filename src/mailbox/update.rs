//! Operations that look before they write, as data: the worker decides them, because nobody else can
//! write the key meanwhile.

use bytes::Bytes;

use super::{Body, Durable, ReplySender};
use crate::error::{Error, Result};
use crate::types::{ExpiresAt, KeyHash, KeyspaceId};

/// One operation that looks before it writes.
pub(crate) struct Update {
    pub(crate) hash: KeyHash,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: Bytes,
    pub(crate) durable: Durable,
    /// Of what is written.
    pub(crate) expiry: Expiry,
    /// Longest value that may come of it.
    pub(crate) value_len_max: usize,
    pub(crate) change: Change,
}

impl Update {
    /// The key, and the space that it is in.
    pub(crate) fn full_key(&self) -> (KeyspaceId, &[u8]) {
        (self.keyspace, &self.key)
    }
}

/// When what is written expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    At(Option<ExpiresAt>),
    /// When what was there does; of a new key, at the given time.
    Keep {
        or: Option<ExpiresAt>,
    },
}

/// What is to be done, and who is told.
pub(crate) enum Change {
    PutIf {
        when: When,
        body: Body,
        reply: ReplySender<Result<bool>>,
    },
    /// Without a body, deletes.
    Swap {
        expected: Expected,
        body: Option<Body>,
        reply: ReplySender<Result<Swap>>,
    },
    /// Without a body, deletes.
    Exchange {
        body: Option<Body>,
        reply: ReplySender<Result<Option<Bytes>>>,
    },
    /// Deletes; as much as [`Request::Del`](super::Request::Del) does, of a key whose entry says too little.
    Del {
        reply: ReplySender<Result<bool>>,
    },
    Incr {
        by: i64,
        reply: ReplySender<Result<i64>>,
    },
    Append {
        tail: Bytes,
        reply: ReplySender<Result<u64>>,
    },
    /// Writes the value again, to expire at another time, or never if it would have; says whether it did.
    Expire {
        reply: ReplySender<Result<bool>>,
    },
}

impl Change {
    /// Whether it has to know more than that there is something.
    pub(crate) fn needs_record(&self) -> bool {
        match self {
            Change::PutIf { .. } => false,
            Change::Swap { .. }
            | Change::Exchange { .. }
            | Change::Del { .. }
            | Change::Incr { .. }
            | Change::Append { .. }
            | Change::Expire { .. } => true,
        }
    }

    /// Whether it writes the value again as it is stored.
    pub(crate) fn keeps_value(&self) -> bool {
        matches!(self, Change::Expire { .. })
    }

    /// Whether it looks at the value, not only at the record that holds it.
    pub(crate) fn needs_value(&self) -> bool {
        match self {
            Change::PutIf { .. } | Change::Del { .. } | Change::Expire { .. } => false,
            Change::Swap { .. }
            | Change::Exchange { .. }
            | Change::Incr { .. }
            | Change::Append { .. } => true,
        }
    }

    /// Whether it deletes, if it writes at all.
    pub(crate) fn is_del(&self) -> bool {
        matches!(
            self,
            Change::Swap { body: None, .. }
                | Change::Exchange { body: None, .. }
                | Change::Del { .. }
        )
    }

    /// Bytes that it keeps in memory.
    pub(crate) fn len_bytes(&self) -> usize {
        let body_len = |body: &Option<Body>| body.as_ref().map_or(0, Body::len);
        match self {
            Change::PutIf { body, .. } => body.len(),
            Change::Swap { expected: Expected::Value(value), body, .. } => {
                value.len() + body_len(body)
            }
            Change::Swap { body, .. } | Change::Exchange { body, .. } => body_len(body),
            Change::Append { tail, .. } => tail.len(),
            Change::Del { .. } | Change::Incr { .. } | Change::Expire { .. } => 0,
        }
    }

    pub(crate) fn fail(self, error: &Error) {
        let error = error.clone();
        match self {
            Change::PutIf { reply, .. } | Change::Del { reply } | Change::Expire { reply } => {
                reply.send(Err(error));
            }
            Change::Swap { reply, .. } => reply.send(Err(error)),
            Change::Exchange { reply, .. } => reply.send(Err(error)),
            Change::Incr { reply, .. } => reply.send(Err(error)),
            Change::Append { reply, .. } => reply.send(Err(error)),
        }
    }
}

/// When a conditional put stores its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Absent,
    Present,
}

/// What a [`compare_and_swap`](crate::Db::compare_and_swap) expects to find.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// No such key.
    Absent,
    /// Exactly this value.
    Value(Bytes),
    /// The write with this sequence number, as [`EntryInfo::seqno`](crate::EntryInfo::seqno) says: cheaper to send than a long
    /// value, and it notices a value that was replaced by an equal one.
    Seqno(u64),
}

macro_rules! expected_from {
    ($($type:ty => $convert:expr,)*) => {$(
        impl From<$type> for Expected {
            fn from(value: $type) -> Expected {
                Expected::Value($convert(value))
            }
        }

        impl From<Option<$type>> for Expected {
            fn from(value: Option<$type>) -> Expected {
                value.map_or(Expected::Absent, Expected::from)
            }
        }
    )*};
}

expected_from! {
    &str => |value: &str| Bytes::copy_from_slice(value.as_bytes()),
    String => Bytes::from,
    &[u8] => Bytes::copy_from_slice,
    Vec<u8> => Bytes::from,
    Bytes => |value| value,
}

/// How a [`compare_and_swap`](crate::Db::compare_and_swap) ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// What was expected was there, and has been replaced.
    Done,
    /// Something else was there, this, and still is; `None` if the key is absent.
    Mismatch(Option<Bytes>),
}

impl Swap {
    /// Whether the value was replaced.
    pub fn is_done(&self) -> bool {
        *self == Swap::Done
    }
}
