//! Ranges of keys that were deleted as a whole and that the keydir still has entries of.
//!
//! A range tombstone hides every record of its range with a smaller sequence number, at once; taking the
//! entries out of the keydir takes a walk over the hints, which upkeep makes later. Until then whoever has a
//! record in hand asks here whether it is hidden. There are none of these most of the time, and then asking is
//! one load.
//!
//! ## Invariants
//! - **RG1** Pieces do not overlap, and each has the largest sequence number of all ranges over it: only the
//!   newest range over a key says anything that the others do not.
//! - **RG2** A reader asks before it looks the key up. Asked afterwards, a range could have been worked off in
//!   between, and the entry that was found would seem to count.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::log::format::record::RecordHeader;
use crate::types::{KeyspaceId, Seqno};

/// One range tombstone: keys from `begin` on, before `end`. An empty `end` is no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeDel {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) begin: Bytes,
    pub(crate) end: Bytes,
    pub(crate) seqno: Seqno,
}

impl RangeDel {
    /// What the record of a range tombstone says.
    pub(crate) fn of(header: &RecordHeader, key: &[u8], value: &[u8]) -> RangeDel {
        RangeDel {
            keyspace: header.keyspace,
            begin: Bytes::copy_from_slice(key),
            end: Bytes::copy_from_slice(value),
            seqno: header.seqno,
        }
    }

    pub(crate) fn covers(&self, keyspace: KeyspaceId, key: &[u8]) -> bool {
        self.keyspace == keyspace && *self.begin <= *key && is_before(key, &self.end)
    }
}

/// Longest key.
const LEN_MAX: usize = crate::limits::KEY_LEN_MAX;

/// Where the keys between two bounds begin and end, as a record says it; `None` if there can be none.
///
/// No key is empty, so the smallest is a zero byte, and an empty end can stand for none.
pub(crate) fn bounds_of(from: Bound<&[u8]>, to: Bound<&[u8]>) -> Option<(Bytes, Bytes)> {
    let begin = match from {
        Bound::Unbounded | Bound::Included([]) | Bound::Excluded([]) => Bytes::from_static(&[0]),
        Bound::Included(key) if key.len() <= LEN_MAX => Bytes::copy_from_slice(key),
        Bound::Excluded(key) if key.len() < LEN_MAX => Bytes::from([key, &[0]].concat()),
        // No key lies between this one and those that begin as it does.
        Bound::Included(key) | Bound::Excluded(key) => behind_prefix(&key[..LEN_MAX])?,
    };
    let end = match to {
        Bound::Unbounded => Bytes::new(),
        Bound::Excluded([]) | Bound::Included([]) => return None,
        Bound::Excluded(key) if key.len() <= LEN_MAX => Bytes::copy_from_slice(key),
        Bound::Excluded(key) | Bound::Included(key) => {
            Bytes::from([&key[..key.len().min(LEN_MAX)], &[0]].concat())
        }
    };
    is_before(&begin, &end).then_some((begin, end))
}

/// Where the keys that begin with `prefix` begin and end.
pub(crate) fn bounds_of_prefix(prefix: &[u8]) -> Option<(Bytes, Bytes)> {
    if prefix.is_empty() {
        return bounds_of(Bound::Unbounded, Bound::Unbounded);
    }
    let begin = (prefix.len() <= LEN_MAX).then(|| Bytes::copy_from_slice(prefix))?;
    Some((begin, behind_prefix(prefix).unwrap_or_default()))
}

/// The first key behind all that begin with `prefix`, if there is one.
fn behind_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(Bytes::from(next))
}

/// Whether a key comes before the end of a range.
pub(crate) fn is_before(key: &[u8], end: &[u8]) -> bool {
    end.is_empty() || key < end
}

/// What some range tombstones hide together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    /// By where they begin.
    spaces: BTreeMap<KeyspaceId, BTreeMap<Bytes, Piece>>,
    seqno_max: Seqno,
}

#[derive(Clone, Debug)]
struct Piece {
    end: Bytes,
    seqno: Seqno,
}

impl Ranges {
    /// What all of `ranges` hide, whatever order they are in.
    pub(crate) fn of(mut ranges: Vec<RangeDel>) -> Ranges {
        ranges.sort_unstable_by_key(|range| range.seqno);
        let mut all = Ranges::default();
        for range in &ranges {
            all.insert(range);
        }
        all
    }

