//! MANIFEST: what every partition of a store agrees on, as text that a person can read.
//!
//! The text is TOML. Its last line, a comment to TOML, holds the CRC-32C of every byte before it,
//! in hex: an edit that looks harmless would route keys to partitions that do not have them, so it
//! is refused instead. `MANIFEST.example` at the top of the repository is a real one.
//!
//! ## Invariants
//! - **M1** The checksum is judged before the content, and the version before any other field: a
//!   newer store is reported as newer whatever its fields are called.
//! - **M2** Keyspace ids are positive, increase, and are below `keyspace_next`; names have 1 to 255 bytes and
//!   are not repeated. Id 0 is the default keyspace, which has no name and no entry (N1).
//! - **M3** Wider maps are older ones with more partitions than any that came after: their epochs increase, their
//!   counts decrease, down to what the store has now.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::format::{FormatError, check_crc};
use super::layout;
use super::layout::FILE_ID_MAX;
use crate::error::{Error, Result};
use crate::io::Fs;
use crate::limits;
use crate::types::{FileId, KeyId, KeyspaceId, StoreId};

/// The newest version of the directory layout that this build reads, and the one it writes.
pub(crate) const MANIFEST_VERSION: u32 = 1;

const PREAMBLE: &str = "\
# Ringcask store: what all of its partitions agree on.
#
# The last line is a checksum of every byte above it: do not edit, the store would not open.
# Every data file repeats the store id, the hash key and the map epoch, so this file can be rebuilt.

";

const CRC_LINE_START: &str = "# crc32c = \"";
const CRC_LINE_END: &str = "\"\n";
const CRC_LINE_LEN: usize = CRC_LINE_START.len() + 8 + CRC_LINE_END.len();

/// A named keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestKeyspace {
    pub(crate) id: KeyspaceId,
    pub(crate) name: String,
    /// In milliseconds; zero is "never", and `None` leaves it to the store's options.
    pub(crate) default_ttl_ms: Option<u64>,
    /// It is being dropped: its records go, and then its name.
    pub(crate) is_dropping: bool,
}

/// A map that was in force once, with more partitions than any since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WiderMap {
    /// The last epoch of it.
    pub(crate) through: u64,
    pub(crate) partition_count: u32,
}

/// The content of MANIFEST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) format_version: u32,
    pub(crate) store: StoreId,
    pub(crate) created_at_ms: u64,
    pub(crate) map_epoch: u64,
    pub(crate) partition_count: u32,
    pub(crate) hash_key: [u8; 16],
    /// The id that the next keyspace gets; ids are never reused.
    pub(crate) keyspace_next: KeyspaceId,
    /// The key that everything new is encrypted with.
    pub(crate) key: KeyId,
    /// By id.
    pub(crate) keyspaces: Vec<ManifestKeyspace>,
    /// A change of the partition count was begun, or what it leaves is not cleared away yet.
    pub(crate) is_repartitioning: bool,
    /// In order of their epochs (M3).
    pub(crate) wider_maps: Vec<WiderMap>,
    /// The first id of a file in a partition that is made anew: larger than all of partitions that were given up, because
    /// a backup may have files of these (F1).
    pub(crate) file_next: FileId,
    /// Which of several that share `store`: that one itself, or a backup that was opened, and so has gone its own way
    /// (F5).
    pub(crate) instance: StoreId,
    /// Of which instance this is a backup that nobody has opened yet.
    pub(crate) backup_of: Option<StoreId>,
    /// Lists may be waiting to take the place of `FILES`.
    pub(crate) lists_next: bool,
}

