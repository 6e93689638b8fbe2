//! A stretch of a scan that can be gone on with at any time: after a restart, in another process, on a copy.
//!
//! A cursor is the last key that was given out, so there is nothing to keep open between two pages, and
//! nothing that compaction could make wrong: a key that is there all the time is on exactly one page.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use super::{KeysOf, Scan, ScanKeys};
use crate::db::digits::{self, Digits};
use crate::error::{Error, Result};
use crate::limits::{KEY_LEN_MAX, PAGE_BYTES_MAX, PAGE_ENTRIES_DEFAULT};
use crate::types::KeyspaceId;

/// What one page of a scan holds; made by [`Scan::page`] and [`ScanKeys::page`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// In the order of the scan.
    pub entries: Vec<T>,
    /// Where the next page begins; `None` if nothing follows. The page that it leads to may turn out empty.
    pub next: Option<Cursor>,
}

/// A place between two keys, at which a scan can be gone on with by [`Scan::page`].
///
/// Its text has only the characters `0` to `9` and `a` to `f`, so that it can stand in a URL. It holds the
/// key, readable for everybody, and a checksum against accidents, not against whoever wants to make one up.
///
/// # Example: to text and back
/// ```
/// # futures::executor::block_on(async {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ringcask::Db::open(dir.path()).await?;
/// # for key in ["a", "b", "c"] { db.put(key, "").await?; }
/// let first = db.scan().keys().limit(2).page(None).await?;
/// let text = first.next.unwrap().to_string();
/// // The store may be closed and opened here.
/// let cursor: ringcask::Cursor = text.parse()?;
/// let second = db.scan().keys().limit(2).page(Some(&cursor)).await?;
/// assert_eq!((second.entries, second.next), (vec!["c".into()], None));
/// # db.close().await }).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    keyspace: KeyspaceId,
    /// The last key that was given out.
    key: Bytes,
}

/// Text before its bytes are written as digits: version, keyspace, key, CRC-32C of all that.
const VERSION: u8 = 1;
const HEAD_LEN: usize = size_of::<u8>() + size_of::<u32>();
const CRC_LEN: usize = size_of::<u32>();

impl Cursor {
    fn behind(keyspace: KeyspaceId, key: &[u8]) -> Cursor {
        // Copied, so that it keeps no page in memory.
        Cursor { keyspace, key: Bytes::copy_from_slice(key) }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.keyspace.0.to_le_bytes());
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Cursor, &'static str> {
        let (covered, crc) = bytes.split_last_chunk::<CRC_LEN>().ok_or("it is too short")?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err("its checksum does not hold");
        }
        let (head, key) = covered.split_first_chunk::<HEAD_LEN>().ok_or("it is too short")?;
        let [version, keyspace @ ..] = *head;
        if version != VERSION {
            return Err("it is of another version");
        }
        if key.is_empty() {
            return Err("it names no key");
        }
        Ok(Cursor::behind(KeyspaceId(u32::from_le_bytes(keyspace)), key))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digits(&self.encode()).fmt(f)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({self})")
    }
}

impl FromStr for Cursor {
    type Err = Error;

    /// # Errors
    /// `InvalidArgument` if the text is not one that a cursor was written as.
    fn from_str(text: &str) -> Result<Cursor> {
        let refused = |why: &str| Error::invalid(format!("this is no cursor of a scan: {why}"));
        let len_max = HEAD_LEN + KEY_LEN_MAX + CRC_LEN;
        let decoded = digits::parse(text, len_max).and_then(|bytes| Cursor::decode(&bytes));
        decoded.map_err(refused)
    }
}

impl Scan {
    /// The first entries, or those behind `cursor`: as many as [`limit`](Scan::limit) says, or 1,000, or fewer if
    /// they come to more than 16 MiB.
    ///
    /// Nothing is kept between two pages but the cursor, and that may be kept as text. A key that is there
    /// from the first page to the last is on exactly one of them, whatever is written meanwhile. A cursor is
    /// a key, so the scan that goes on with it may have other bounds, or the other direction.
    ///
    /// # Errors
    /// As [`Db::get`](crate::Db::get); `InvalidArgument` for a cursor of another keyspace.
    ///
    /// # Example: pages of two
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ringcask::Db::open(dir.path()).await?;
    /// # for key in ["u:1", "u:2", "u:3", "v"] { db.put(key, "").await?; }
    /// let mut cursor = None;
    /// let mut lens = Vec::new();
    /// loop {
    ///     let page = db.scan().prefix("u:").limit(2).page(cursor.as_ref()).await?;
    ///     lens.push(page.entries.len());
    ///     cursor = page.next;
    ///     if cursor.is_none() {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(lens, [2, 1]);
    /// # db.close().await }).unwrap();
    /// ```
    pub async fn page(mut self, cursor: Option<&Cursor>) -> Result<Page<(Bytes, Bytes)>> {
        let keyspace = self.keyspace;
        let count = self.begin_page(cursor)?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < count && bytes < PAGE_BYTES_MAX {
            let Some(entry) = self.next().await else { break };
            let (key, value) = entry?;
            bytes += key.len() + value.len();
            entries.push((key, value));
        }
        let is_full = entries.len() == count || bytes >= PAGE_BYTES_MAX;
        let last = entries.last().filter(|_| is_full);
        let next = last.map(|(key, _)| Cursor::behind(keyspace, key));
        Ok(Page { next: next.or_else(|| cursor.filter(|_| count == 0).cloned()), entries })
    }