    /// Adds a range that is newer than all that are there.
    pub(crate) fn insert(&mut self, range: &RangeDel) {
        let RangeDel { keyspace, begin, end, seqno } = range;
        if !is_before(begin, end) {
            return;
        }
        self.seqno_max = self.seqno_max.max(*seqno);
        let space = self.spaces.entry(*keyspace).or_default();
        split(space, begin);
        let is_inside = if end.is_empty() {
            Bound::Unbounded
        } else {
            split(space, end);
            Bound::Excluded(&end[..])
        };
        let hidden = space.range::<[u8], _>((Bound::Included(&begin[..]), is_inside));
        let hidden: Vec<Bytes> = hidden.map(|(begin, _)| begin.clone()).collect();
        for begin in hidden {
            space.remove(&begin);
        }
        space.insert(begin.clone(), Piece { end: end.clone(), seqno: *seqno });
    }

    /// The sequence number below which no record of the key counts; zero if no range is over it.
    pub(crate) fn cover(&self, keyspace: KeyspaceId, key: &[u8]) -> Seqno {
        let Some(space) = self.spaces.get(&keyspace) else { return Seqno(0) };
        let mut before = space.range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        match before.next_back() {
            Some((_, piece)) if is_before(key, &piece.end) => piece.seqno,
            _ => Seqno(0),
        }
    }

    /// Whether a range is over any key from `from` on, before `to`; perhaps also if only over `to` itself.
    pub(crate) fn touch(&self, from: (KeyspaceId, &[u8]), to: Option<(KeyspaceId, &[u8])>) -> bool {
        if self.cover(from.0, from.1) > Seqno(0) {
            return true;
        }
        let inside = (Bound::Included(from.0), Bound::Unbounded);
        let mut begins = self.spaces.range(inside).filter_map(|(keyspace, space)| {
            let behind =
                if *keyspace == from.0 { Bound::Excluded(from.1) } else { Bound::Unbounded };
            space
                .range::<[u8], _>((behind, Bound::Unbounded))
                .next()
                .map(|(begin, _)| (*keyspace, &begin[..]))
        });
        begins.next().is_some_and(|begin| to.is_none_or(|to| begin <= to))
    }

    /// The largest sequence number of any range that was ever added.
    pub(crate) fn seqno_max(&self) -> Seqno {
        self.seqno_max
    }

    /// Forgets what was hidden by ranges up to this sequence number.
    pub(crate) fn forget_through(&mut self, seqno: Seqno) {
        for space in self.spaces.values_mut() {
            space.retain(|_, piece| piece.seqno > seqno);
        }
        self.spaces.retain(|_, space| !space.is_empty());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spaces.is_empty()
    }

    /// Number of pieces.
    pub(crate) fn len(&self) -> usize {
        self.spaces.values().map(BTreeMap::len).sum()
    }
}

/// Makes the piece over `at`, if there is one that begins before it, two.
fn split(space: &mut BTreeMap<Bytes, Piece>, at: &Bytes) {
    let before = (Bound::Unbounded, Bound::Excluded(&at[..]));
    let Some((_, piece)) = space.range_mut::<[u8], _>(before).next_back() else { return };
    if is_before(at, &piece.end) {
        let rest = piece.clone();
        piece.end = at.clone();
        space.insert(at.clone(), rest);
    }
}

/// The ranges of a partition for readers on any thread.
#[derive(Default)]
pub(crate) struct SharedRanges {
    any: AtomicBool,
    ranges: ArcSwap<Ranges>,
}

impl SharedRanges {
    /// [`Ranges::cover`] as of now (RG2).
    pub(crate) fn cover(&self, keyspace: KeyspaceId, key: &[u8]) -> Seqno {
        // Whoever sees that there is none also sees what was taken out of the keydir before.
        if self.any.load(Ordering::Acquire) {
            self.ranges.load().cover(keyspace, key)
        } else {
            Seqno(0)
        }
    }

