//! Which keys a scan is about, and in which order.

use std::ops::Bound;

use bytes::Bytes;

use crate::types::KeyspaceId;

/// A stretch of one keyspace, and a direction.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) keyspace: KeyspaceId,
    from: Bound<Bytes>,
    to: Bound<Bytes>,
    pub(super) is_reverse: bool,
}

impl Span {
    pub(super) fn all(keyspace: KeyspaceId) -> Span {
        Span { keyspace, from: Bound::Unbounded, to: Bound::Unbounded, is_reverse: false }
    }

    /// Only keys that begin with `prefix`, of those that it is about already.
    pub(super) fn narrow_to_prefix(&mut self, prefix: &[u8]) {
        if prefix.is_empty() {
            return;
        }
        let to = behind_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        self.narrow(Bound::Included(Bytes::copy_from_slice(prefix)), to);
    }

    /// Only keys between these, of those that it is about already.
    pub(super) fn narrow(&mut self, from: Bound<Bytes>, to: Bound<Bytes>) {
        if is_tighter(&from, &self.from, |a, b| a > b) {
            self.from = from;
        }
        if is_tighter(&to, &self.to, |a, b| a < b) {
            self.to = to;
        }
    }

    /// What is left behind `key`, in its direction.
    pub(super) fn behind(&self, key: &[u8]) -> Span {
        let mut left = self.clone();
        let bound = Bound::Excluded(Bytes::copy_from_slice(key));
        if self.is_reverse {
            left.narrow(Bound::Unbounded, bound);
        } else {
            left.narrow(bound, Bound::Unbounded);
        }
        left
    }

    /// Whether the key is in front of all of it, in its direction.
    #[inline]
    pub(super) fn is_before(&self, keyspace: KeyspaceId, key: &[u8]) -> bool {
        if self.is_reverse { self.is_above(keyspace, key) } else { self.is_below(keyspace, key) }
    }

    /// Whether the key is behind all of it, in its direction.
    #[inline]
    pub(super) fn is_behind(&self, keyspace: KeyspaceId, key: &[u8]) -> bool {
        if self.is_reverse { self.is_below(keyspace, key) } else { self.is_above(keyspace, key) }
    }

    /// A place to look for where it begins, in its direction: what lies before, in order of keys, cannot
    /// matter if it goes forwards, nor what lies behind if it goes backwards. `None` if everything can.
    pub(super) fn edge(&self) -> Option<(KeyspaceId, &[u8])> {
        if self.is_reverse {
            match &self.to {
                Bound::Included(key) | Bound::Excluded(key) => Some((self.keyspace, key)),
                Bound::Unbounded => {
                    self.keyspace.0.checked_add(1).map(|next| (KeyspaceId(next), &[][..]))
                }
            }
        } else {
            match &self.from {
                Bound::Included(key) | Bound::Excluded(key) => Some((self.keyspace, key)),
                Bound::Unbounded => Some((self.keyspace, &[])),
            }
        }
    }

    fn is_below(&self, keyspace: KeyspaceId, key: &[u8]) -> bool {
        if keyspace != self.keyspace {
            return keyspace < self.keyspace;
        }
        match &self.from {
            Bound::Unbounded => false,
            Bound::Included(from) => key < &from[..],
            Bound::Excluded(from) => key <= &from[..],
        }
    }

    fn is_above(&self, keyspace: KeyspaceId, key: &[u8]) -> bool {
        if keyspace != self.keyspace {
            return keyspace > self.keyspace;
        }
        match &self.to {
            Bound::Unbounded => false,
            Bound::Included(to) => key > &to[..],
            Bound::Excluded(to) => key >= &to[..],
        }
    }
}

/// Whether `new` leaves out more than `old`; `is_farther` compares keys in the direction that leaves out.
fn is_tighter(
    new: &Bound<Bytes>,
    old: &Bound<Bytes>,
    is_farther: impl Fn(&Bytes, &Bytes) -> bool,
) -> bool {
    match (new, old) {
        (Bound::Unbounded, _) => false,
        (_, Bound::Unbounded) => true,
        (Bound::Excluded(new), Bound::Included(old)) => !is_farther(old, new),
        (
            Bound::Included(new) | Bound::Excluded(new),
            Bound::Included(old) | Bound::Excluded(old),
        ) => is_farther(new, old),
    }
}

/// The first key behind all that begin with `prefix`; `None` if there is none.
fn behind_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut behind = prefix[..=last].to_vec();
    behind[last] += 1;
    Some(Bytes::from(behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYSPACE: KeyspaceId = KeyspaceId(3);

    fn random_key(random: &mut fastrand::Rng) -> Vec<u8> {
        let len = random.usize(..4);
        std::iter::repeat_with(|| *random.choice(&[0, 7, 0xfe, 0xff]).expect("four"))
            .take(len)
            .collect()
    }

    fn random_bound(random: &mut fastrand::Rng) -> Bound<Vec<u8>> {
        match random.u8(..3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(random_key(random)),
            _ => Bound::Excluded(random_key(random)),
        }
    }

    /// Breaks if a bound is off by one, or narrowing forgets what was narrowed before.
    #[test]
    fn a_key_is_in_a_span_if_all_that_narrowed_it_admit_it() {
        let random = &mut fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let mut span = Span::all(KEYSPACE);
            span.is_reverse = random.bool();
            let key = random_key(random);
            let mut is_in = true;
            for _ in 0..random.u8(..4) {
                let (from, to) = (random_bound(random), random_bound(random));
                is_in &= match &from {
                    Bound::Unbounded => true,
                    Bound::Included(from) => &key >= from,
                    Bound::Excluded(from) => &key > from,
                } && match &to {
                    Bound::Unbounded => true,
                    Bound::Included(to) => &key <= to,
                    Bound::Excluded(to) => &key < to,
                };
                span.narrow(from.map(Bytes::from), to.map(Bytes::from));
                let prefix = random_key(random);
                if random.u8(..3) == 0 {
                    is_in &= key.starts_with(&prefix);
                    span.narrow_to_prefix(&prefix);
                }
                let passed = random_key(random);
                if random.u8(..3) == 0 {
                    is_in &= if span.is_reverse { key < passed } else { key > passed };
                    span = span.behind(&passed);
                }
            }
            let (before, behind) = (span.is_before(KEYSPACE, &key), span.is_behind(KEYSPACE, &key));
            assert_eq!(!before && !behind, is_in, "{key:?} in {span:?}");
            assert_eq!(span.is_before(KeyspaceId(2), &key), !span.is_reverse);
            assert_eq!(span.is_behind(KeyspaceId(4), &key), !span.is_reverse);
            if let (false, Some(edge)) = (before, span.edge()) {
                assert!(span.is_reverse || (KEYSPACE, &key[..]) >= edge);
                assert!(!span.is_reverse || (KEYSPACE, &key[..]) <= edge);
            }
        }
    }
}