    /// Makes it a scan of one page, and says how many entries that has at most.
    fn begin_page(&mut self, cursor: Option<&Cursor>) -> Result<usize> {
        if self.left == usize::MAX {
            self.left = PAGE_ENTRIES_DEFAULT;
        }
        if let Some(Cursor { keyspace, key }) = cursor {
            if *keyspace != self.keyspace {
                return Err(Error::invalid("the cursor belongs to a scan of another keyspace"));
            }
            let span = self.span();
            *span = span.behind(key);
        }
        Ok(self.left)
    }
}

impl ScanKeys {
    /// At most `count` keys.
    pub fn limit(mut self, count: usize) -> ScanKeys {
        match &mut self.0 {
            KeysOf::All(scan) | KeysOf::Filtered(scan) => scan.left = count,
        }
        self
    }

    /// As [`Scan::page`], without values.
    ///
    /// # Errors
    /// As [`Scan::page`].
    pub async fn page(self, cursor: Option<&Cursor>) -> Result<Page<Bytes>> {
        let mut scan = match self.0 {
            KeysOf::Filtered(scan) => {
                let Page { entries, next } = scan.page(cursor).await?;
                let keys = entries.into_iter().map(|(key, _)| Bytes::copy_from_slice(&key));
                return Ok(Page { entries: keys.collect(), next });
            }
            KeysOf::All(scan) => scan,
        };
        let keyspace = scan.keyspace;
        let count = scan.begin_page(cursor)?;
        let mut keys = ScanKeys(KeysOf::All(scan));
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < count && bytes < PAGE_BYTES_MAX {
            let Some(key) = keys.next().await else { break };
            let key = key?;
            bytes += key.len();
            entries.push(key);
        }
        let is_full = entries.len() == count || bytes >= PAGE_BYTES_MAX;
        let next = entries.last().filter(|_| is_full).map(|key| Cursor::behind(keyspace, key));
        Ok(Page { next: next.or_else(|| cursor.filter(|_| count == 0).cloned()), entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// The text is kept by whoever pages: this build and later ones must read it.
    const GOLDEN: &str = "01070000006b657900ff";

    fn cursor() -> Cursor {
        Cursor::behind(KeyspaceId(7), b"key\0\xff")
    }

    #[test]
    fn golden_text_of_version_1() {
        let text = cursor().to_string();
        assert_eq!(text.len(), GOLDEN.len() + 2 * CRC_LEN);
        assert_eq!(&text[..GOLDEN.len()], GOLDEN);
        assert_eq!(&text[GOLDEN.len()..], "c2084cf2");
        assert_eq!(text.parse::<Cursor>().unwrap(), cursor());
    }

    /// Breaks if a cursor that was cut or mistyped leads anywhere but to an error.
    #[test]
    fn whatever_is_no_cursor_is_refused() {
        let text = cursor().to_string();
        let refused = |text: &str| {
            let error = text.parse::<Cursor>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
        };
        for len in 0..text.len() {
            refused(&text[..len]);
        }
        for (index, byte) in text.bytes().enumerate() {
            for other in ["0", "f", "F", "g", " ", "é"] {
                if other.as_bytes() != [byte] {
                    refused(&format!("{}{other}{}", &text[..index], &text[index + 1..]));
                }
            }
        }
        let sealed = |mut bytes: Vec<u8>| {
            bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            Digits(&bytes).to_string()
        };
        refused(&sealed(vec![2, 0, 0, 0, 0, b'k']));
        refused(&sealed(vec![1, 0, 0, 0, 0]));
        refused(&sealed(vec![1, 0, 0]));
        refused(&sealed([&[1, 0, 0, 0, 0], &vec![b'k'; KEY_LEN_MAX + 1][..]].concat()));
        let longest = Cursor::behind(KeyspaceId(u32::MAX), &vec![0xff; KEY_LEN_MAX]);
        assert_eq!(longest.to_string().parse::<Cursor>().unwrap(), longest);
    }
}