    /// IMPORTANT: a range is shown before the deletion is acknowledged, and is shown until no keydir entry of
    /// its keys is left.
    pub(crate) fn show(&self, ranges: &Ranges) {
        self.ranges.store(Arc::new(ranges.clone()));
        self.any.store(!ranges.is_empty(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(begin: &'static str, end: &'static str, seqno: u64) -> RangeDel {
        RangeDel {
            keyspace: KeyspaceId(1),
            begin: Bytes::from(begin),
            end: Bytes::from(end),
            seqno: Seqno(seqno),
        }
    }

    /// RG1: breaks if a newer range takes more or less of an older one than it is over.
    #[test]
    fn ranges_hide_what_the_newest_of_each_key_hides() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..500 {
            let mut ranges = Vec::new();
            for seqno in 1..12 {
                let key = |random: &mut fastrand::Rng| Bytes::from(vec![b'a' + random.u8(..12)]);
                let begin = key(&mut random);
                let end = if random.u8(..6) == 0 { Bytes::new() } else { key(&mut random) };
                let keyspace = KeyspaceId(random.u32(..2));
                let made = RangeDel { keyspace, begin, end, seqno: Seqno(seqno) };
                ranges.push(made);
            }
            random.shuffle(&mut ranges);
            let mut all = Ranges::of(ranges.clone());
            for through in [0, 4, 11] {
                all.forget_through(Seqno(through));
                for keyspace in (0..2).map(KeyspaceId) {
                    for byte in b'a'..b'o' {
                        let key = [byte];
                        let covering = ranges.iter().filter(|range| range.covers(keyspace, &key));
                        let newest = covering.map(|range| range.seqno).max().unwrap_or_default();
                        let expected = if newest.0 > through { newest } else { Seqno(0) };
                        assert_eq!(all.cover(keyspace, &key), expected, "{ranges:?} {key:?}");
                        let until = (keyspace, &[byte + 1][..]);
                        let touch = all.touch((keyspace, &key), Some(until));
                        let is_next = all.cover(keyspace, until.1) > Seqno(0);
                        assert!(
                            touch >= (expected > Seqno(0)) && (!touch || expected.0 > 0 || is_next)
                        );
                    }
                }
            }
            assert_eq!((all.is_empty(), all.len()), (true, 0));
        }
    }

    /// Breaks if a range takes a key more or less than its bounds say: at the ends, and with bounds that are
    /// longer than any key.
    #[test]
    fn bounds_mean_the_keys_between_them() {
        let longest = |last: u8| [&vec![b'm'; LEN_MAX - 1][..], &[last]].concat();
        let mut keys: Vec<Vec<u8>> = ["\0", "\0\0", "a", "a\0", "a\0\0", "ab", "b", "m", "n"]
            .map(|key| key.as_bytes().to_vec())
            .into();
        keys.extend([0, 1, b'm', 255].map(longest));
        keys.extend([vec![255], vec![255; LEN_MAX]]);
        let mut ends = keys.clone();
        ends.extend([vec![], vec![b'm'; LEN_MAX + 1], vec![255; LEN_MAX + 1]]);
        ends.push([longest(0), vec![0]].concat());
        let kinds = |key| [Bound::Included(key), Bound::Excluded(key), Bound::Unbounded];
        for (from, to) in ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to))) {
            for from in kinds(&from[..]) {
                for to in kinds(&to[..]) {
                    let bounds = bounds_of(from, to);
                    for key in &keys {
                        let expected = (match from {
                            Bound::Included(from) => key[..] >= *from,
                            Bound::Excluded(from) => key[..] > *from,
                            Bound::Unbounded => true,
                        }) && match to {
                            Bound::Included(to) => key[..] <= *to,
                            Bound::Excluded(to) => key[..] < *to,
                            Bound::Unbounded => true,
                        };
                        let found = bounds
                            .as_ref()
                            .is_some_and(|(begin, end)| begin <= key && is_before(key, end));
                        assert_eq!(found, expected, "{} bytes", key.len());
                    }
                }
            }
        }
        for prefix in &ends {
            let bounds = bounds_of_prefix(prefix);
            for key in &keys {
                let found =
                    bounds.as_ref().is_some_and(|(begin, end)| begin <= key && is_before(key, end));
                assert_eq!(found, key.starts_with(prefix), "{} bytes", key.len());
            }
        }
    }

    #[test]
    fn a_range_is_found_from_keyspaces_before_it() {
        let all = Ranges::of(vec![range("m", "", 3)]);
        assert!(all.touch((KeyspaceId(0), b"z"), None));
        assert!(all.touch((KeyspaceId(0), b"z"), Some((KeyspaceId(1), b"n"))));
        assert!(!all.touch((KeyspaceId(0), b"z"), Some((KeyspaceId(1), b"l"))));
        assert!(!all.touch((KeyspaceId(2), b"a"), None));
        assert_eq!(all.cover(KeyspaceId(1), b"zzz"), Seqno(3));
        assert_eq!(all.seqno_max(), Seqno(3));
    }

    #[test]
    fn readers_are_told_once_it_is_shown() {
        let shared = SharedRanges::default();
        let mut all = Ranges::default();
        assert_eq!(shared.cover(KeyspaceId(1), b"k"), Seqno(0));
        all.insert(&range("a", "z", 9));
        shared.show(&all);
        assert_eq!(shared.cover(KeyspaceId(1), b"k"), Seqno(9));
        all.forget_through(Seqno(9));
        shared.show(&all);
        assert_eq!(shared.cover(KeyspaceId(1), b"k"), Seqno(0));
    }
}
