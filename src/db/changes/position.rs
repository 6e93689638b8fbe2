//! How far somebody has come who follows the log.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::db::digits::{self, Digits};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{KEY_LEN_MAX, PARTITIONS_MAX};
use crate::log::format::data_header::DATA_HEADER_LEN;
use crate::types::{FileId, KeyspaceId, Seqno, StoreId};

/// How far [`Changes`](super::Changes) have come: behind which change to go on, in this process or after a restart. Kept as
/// bytes, or as a line of text.
///
/// It has 24 bytes for each partition, and says which store it is of.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ChangePosition {
    pub(super) store: StoreId,
    pub(super) map_epoch: u64,
    /// What the store holds is still being told, and that up to here.
    pub(super) walk: Option<WalkAt>,
    pub(super) places: Vec<Place>,
}

/// Behind this key; an empty one is before all of the keyspace.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct WalkAt {
    pub(super) keyspace: KeyspaceId,
    pub(super) key: Bytes,
}

/// Where the log of a partition goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// In this file of the log, or in the first one behind it.
    pub(super) file: FileId,
    /// Where a commit group begins.
    pub(super) offset: u64,
    /// The largest sequence number that was told, or that was in the log before it was followed.
    pub(super) top: Seqno,
}

impl Place {
    /// Before whatever file of the log comes after this one.
    pub(super) fn behind(file: FileId, top: Seqno) -> Place {
        Place { file: FileId(file.0.saturating_add(1)), offset: DATA_HEADER_LEN as u64, top }
    }
}

/// Version, store, map epoch, number of partitions, whether a walk is under way; then its keyspace and key, then the places,
/// then a CRC-32C of all that.
const VERSION: u8 = 1;
const HEAD_LEN: usize = 1 + 16 + 8 + 4 + 1;
const PLACE_LEN: usize = 24;
const CRC_LEN: usize = size_of::<u32>();
const LEN_MAX: usize = HEAD_LEN + 6 + KEY_LEN_MAX + PLACE_LEN * PARTITIONS_MAX as usize + CRC_LEN;

impl ChangePosition {
    /// The position as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.store.0);
        bytes.extend_from_slice(&self.map_epoch.to_le_bytes());
        bytes.extend_from_slice(&(self.places.len() as u32).to_le_bytes());
        bytes.push(u8::from(self.walk.is_some()));
        if let Some(WalkAt { keyspace, key }) = &self.walk {
            bytes.extend_from_slice(&keyspace.0.to_le_bytes());
            bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
            bytes.extend_from_slice(key);
        }
        for place in &self.places {
            for number in [place.file.0, place.offset, place.top.0] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Whether both are between the same commit groups, whatever of one of them was told.
    #[cfg(feature = "cli")]
    pub(crate) fn is_same_place(&self, other: &ChangePosition) -> bool {
        let places = self.places.iter().zip(&other.places);
        self.walk == other.walk
            && places.into_iter().all(|(a, b)| (a.file, a.offset) == (b.file, b.offset))
    }

    /// The position that [`to_bytes`](Self::to_bytes) has written.
    ///
    /// # Errors
    /// `InvalidArgument` for any other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<ChangePosition> {
        ChangePosition::decode(bytes).map_err(refused)
    }

