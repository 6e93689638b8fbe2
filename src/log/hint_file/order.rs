//! Records in order of their keys, without the superseded ones.
//!
//! Items of 16 bytes are sorted by seven bytes of the key at a time, so that a comparison touches no
//! key. Items that those bytes do not tell apart are sorted by the next ones, behind what all of
//! them share; a long prefix that every key has costs one pass. Source: Bentley and Sedgewick,
//! "Fast Algorithms for Sorting and Searching Strings", 1997, with the next bytes beside each
//! pointer as in Ng and Kakehi, "Cache Efficient Radix Sort for String Sorting", 2007.

use super::builder::Pending;
use crate::log::format::hint::block::shared_len;
use crate::scratch;

/// Bytes of a sort key that one item holds.
const STEP: usize = 7;

/// In the lowest byte of a word: more bytes follow than it holds.
const MORE: u64 = STEP as u64 + 1;

#[derive(Clone, Copy)]
struct Item {
    /// Seven bytes of the sort key, and then how many of them it really has, or [`MORE`]: compares
    /// like the bytes, a key that ends here in front of one that goes on.
    word: u64,
    record: usize,
}

/// Instead of a record that another one of its key supersedes.
const SUPERSEDED: usize = usize::MAX;

/// Items that are equal in all bytes in front of `depth`.
struct Run {
    start: usize,
    end: usize,
    depth: usize,
}

/// Indexes of the newest record of each key, in order of keys (HI1).
pub(super) fn newest_by_key(records: &[Pending], arena: &[u8]) -> Vec<usize> {
    let sort_key = |item: &Item| records[item.record].sort_key(arena);
    let mut items: Vec<Item> = scratch::vec(records.len());
    items.extend((0..records.len()).map(|record| Item { word: 0, record }));
    // Not a recursion: keys may share prefixes of any length, each deeper than the other.
    let mut runs = vec![Run { start: 0, end: items.len(), depth: 0 }];
    while let Some(Run { start, end, depth }) = runs.pop() {
        let run = &mut items[start..end];
        let depth = depth + shared_by_all(run.iter().map(|item| &sort_key(item)[depth..]));
        for item in &mut *run {
            item.word = word_at(sort_key(item), depth);
        }
        run.sort_unstable_by_key(|item| item.word);
        let mut equal_start = start;
        for equal in run.chunk_by_mut(|a, b| a.word == b.word) {
            let equal_end = equal_start + equal.len();
            if equal.len() > 1 {
                if equal[0].word & 0xff == MORE {
                    runs.push(Run { start: equal_start, end: equal_end, depth: depth + STEP });
                } else {
                    keep_newest(equal, records);
                }
            }
            equal_start = equal_end;
        }
    }
    let kept = items.into_iter().map(|item| item.record);
    kept.filter(|record| *record != SUPERSEDED).collect()
}

/// Leaves one item of those whose keys are equal (K3).
fn keep_newest(equal: &mut [Item], records: &[Pending]) {
    let newest = equal.iter().map(|item| item.record).max_by_key(|record| records[*record].age());
    for item in &mut *equal {
        item.record = SUPERSEDED;
    }
    if let (Some(item), Some(newest)) = (equal.first_mut(), newest) {
        item.record = newest;
    }
}

fn shared_by_all<'a>(mut keys: impl Iterator<Item = &'a [u8]>) -> usize {
    let Some(first) = keys.next() else { return 0 };
    let mut shared = first.len();
    for key in keys {
        shared = shared_len(&first[..shared], key);
        if shared == 0 {
            break;
        }
    }
    shared
}

#[inline]
fn word_at(sort_key: &[u8], depth: usize) -> u64 {
    let rest = &sort_key[depth..];
    if let Some(bytes) = rest.first_chunk::<8>() {
        return big_endian(*bytes) & !0xff | MORE;
    }
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    big_endian(bytes) | rest.len() as u64
}

/// The number that compares like the bytes.
fn big_endian(bytes: [u8; 8]) -> u64 {
    u64::from_le_bytes(bytes).swap_bytes()
}