/// The fields as TOML spells them, in the order in which they are written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format_version: u32,
    store: String,
    created_at_ms: u64,
    map_epoch: u64,
    partition_count: u32,
    hash_key: String,
    keyspace_next: u32,
    /// In hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encryption_key: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    repartitioning: bool,
    /// Left out where it is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file_next: Option<u64>,
    /// Left out where it is the store itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backup_of: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    lists_next: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keyspaces: Vec<KeyspaceText>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    wider_maps: Vec<WiderMapText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WiderMapText {
    through: u64,
    partition_count: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyspaceText {
    id: u32,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_ttl_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    dropping: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The one field that a MANIFEST of any version has.
#[derive(Deserialize)]
struct VersionText {
    format_version: u32,
}

impl Manifest {
    /// The text of MANIFEST.
    ///
    /// An `Err` is content that [`decode`](Manifest::decode) would refuse, like an empty keyspace
    /// name.
    pub(crate) fn encode(&self) -> Result<String, FormatError> {
        self.check()?;
        let text = Text {
            format_version: self.format_version,
            store: self.store.to_string(),
            created_at_ms: self.created_at_ms,
            map_epoch: self.map_epoch,
            partition_count: self.partition_count,
            hash_key: format!("{:032x}", u128_of(self.hash_key)),
            keyspace_next: self.keyspace_next.0,
            encryption_key: (self.key != KeyId::NONE).then(|| self.key.to_string()),
            instance: (self.instance != self.store).then(|| self.instance.to_string()),
            backup_of: self.backup_of.map(|of| of.to_string()),
            lists_next: self.lists_next,
            keyspaces: self
                .keyspaces
                .iter()
                .map(|keyspace| KeyspaceText {
                    id: keyspace.id.0,
                    name: keyspace.name.clone(),
                    default_ttl_ms: keyspace.default_ttl_ms,
                    dropping: keyspace.is_dropping,
                })
                .collect(),
            repartitioning: self.is_repartitioning,
            file_next: (self.file_next != FileId(1)).then_some(self.file_next.0),
            wider_maps: self
                .wider_maps
                .iter()
                .map(|map| WiderMapText {
                    through: map.through,
                    partition_count: map.partition_count,
                })
                .collect(),
        };
        let fields = toml::to_string(&text)
            .map_err(|error| FormatError::invalid(format!("MANIFEST cannot hold it: {error}")))?;
        let covered = format!("{PREAMBLE}{fields}\n");
        let crc_line = crc_line(crc32c::crc32c(covered.as_bytes()));
        Ok(covered + &crc_line)
    }

    /// Replaces MANIFEST of the store at `root`.
    pub(crate) fn replace(&self, fs: &Fs, root: &Path) -> Result<()> {
        let path = root.join(layout::MANIFEST);
        let text = self.encode().map_err(|why| Error::invalid(why.to_string()))?;
        fs.replace_file(root, layout::MANIFEST, text.as_bytes())
            .map_err(|source| Error::io("write", &path, source))
    }

    /// The manifest that `bytes`, a whole MANIFEST, says.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
        let covered = check_crc_line(bytes)?;
        let covered = std::str::from_utf8(covered)
            .map_err(|_| FormatError::invalid("MANIFEST is not UTF-8 text"))?;
        let VersionText { format_version } = parse(covered)?;
        if format_version > MANIFEST_VERSION {
            return Err(FormatError::NewerVersion(format_version));
        }
        let text: Text = parse(covered)?;
        let uuid = |text: &str| {
            parse_store(text)
                .ok_or_else(|| FormatError::invalid("a store id in MANIFEST is not a uuid"))
        };
        let store = uuid(&text.store)?;
        let manifest = Manifest {
            format_version,
            store,
            instance: text.instance.as_deref().map_or(Ok(store), uuid)?,
            backup_of: text.backup_of.as_deref().map(uuid).transpose()?,
            lists_next: text.lists_next,
            created_at_ms: text.created_at_ms,
            map_epoch: text.map_epoch,
            partition_count: text.partition_count,
            hash_key: parse_hex(&text.hash_key).ok_or_else(|| {
                FormatError::invalid("the hash key in MANIFEST is not 32 hex digits")
            })?,
            keyspace_next: KeyspaceId(text.keyspace_next),
            key: text.encryption_key.map_or(Ok(KeyId::NONE), |id| parse_key_id(&id))?,
            keyspaces: text
                .keyspaces
                .into_iter()
                .map(|keyspace| ManifestKeyspace {
                    id: KeyspaceId(keyspace.id),
                    name: keyspace.name,
                    default_ttl_ms: keyspace.default_ttl_ms,
                    is_dropping: keyspace.dropping,
                })
                .collect(),
            is_repartitioning: text.repartitioning,
            file_next: FileId(text.file_next.unwrap_or(1)),
            wider_maps: text
                .wider_maps
                .into_iter()
                .map(|map| WiderMap { through: map.through, partition_count: map.partition_count })
                .collect(),
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// Puts the right checksum line at the end of made-up bytes.
    #[cfg(feature = "sim")]
    pub(in crate::log) fn forge(bytes: &mut [u8]) {
        let Some(at_line) = bytes.len().checked_sub(CRC_LINE_LEN) else { return };
        let (covered, line) = bytes.split_at_mut(at_line);
        line.copy_from_slice(crc_line(crc32c::crc32c(covered)).as_bytes());
    }

    /// Checked before the manifest is written and after it is read.
    fn check(&self) -> Result<(), FormatError> {
        if self.format_version != MANIFEST_VERSION {
            return Err(FormatError::invalid(format!(
                "MANIFEST has format version {}, which never existed",
                self.format_version
            )));
        }
        if !(1..=limits::PARTITIONS_MAX).contains(&self.partition_count) {
            return Err(FormatError::invalid(format!(
                "MANIFEST says {} partitions, not 1 to {}",
                self.partition_count,
                limits::PARTITIONS_MAX
            )));
        }
        self.check_maps()?;
        if !(1..=FILE_ID_MAX).contains(&self.file_next.0) {
            return Err(FormatError::invalid("MANIFEST has an id that no file can have"));
        }
        if self.lists_next && self.backup_of.is_none() {
            return Err(FormatError::invalid("lists are to be put in place that are of no backup"));
        }
        let mut newest = KeyspaceId::default();
        let mut names = HashSet::new();
        for ManifestKeyspace { id, name, .. } in &self.keyspaces {
            if *id <= newest {
                return Err(FormatError::invalid("the keyspace ids do not increase (M2)"));
            }
            if name.is_empty() || name.len() > limits::KEYSPACE_NAME_LEN_MAX {
                return Err(FormatError::invalid(format!(
                    "a keyspace has a name of {} bytes, not of 1 to {} (M2)",
                    name.len(),
                    limits::KEYSPACE_NAME_LEN_MAX
                )));
            }
            if !names.insert(name.as_str()) {
                return Err(FormatError::invalid(format!(
                    "the keyspace name {name:?} is repeated (M2)"
                )));
            }
            newest = *id;
        }
        if newest < self.keyspace_next {
            Ok(())
        } else {
            Err(FormatError::invalid("a keyspace has an id that was not given out yet (M2)"))
        }
    }
}

impl Manifest {
    fn check_maps(&self) -> Result<(), FormatError> {
        if are_in_order(&self.wider_maps, self.map_epoch, self.partition_count) {
            Ok(())
        } else {
            Err(FormatError::invalid("the wider maps are not in order (M3)"))
        }
    }

    /// The same store with another number of partitions.
    pub(crate) fn with_partitions(&self, partition_count: u32) -> Manifest {
        let mut wider_maps = self.wider_maps.clone();
        wider_maps
            .push(WiderMap { through: self.map_epoch, partition_count: self.partition_count });
        wider_maps.retain(|map| map.partition_count > partition_count);
        let map_epoch = self.map_epoch.saturating_add(1);
        Manifest { map_epoch, partition_count, wider_maps, ..self.clone() }
    }
}

/// M3, for the maps of before `map_epoch`, when there were `partition_count` partitions.
pub(in crate::log) fn are_in_order(
    wider_maps: &[WiderMap],
    map_epoch: u64,
    partition_count: u32,
) -> bool {
    let (mut through, mut count) = (0, limits::PARTITIONS_MAX + 1);
    wider_maps.iter().all(|map| {
        let is_next = map.through > through
            && map.through < map_epoch
            && (partition_count + 1..count).contains(&map.partition_count);
        (through, count) = (map.through, map.partition_count);
        is_next
    })
}

fn crc_line(crc: u32) -> String {
    format!("{CRC_LINE_START}{crc:08x}{CRC_LINE_END}")
}

/// The bytes above the checksum line, if it is theirs.
fn check_crc_line(bytes: &[u8]) -> Result<&[u8], FormatError> {
    let no_line = || FormatError::invalid("MANIFEST does not end in its checksum line");
    let at_line = bytes.len().checked_sub(CRC_LINE_LEN).ok_or_else(no_line)?;
    let (covered, line) = bytes.split_at_checked(at_line).ok_or_else(no_line)?;
    let found = crc32c::crc32c(covered);
    if line == crc_line(found).as_bytes() {
        return Ok(covered);
    }
    let expected = line
        .strip_prefix(CRC_LINE_START.as_bytes())
        .and_then(|rest| rest.strip_suffix(CRC_LINE_END.as_bytes()))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or_else(no_line)?;
    check_crc("MANIFEST", expected, found)?;
    // The number is right and its spelling is not, so these are not the bytes that were written.
    Err(no_line())
}

fn parse<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, FormatError> {
    toml::from_str(text)
        .map_err(|error| FormatError::invalid(format!("MANIFEST: {}", error.message())))
}

/// LY1 for ids: only what would be written for the same id is accepted.
fn parse_store(text: &str) -> Option<StoreId> {
    let digits: String = text.chars().filter(|digit| *digit != '-').collect();
    let store = StoreId(parse_hex(&digits)?);
    (store.to_string() == text).then_some(store)
}

fn parse_key_id(text: &str) -> Result<KeyId, FormatError> {
    u64::from_str_radix(text, 16)
        .ok()
        .map(KeyId)
        .filter(|id| *id != KeyId::NONE && id.to_string() == text)
        .ok_or_else(|| FormatError::invalid("the encryption key in MANIFEST is not a key's id"))
}

/// 32 lower-case hex digits.
fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok()?;
    (format!("{number:032x}") == text).then(|| bytes_of(number))
}

/// The number that prints as the bytes do, first byte first.
fn u128_of(bytes: [u8; 16]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn bytes_of(number: u128) -> [u8; 16] {
    let mut bytes = number.to_le_bytes();
    bytes.reverse();
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::each_flip;
    use super::*;

    const EXAMPLE: &[u8] = include_bytes!("../../MANIFEST.example");

    fn manifest() -> Manifest {
        let keyspace = |id, name: &str, default_ttl_ms, is_dropping| ManifestKeyspace {
            id: KeyspaceId(id),
            name: name.into(),
            default_ttl_ms,
            is_dropping,
        };
        Manifest {
            format_version: MANIFEST_VERSION,
            store: StoreId(bytes_of(0x3f0e_63a1_5b0c_4d52_9c31_7de0_b2a9_41f8)),
            created_at_ms: 1_760_000_000_000,
            map_epoch: 1,
            partition_count: 4,
            hash_key: bytes_of(0x0a83_c5d1_77e2_4f60_b19d_2e8c_6453_fa07),
            keyspace_next: KeyspaceId(4),
            key: KeyId::NONE,
            keyspaces: vec![
                keyspace(1, "sessions", Some(1_800_000), false),
                keyspace(3, "carts", None, true),
            ],
            is_repartitioning: false,
            file_next: FileId(1),
            wider_maps: Vec::new(),
            instance: StoreId(bytes_of(0x3f0e_63a1_5b0c_4d52_9c31_7de0_b2a9_41f8)),
            backup_of: None,
            lists_next: false,
        }
    }

    fn keyspace() -> ManifestKeyspace {
        ManifestKeyspace {
            id: KeyspaceId(1),
            name: "k".into(),
            default_ttl_ms: None,
            is_dropping: false,
        }
    }

    /// The text of the example with a part replaced and its checksum made good again.
    fn forged(from: &str, to: &str) -> Vec<u8> {
        let text = std::str::from_utf8(EXAMPLE).unwrap();
        let covered = &text[..text.len() - CRC_LINE_LEN];
        assert!(covered.contains(from), "{from}");
        let covered = covered.replace(from, to);
        (covered.clone() + &crc_line(crc32c::crc32c(covered.as_bytes()))).into_bytes()
    }

    /// The golden bytes of this file are the example that people read.
    #[test]
    fn manifest_example_is_a_real_one() {
        assert_eq!(Manifest::decode(EXAMPLE), Ok(manifest()));
        assert_eq!(manifest().encode().unwrap().as_bytes(), EXAMPLE);
    }

    #[test]
    fn backups_say_of_what_they_are() {
        let other = StoreId([7; 16]);
        for (instance, backup_of, lists_next) in [
            (other, None, false),
            (manifest().instance, Some(other), false),
            (other, Some(manifest().store), true),
        ] {
            let manifest = Manifest { instance, backup_of, lists_next, ..manifest() };
            let text = manifest.encode().unwrap();
            assert_eq!(Manifest::decode(text.as_bytes()), Ok(manifest));
        }
    }

    #[test]
    fn names_that_toml_must_escape_come_back() {
        for name in ["\"", "\n# crc32c = \"00000000\"\n", "ключ", "[[keyspaces]]", "\u{0}\u{7f}\\"]
        {
            let keyspaces = vec![ManifestKeyspace { name: name.into(), ..keyspace() }];
            let manifest = Manifest { keyspaces, ..manifest() };
            let text = manifest.encode().unwrap();
            assert_eq!(Manifest::decode(text.as_bytes()), Ok(manifest), "{name:?}");
        }
    }

    #[test]
    fn stores_without_keyspaces_and_with_the_largest_numbers_come_back() {
        let largest = Manifest {
            created_at_ms: u64::MAX,
            map_epoch: u64::MAX,
            partition_count: limits::PARTITIONS_MAX,
            hash_key: [0xff; 16],
            keyspace_next: KeyspaceId(u32::MAX),
            key: KeyId(u64::MAX),
            ..manifest()
        };
        let smallest = Manifest {
            created_at_ms: 0,
            hash_key: [0; 16],
            keyspace_next: KeyspaceId(1),
            keyspaces: Vec::new(),
            ..manifest()
        };
        for manifest in [largest, smallest] {
            let text = manifest.encode().unwrap();
            assert_eq!(Manifest::decode(text.as_bytes()), Ok(manifest));
        }
    }

    /// Breaks if a store that went from seven partitions to three, five and two takes what was left behind under
    /// some map for current.
    #[test]
    fn m3_wider_maps_are_remembered_as_long_as_they_are_wider() {
        let maps = |manifest: &Manifest| -> Vec<(u64, u32)> {
            let text = manifest.encode().unwrap();
            assert_eq!(Manifest::decode(text.as_bytes()).as_ref(), Ok(manifest));
            manifest.wider_maps.iter().map(|map| (map.through, map.partition_count)).collect()
        };
        let seven = Manifest { partition_count: 7, is_repartitioning: true, ..manifest() };
        assert_eq!(maps(&seven), []);
        let three = seven.with_partitions(3);
        assert_eq!((maps(&three), three.map_epoch), (vec![(1, 7)], 2));
        let five = three.with_partitions(5);
        assert_eq!(maps(&five), [(1, 7)]);
        let two = five.with_partitions(2);
        assert_eq!(maps(&two), [(1, 7), (3, 5)]);
        let six = two.with_partitions(6);
        assert_eq!((maps(&six), six.map_epoch), (vec![(1, 7)], 5));
        assert_eq!(maps(&six.with_partitions(7)), []);
        let swapped = two.wider_maps.iter().rev().copied().collect();
        assert!(Manifest { wider_maps: swapped, ..two }.encode().is_err());
    }

    /// Breaks if the bounds on names and their number let MANIFEST grow longer than what is read of it: the
    /// store would open no more.
    #[test]
    fn as_many_keyspaces_as_there_may_be_still_fit() {
        // Nothing is longer as TOML than a byte that has to be escaped.
        let name =
            |n: usize| format!("{n:08x}{}", "\u{1}".repeat(limits::KEYSPACE_NAME_LEN_MAX - 8));
        let keyspaces = (0..limits::KEYSPACES_MAX).map(|n| ManifestKeyspace {
            id: KeyspaceId(u32::MAX - limits::KEYSPACES_MAX as u32 + n as u32),
            name: name(n),
            default_ttl_ms: Some(i64::MAX as u64),
            is_dropping: true,
        });
        let keyspaces = keyspaces.collect();
        let manifest = Manifest { keyspace_next: KeyspaceId(u32::MAX), keyspaces, ..manifest() };
        let text = manifest.encode().unwrap();
        assert!(text.len() as u64 <= limits::MANIFEST_LEN_MAX, "{}", text.len());
        assert_eq!(Manifest::decode(text.as_bytes()), Ok(manifest));
    }

    #[test]
    fn every_flip_is_refused() {
        each_flip(EXAMPLE, |index, bytes| {
            assert!(Manifest::decode(bytes).is_err(), "byte {index}");
        });
    }

    #[test]
    fn every_other_length_is_refused() {
        for len in 0..EXAMPLE.len() {
            assert!(Manifest::decode(&EXAMPLE[..len]).is_err(), "{len} bytes");
        }
        let longer = [EXAMPLE, b"\n"].concat();
        assert!(Manifest::decode(&longer).is_err(), "one byte too many");
    }

    /// A text that was edited by hand says what is wrong, with the checksum that would be right.
    #[test]
    fn an_edit_is_reported_as_a_checksum_mismatch() {
        let edited = std::str::from_utf8(EXAMPLE)
            .unwrap()
            .replace("partition_count = 4", "partition_count = 5");
        let error = Manifest::decode(edited.as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("MANIFEST checksum mismatch"), "{error}");
    }

    #[test]
    fn m1_a_newer_version_is_reported_before_its_fields_are_judged() {
        let newer = forged("format_version = 1", "format_version = 2\nshape = \"round\"");
        assert_eq!(Manifest::decode(&newer), Err(FormatError::NewerVersion(2)));
        let unknown = forged("format_version = 1", "format_version = 1\nshape = \"round\"");
        let error = Manifest::decode(&unknown).unwrap_err();
        assert!(error.to_string().contains("shape"), "{error}");
    }

    #[test]
    fn m2_fields_that_no_store_has_are_refused() {
        for (from, to) in [
            ("format_version = 1", "format_version = 0"),
            ("format_version = 1", "format_version = -1"),
            ("format_version = 1\n", ""),
            ("partition_count = 4", "partition_count = 0"),
            ("partition_count = 4", "partition_count = 4097"),
            ("map_epoch = 1", "map_epoch = \"1\""),
            ("3f0e63a1-", "3f0e63a1"),
            ("3f0e63a1-", "3F0E63A1-"),
            ("3f0e63a1-", "+f0e63a1-"),
            ("0a83c5d1", "0a83c5d"),
            ("0a83c5d1", "+a83c5d1"),
            ("keyspace_next = 4", "keyspace_next = 3"),
            ("keyspace_next = 4", "keyspace_next = 4\nencryption_key = \"00000000000000f\""),
            ("keyspace_next = 4", "keyspace_next = 4\nencryption_key = \"0000000000000000\""),
            ("keyspace_next = 4", "keyspace_next = 4\nencryption_key = \"00000000000000FF\""),
            ("keyspace_next = 4", "keyspace_next = 4\ninstance = \"3f0e63a1\""),
            ("keyspace_next = 4", "keyspace_next = 4\nbackup_of = \"\""),
            ("keyspace_next = 4", "keyspace_next = 4\nlists_next = true"),
            ("id = 3", "id = 1"),
            ("id = 1", "id = 0"),
            ("\"carts\"", "\"sessions\""),
            ("\"carts\"", "\"\""),
            ("dropping = true", "dropping = 1"),
            ("default_ttl_ms = 1800000", "default_ttl_ms = -1"),
        ] {
            let error = Manifest::decode(&forged(from, to)).unwrap_err();
            assert!(matches!(error, FormatError::Invalid(_)), "{from} → {to}: {error}");
            assert!(!error.to_string().contains('\n'), "{from} → {to}: one line, not {error}");
        }
    }

    #[test]
    fn a_manifest_that_could_not_be_read_is_never_written() {
        for manifest in [
            Manifest { format_version: 2, ..manifest() },
            Manifest { partition_count: 0, ..manifest() },
            Manifest { lists_next: true, ..manifest() },
            Manifest { keyspace_next: KeyspaceId(3), ..manifest() },
            Manifest {
                keyspaces: vec![ManifestKeyspace { name: "n".repeat(256), ..keyspace() }],
                ..manifest()
            },
        ] {
            assert!(manifest.encode().is_err(), "{manifest:?}");
        }
    }
}
