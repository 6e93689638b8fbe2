//! What an operation that looks before it writes makes of what it finds. Pure.

use std::io::Write as _;

use bytes::{Bytes, BytesMut};

use super::groups::Answer;
use crate::error::{Error, Result};
use crate::log::codec::Codecs;
use crate::mailbox::{Body, Change, Expected, Expiry, Swap, Update, When};
use crate::types::{ExpiresAt, Seqno};

/// Digits of the longest `i64`, and its sign.
const INTEGER_LEN_MAX: usize = 20;

/// What is known of a key.
pub(super) enum Found {
    Absent,
    /// And nobody asked for more.
    Present,
    Record(Old),
}

/// The newest record of a key.
pub(super) struct Old {
    /// As its caller gave it; empty if the change does not [look at it](Change::needs_value).
    pub(super) value: Bytes,
    pub(super) seqno: Seqno,
    pub(super) expires_at: Option<ExpiresAt>,
    /// As it is stored, if the change [writes it again](Change::keeps_value).
    pub(super) body: Option<Body>,
}

/// What is to be written.
pub(super) enum Write {
    Nothing,
    Put { body: Body, expires_at: Option<ExpiresAt> },
    Del,
}

/// Decides; refused changes are answered here.
pub(super) fn decide(update: Update, found: &Found, codecs: &Codecs) -> Option<(Write, Answer)> {
    let Update { keyspace, key, change, value_len_max, expiry, .. } = update;
    let record = match found {
        Found::Record(old) => Some(old),
        Found::Absent | Found::Present => None,
    };
    let old = record.map(|old| old.value.clone());
    let expires_at = match (expiry, record) {
        (Expiry::At(at), _) | (Expiry::Keep { or: at }, None) => at,
        (Expiry::Keep { .. }, Some(old)) => old.expires_at,
    };
    let put = |body| Write::Put { body, expires_at };
    let decided = match change {
        Change::PutIf { when, body, reply } => {
            let is_there = !matches!(found, Found::Absent);
            let is_met = is_there == (when == When::Present);
            let write = if is_met { put(body) } else { Write::Nothing };
            (write, answer(move |done| reply.send(done.map(|()| is_met))))
        }
        Change::Swap { expected, body, reply } => {
            let is_met = is_as_expected(&expected, found);
            let swap = if is_met { Swap::Done } else { Swap::Mismatch(old) };
            let write = match body {
                Some(body) if is_met => put(body),
                None if is_met && !matches!(found, Found::Absent) => Write::Del,
                _ => Write::Nothing,
            };
            (write, answer(move |done| reply.send(done.map(|()| swap))))
        }
        Change::Exchange { body, reply } => {
            let write = match body {
                Some(body) => put(body),
                None if old.is_some() => Write::Del,
                None => Write::Nothing,
            };
            (write, answer(move |done| reply.send(done.map(|()| old))))
        }
        Change::Del { reply } => {
            let was_there = !matches!(found, Found::Absent);
            let write = if was_there { Write::Del } else { Write::Nothing };
            (write, answer(move |done| reply.send(done.map(|()| was_there))))
        }
        Change::Incr { by, reply } => match incremented(old.as_deref(), by) {
            Ok(sum) => {
                let mut digits = Vec::with_capacity(INTEGER_LEN_MAX);
                write!(digits, "{sum}").expect("memory can be written to");
                let body = Body::of(codecs, keyspace, &key, Bytes::from(digits));
                (put(body), answer(move |done| reply.send(done.map(|()| sum))))
            }
            Err(error) => {
                reply.send(Err(error));
                return None;
            }
        },
        Change::Append { tail, reply } => {
            let old = old.unwrap_or_default();
            let len = old.len() as u64 + tail.len() as u64;
            if len > value_len_max as u64 {
                reply.send(Err(Error::invalid(format!(
                    "the value would be {len} bytes long; value_len_max is {value_len_max}"
                ))));
                return None;
            }
            let mut value = BytesMut::with_capacity(len as usize);
            value.extend_from_slice(&old);
            value.extend_from_slice(&tail);
            let body = Body::of(codecs, keyspace, &key, value.freeze());
            (put(body), answer(move |done| reply.send(done.map(|()| len))))
        }
        Change::Expire { reply } => {
            let is_met = record.is_some_and(|old| expires_at.is_some() || old.expires_at.is_some());
            let write = match record {
                Some(Old { body: Some(body), .. }) if is_met => put(body.clone()),
                _ => Write::Nothing,
            };
            (write, answer(move |done| reply.send(done.map(|()| is_met))))
        }
    };
    Some(decided)
}

/// Whether a key is as somebody expects it to be.
pub(super) fn is_as_expected(expected: &Expected, found: &Found) -> bool {
    match (expected, found) {
        (Expected::Absent, found) => matches!(found, Found::Absent),
        (Expected::Value(value), Found::Record(old)) => old.value == *value,
        (Expected::Seqno(seqno), Found::Record(old)) => old.seqno.0 == *seqno,
        (Expected::Value(_) | Expected::Seqno(_), _) => false,
    }
}

/// Length of the longest value that the change may write, as it is stored.
pub(super) fn value_len_max(change: &Change, found: &Found) -> usize {
    let old = match found {
        Found::Record(old) => Some(old),
        Found::Absent | Found::Present => None,
    };
    match change {
        Change::PutIf { body, .. }
        | Change::Swap { body: Some(body), .. }
        | Change::Exchange { body: Some(body), .. } => body.value_len(),
        Change::Swap { .. } | Change::Exchange { .. } | Change::Del { .. } => 0,
        Change::Incr { .. } => INTEGER_LEN_MAX,
        Change::Append { tail, .. } => old.map_or(0, |old| old.value.len()) + tail.len(),
        Change::Expire { .. } => old.and_then(|old| old.body.as_ref()).map_or(0, Body::value_len),
    }
}

fn answer(reply: impl FnOnce(Result<()>) + 'static) -> Answer {
    Answer::Decided(Box::new(reply))
}

fn incremented(old: Option<&[u8]>, by: i64) -> Result<i64> {
    let Some(old) = old else { return Ok(by) };
    let number = std::str::from_utf8(old)
        .ok()
        .and_then(|text| Some((text, text.parse::<i64>().ok()?)))
        // Only what an increment would have written: not "+1", not "01".
        .filter(|(text, number)| number.to_string() == **text)
        .map(|(_, number)| number);
    let number = number.ok_or_else(|| {
        Error::invalid("the value is not a decimal integer of 64 bits, so it cannot be incremented")
    })?;
    number.checked_add(by).ok_or_else(|| {
        Error::invalid(format!("{number} incremented by {by} is no integer of 64 bits"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_what_an_increment_writes() {
        for (old, by, sum) in [("0", 5, 5), ("-7", 7, 0), ("9223372036854775806", 1, i64::MAX)] {
            assert_eq!(incremented(Some(old.as_bytes()), by).unwrap(), sum);
        }
        assert_eq!(incremented(None, -3).unwrap(), -3);
        for old in ["", " 1", "+1", "01", "-0", "1.0", "9223372036854775808", "\u{ff}"] {
            let error = incremented(Some(old.as_bytes()), 0).unwrap_err();
            assert!(error.to_string().contains("not a decimal integer"), "{old}: {error}");
        }
        assert!(incremented(Some(b"9223372036854775807"), 1).is_err());
        assert!(incremented(Some(b"-9223372036854775808"), -1).is_err());
    }
}
