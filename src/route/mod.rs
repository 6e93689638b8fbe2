//! Which partition owns a key. Pure: no state, no I/O.
//!
//! ## Invariants
//! - **RT1** The same store gives the same key the same partition on every machine and in every
//!   process: routing depends on the hash key and partition count of MANIFEST alone.
//! - **RT2** Going from `n` to `m` partitions moves only keys whose new partition is one that was
//!   added, or whose old partition was one that was removed.
//! - **RT3** A key that was in a partition under some map, and is there under the map since then that had most
//!   partitions, has not left it as long as there was that partition; and one that goes takes its files with it. So
//!   what is in a file counts if its key belongs there by the widest map since the file was written.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::types::{KeyHash, KeyspaceId, PartitionId};

/// Hashes (keyspace ‖ key) with SipHash-1-3 to 128 bits under the store's random key.
///
/// Keyed, so that nobody who does not know the key can craft colliding keys; the keydir relies on
/// that, because it keeps no keys (DESIGN K1). Source: Aumasson and Bernstein, “SipHash: a fast
/// short-input PRF”, 2012.
#[derive(Clone)]
pub(crate) struct KeyHasher {
    sip: SipHasher13,
}

impl KeyHasher {
    pub(crate) fn new(hash_key: &[u8; 16]) -> KeyHasher {
        KeyHasher { sip: SipHasher13::new_with_key(hash_key) }
    }

    pub(crate) fn hash(&self, keyspace: KeyspaceId, key: &[u8]) -> KeyHash {
        let mut sip = self.sip;
        sip.write(&keyspace.0.to_le_bytes());
        sip.write(key);
        let hash = sip.finish128();
        KeyHash { bucket: hash.h1, table: hash.h2 as u32, route: (hash.h2 >> 32) as u32 }
    }
}

/// The consistent-hash map from key to partition.
///
/// Jump consistent hash: no table to store, perfectly even, and a change of the count moves the
/// fewest keys that any even map can move (RT2). Source: Lamping and Veach, "A Fast, Minimal
/// Memory, Consistent Hash Algorithm", 2014.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartitionMap {
    partition_count: u32,
}

impl PartitionMap {
    pub(crate) fn new(partition_count: u32) -> PartitionMap {
        assert!(partition_count > 0, "a store has at least one partition");
        PartitionMap { partition_count }
    }

    pub(crate) fn partition_of(self, hash: KeyHash) -> PartitionId {
        // Spread the 32 routing bits over 64, as the generator below wants a full-width seed.
        let mut state = u64::from(hash.route).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut chosen = 0;
        let mut next = 0_u64;
        while next < u64::from(self.partition_count) {
            chosen = next;
            state = state.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
            let draw = ((state >> 33) + 1) as f64;
            #[expect(clippy::cast_sign_loss, reason = "both factors are positive")]
            let jump = ((chosen + 1) as f64 * ((1_u64 << 31) as f64 / draw)) as u64;
            next = jump;
        }
        PartitionId(chosen as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RT3, over whole histories of counts.
    #[test]
    fn the_widest_map_tells_whether_a_key_ever_left() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..100 {
            let counts: Vec<u32> = (0..random.usize(1..6)).map(|_| random.u32(1..9)).collect();
            let widest = counts.iter().copied().max().expect("there is one");
            for hash in hashes(200) {
                let of = |count| PartitionMap::new(count).partition_of(hash);
                let was = of(counts[0]);
                let mut with_it = counts.iter().filter(|&&count| count > was.0);
                let stayed = with_it.all(|&count| of(count) == was);
                assert_eq!(of(widest) == of(counts[0]), stayed, "{counts:?}");
            }
        }
    }

    fn hashes(count: u32) -> impl Iterator<Item = KeyHash> {
        let hasher = KeyHasher::new(b"0123456789abcdef");
        (0..count).map(move |n| hasher.hash(KeyspaceId(0), &n.to_le_bytes()))
    }

    /// A change here would lose every key of every existing store (RT1). The figures come from an
    /// implementation of both papers in another language.
    #[test]
    fn hash_and_route_never_change() {
        let hasher = KeyHasher::new(b"0123456789abcdef");
        let hash = hasher.hash(KeyspaceId(7), b"ringcask");
        assert_eq!(
            (hash.bucket, hash.table, hash.route),
            (0x8957_09f0_8a2e_141d, 0x425d_1bbe, 0x71b5_de65)
        );
        let routes: Vec<u32> =
            hashes(12).map(|hash| PartitionMap::new(5).partition_of(hash).0).collect();
        assert_eq!(routes, [0, 4, 0, 4, 4, 3, 0, 0, 3, 0, 1, 4]);
    }

    #[test]
    fn a_keyspace_is_part_of_the_key() {
        let hasher = KeyHasher::new(b"0123456789abcdef");
        assert_ne!(hasher.hash(KeyspaceId(0), b"k"), hasher.hash(KeyspaceId(1), b"k"));
    }

    #[test]
    fn partitions_are_even() {
        for partition_count in [1, 2, 3, 8, 31] {
            let map = PartitionMap::new(partition_count);
            let mut counts = vec![0_u32; partition_count as usize];
            for hash in hashes(40_000) {
                counts[map.partition_of(hash).0 as usize] += 1;
            }
            let mean = 40_000 / partition_count;
            for count in counts {
                assert!(count > mean * 85 / 100 && count < mean * 115 / 100, "{count} of {mean}");
            }
        }
    }

    /// RT2: without it `repartition` would rewrite the whole store.
    #[test]
    fn a_new_count_moves_only_what_must_move() {
        for (from, to) in [(2, 3), (4, 5), (8, 12), (5, 2)] {
            let (before, after) = (PartitionMap::new(from), PartitionMap::new(to));
            for hash in hashes(10_000) {
                let (old, new) = (before.partition_of(hash).0, after.partition_of(hash).0);
                assert!(old == new || new >= from || old >= to, "{old} → {new}");
            }
        }
    }
}