    fn decode(bytes: &[u8]) -> Result<ChangePosition, &'static str> {
        const SHORT: &str = "it is too short";
        let (covered, crc) = bytes.split_last_chunk::<CRC_LEN>().ok_or(SHORT)?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err("its checksum does not hold");
        }
        let mut rest = covered;
        let [version] = take(&mut rest).ok_or(SHORT)?;
        if version != VERSION {
            return Err("it is of another version");
        }
        let store = StoreId(take(&mut rest).ok_or(SHORT)?);
        let map_epoch = u64::from_le_bytes(take(&mut rest).ok_or(SHORT)?);
        let count = u32::from_le_bytes(take(&mut rest).ok_or(SHORT)?) as usize;
        let walk = match take(&mut rest).ok_or(SHORT)? {
            [0] => None,
            [1] => {
                let keyspace = KeyspaceId(u32::from_le_bytes(take(&mut rest).ok_or(SHORT)?));
                let len = u16::from_le_bytes(take(&mut rest).ok_or(SHORT)?);
                let (key, behind) = rest.split_at_checked(len.into()).ok_or(SHORT)?;
                rest = behind;
                Some(WalkAt { keyspace, key: Bytes::copy_from_slice(key) })
            }
            _ => return Err("it is of another version"),
        };
        if count.checked_mul(PLACE_LEN) != Some(rest.len()) {
            return Err("it is not as long as it says");
        }
        let mut places = Vec::with_capacity(count);
        while let Some(file) = take(&mut rest) {
            let mut number = || take(&mut rest).map(u64::from_le_bytes).ok_or(SHORT);
            let (offset, top) = (number()?, Seqno(number()?));
            places.push(Place { file: FileId(u64::from_le_bytes(file)), offset, top });
        }
        Ok(ChangePosition { store, map_epoch, walk, places })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*taken)
}

fn refused(why: &str) -> Error {
    Error::invalid(format!("this is no position in the changes of a store: {why}"))
}

impl fmt::Display for ChangePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digits(&self.to_bytes()).fmt(f)
    }
}

impl fmt::Debug for ChangePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangePosition({self})")
    }
}

impl FromStr for ChangePosition {
    type Err = Error;

    /// # Errors
    /// `InvalidArgument` if the text is not one that a position was written as.
    fn from_str(text: &str) -> Result<ChangePosition> {
        let bytes = digits::parse(text, LEN_MAX).map_err(refused)?;
        ChangePosition::from_bytes(&bytes)
    }
}

#[cold]
pub(super) fn gone() -> Error {
    Error::new(
        ErrorKind::PositionGone,
        "the log from this position on is not there any more: begin from the beginning, and have more of it kept with \
         Options::changes_retention_bytes or changes_retention_age",
    )
}

#[cold]
pub(super) fn foreign(why: &str) -> Error {
    Error::new(
        ErrorKind::ForeignPosition,
        format!("the position is of {why}: begin from the beginning"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(walk: Option<WalkAt>) -> ChangePosition {
        let places =
            (1..4).map(|n| Place { file: FileId(n), offset: 128 * n, top: Seqno(n << 40) });
        ChangePosition { store: StoreId([7; 16]), map_epoch: 3, walk, places: places.collect() }
    }

    #[test]
    fn positions_come_back_from_bytes_and_text() {
        let walk = WalkAt { keyspace: KeyspaceId(5), key: "key".into() };
        for position in [position(None), position(Some(walk))] {
            assert_eq!(ChangePosition::from_bytes(&position.to_bytes()).unwrap(), position);
            assert_eq!(position.to_string().parse::<ChangePosition>().unwrap(), position);
        }
    }

    /// Breaks if other bytes are taken for a place in the log, where whatever is there would be called damaged.
    #[test]
    fn whatever_else_is_refused() {
        let bytes =
            position(Some(WalkAt { keyspace: KeyspaceId(5), key: "key".into() })).to_bytes();
        for index in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[index] ^= 4;
            assert!(ChangePosition::from_bytes(&flipped).is_err(), "byte {index}");
            assert!(ChangePosition::from_bytes(&bytes[..index]).is_err(), "{index} bytes");
            // Under a good checksum it may be another position, or none, and is never a panic.
            let mut forged = bytes[..index].to_vec();
            forged.extend_from_slice(&crc32c::crc32c(&bytes[..index]).to_le_bytes());
            assert!(index + 4 == bytes.len() || ChangePosition::from_bytes(&forged).is_err());
        }
        for text in ["", "0", "xy", "é", &"00".repeat(LEN_MAX + 1)] {
            assert!(text.parse::<ChangePosition>().is_err());
        }
    }
}
