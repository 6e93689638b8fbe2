//! Encrypted hints: a hint as any other, cut into pages that are encrypted each by itself.
//!
//! ```text
//! data header (128, kind 3, with the key's id) · page · page · …
//! page = nonce (24) · tag (16) · up to 16 KiB of the hint, encrypted
//! ```
//!
//! Whoever reads or writes a hint does not see the pages: [`HintReader`] gives the bytes of the hint inside, and
//! [`SealedSink`] takes them. With each page its number and the file's header are authenticated, so that pages
//! cannot change places; that none is missing at the end is for the trailer of the hint inside to say.

use std::cell::RefCell;
use std::io;

use crate::log::codec::{Codecs, SEALED_PAGE_OVERHEAD};
use crate::log::format::FormatError;
use crate::log::format::data_header::{DATA_HEADER_LEN, DataHeader, ExpectedFile, FileKind};
use crate::log::scanner::{ReadAt, read_full};
use crate::types::KeyId;

/// Bytes of the hint in one page: two blocks of usual length.
const PAGE_LEN: usize = 16 << 10;
const SEALED_PAGE_LEN: usize = PAGE_LEN + SEALED_PAGE_OVERHEAD;

/// Bytes handed out at once.
const PIECE_LEN: usize = 1 << 20;

/// What is authenticated with a page: the file's header and the page's number.
const ABOUT_LEN: usize = DATA_HEADER_LEN + size_of::<u64>();

fn about(header: &[u8; DATA_HEADER_LEN], page: u64) -> [u8; ABOUT_LEN] {
    let mut about = [0; ABOUT_LEN];
    about[..DATA_HEADER_LEN].copy_from_slice(header);
    about[DATA_HEADER_LEN..].copy_from_slice(&page.to_le_bytes());
    about
}

/// A hint as it is inside, whether it is encrypted or not.
pub(crate) struct HintReader<'r> {
    reader: &'r dyn ReadAt,
    /// Of the hint inside.
    len: u64,
    pages: Option<Pages<'r>>,
}

struct Pages<'r> {
    codecs: &'r Codecs,
    header: [u8; DATA_HEADER_LEN],
    key: KeyId,
    file_len: u64,
    /// The page that was read last, and its number.
    last: RefCell<Option<(u64, Vec<u8>)>>,
}

impl<'r> HintReader<'r> {
    /// The hint in a file of `file_len` bytes. An outer `Err` is a failed read.
    pub(crate) fn open(
        reader: &'r dyn ReadAt,
        file_len: u64,
        expected: &ExpectedFile,
        codecs: &'r Codecs,
    ) -> io::Result<Result<HintReader<'r>, FormatError>> {
        let mut bytes = [0; DATA_HEADER_LEN];
        let count = read_full(reader, &mut bytes, 0)?;
        let header = match DataHeader::decode(bytes.get(..count).unwrap_or_default()) {
            Ok((header, _)) if header.kind == FileKind::SealedHint => header,
            // Whoever reads the hint will see what else it is.
            Ok(_) | Err(_) => return Ok(Ok(HintReader { reader, len: file_len, pages: None })),
        };
        let expected = ExpectedFile { kind: FileKind::SealedHint, ..*expected };
        let checked = header.check_expected(&expected).and_then(|()| codecs.check_key(header.key));
        if let Err(why) = checked {
            return Ok(Err(why));
        }
        let sealed_len = file_len.saturating_sub(DATA_HEADER_LEN as u64);
        let pages = sealed_len.div_ceil(SEALED_PAGE_LEN as u64);
        let len = sealed_len.saturating_sub(pages * SEALED_PAGE_OVERHEAD as u64);
        let last = RefCell::new(None);
        let pages = Pages { codecs, header: bytes, key: header.key, file_len, last };
        Ok(Ok(HintReader { reader, len, pages: Some(pages) }))
    }

    /// Length of the hint in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn read_page(&self, pages: &Pages<'_>, page: u64) -> io::Result<Vec<u8>> {
        let offset = DATA_HEADER_LEN as u64 + page * SEALED_PAGE_LEN as u64;
        let len = pages.file_len.saturating_sub(offset).min(SEALED_PAGE_LEN as u64) as usize;
        let mut sealed = vec![0; len];
        let count = read_full(self.reader, &mut sealed, offset)?;
        let sealed = sealed.get(..count).unwrap_or_default();
        pages
            .codecs
            .open_page(pages.key, &about(&pages.header, page), sealed)
            .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why.to_string()))
    }
}

impl ReadAt for HintReader<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(pages) = &self.pages else { return self.reader.read_at(buf, offset) };
        if buf.is_empty() || offset >= self.len {
            return Ok(0);
        }
        let page = offset / PAGE_LEN as u64;
        let mut last = pages.last.borrow_mut();
        let bytes = match &*last {
            Some((number, bytes)) if *number == page => bytes,
            _ => &last.insert((page, self.read_page(pages, page)?)).1,
        };
        let within = (offset % PAGE_LEN as u64) as usize;
        let rest = bytes.get(within..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// Takes the bytes of a hint and hands on those of its file.
pub(super) struct SealedSink<'o> {
    codecs: &'o Codecs,
    header: [u8; DATA_HEADER_LEN],
    out: &'o mut dyn FnMut(&[u8]) -> io::Result<()>,
    page: Vec<u8>,
    pages: u64,
    /// Pages that are not handed on yet.
    piece: Vec<u8>,
}

impl<'o> SealedSink<'o> {
    /// Begins the file; `header` is that of the hint inside.
    pub(super) fn begin(
        codecs: &'o Codecs,
        header: &DataHeader,
        out: &'o mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> SealedSink<'o> {
        let header = DataHeader { kind: FileKind::SealedHint, key: codecs.key_id(), ..*header };
        let (header, _) = header.encode();
        let page = Vec::with_capacity(PAGE_LEN);
        SealedSink { codecs, header, out, page, pages: 0, piece: header.to_vec() }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PAGE_LEN - self.page.len()));
            self.page.extend_from_slice(now);
            bytes = later;
            if self.page.len() == PAGE_LEN {
                self.close_page()?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        if !self.page.is_empty() {
            self.close_page()?;
        }
        (self.out)(&self.piece)
    }

    fn close_page(&mut self) -> io::Result<()> {
        let about = about(&self.header, self.pages);
        let sealed = self.codecs.seal_page(&about, &self.page);
        let sealed = sealed.ok_or_else(|| io::Error::other("there is no key to encrypt with"))?;
        self.piece.extend_from_slice(&sealed);
        self.page.clear();
        self.pages += 1;
        if self.piece.len() >= PIECE_LEN {
            (self.out)(&self.piece)?;
            self.piece.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(feature = "encryption")]
mod tests {
    use super::*;
    use crate::log::codec::Keyring;
    use crate::options::Compression;
    use crate::types::{FileId, PartitionId, StoreId};

    const EXPECTED: ExpectedFile = ExpectedFile {
        kind: FileKind::Hint,
        store: StoreId([1; 16]),
        partition: PartitionId(2),
        file: FileId(3),
        hash_key: [4; 16],
    };

    fn codecs(key: u8) -> Codecs {
        Codecs::new(Compression::None, 0, Keyring::new(Some(&[key; 32]), &[]))
    }

    fn sealed(codecs: &Codecs, file: FileId, hint: &[u8]) -> Vec<u8> {
        let ExpectedFile { kind, store, partition, hash_key, .. } = EXPECTED;
        let header = DataHeader {
            kind,
            store,
            partition,
            partition_count: 4,
            file,
            map_epoch: 1,
            hash_key,
            open_id: 5,
            created_at_ms: 6,
            key: KeyId::NONE,
        };
        let mut bytes = Vec::new();
        let out = &mut |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        let mut sink = SealedSink::begin(codecs, &header, out);
        for piece in hint.chunks(7001) {
            sink.write(piece).unwrap();
        }
        sink.finish().unwrap();
        bytes
    }

    fn opened(codecs: &Codecs, bytes: &[u8]) -> Option<Vec<u8>> {
        let reader =
            HintReader::open(&bytes, bytes.len() as u64, &EXPECTED, codecs).unwrap().ok()?;
        let mut hint = vec![0; reader.len() as usize];
        let count = read_full(&reader, &mut hint, 0).ok()?;
        (count == hint.len()).then_some(hint)
    }

    fn hint(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at / 3 % 251) as u8).collect()
    }

    #[test]
    fn hints_of_every_length_come_back_from_any_offset() {
        let codecs = codecs(1);
        for len in [0, 1, PAGE_LEN - 1, PAGE_LEN, PAGE_LEN + 1, 3 * PAGE_LEN, (2 << 20) + 5] {
            let hint = hint(len);
            let bytes = sealed(&codecs, EXPECTED.file, &hint);
            assert_eq!(opened(&codecs, &bytes).as_ref(), Some(&hint), "{len} bytes");
            assert!(!bytes.windows(12).any(|at| hint.windows(12).step_by(999).any(|h| h == at)));
            let reader = &bytes.as_slice();
            let reader = HintReader::open(reader, bytes.len() as u64, &EXPECTED, &codecs);
            let reader = reader.unwrap().unwrap();
            for at in (0..len).step_by(4999) {
                let mut part = vec![0; (len - at).min(40_000)];
                assert_eq!(read_full(&reader, &mut part, at as u64).unwrap(), part.len());
                assert!(part == hint[at..at + part.len()], "{at} of {len}");
            }
            assert_eq!(reader.read_at(&mut [0; 9], len as u64).unwrap(), 0, "behind the end");
        }
    }

    #[test]
    fn pages_that_were_changed_or_exchanged_do_not_open() {
        let codecs = codecs(1);
        let bytes = sealed(&codecs, EXPECTED.file, &hint(3 * PAGE_LEN));
        for at in (0..bytes.len()).step_by(977).chain(0..200) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            // Of a header that does not verify nobody knows that there are pages behind it.
            assert!(at < DATA_HEADER_LEN || opened(&codecs, &bytes).is_none(), "byte {at}");
        }
        let page = |number: usize| {
            let begin = DATA_HEADER_LEN + number * SEALED_PAGE_LEN;
            begin..begin + SEALED_PAGE_LEN
        };
        let mut swapped = bytes.clone();
        swapped[page(0)].copy_from_slice(&bytes[page(1)]);
        swapped[page(1)].copy_from_slice(&bytes[page(0)]);
        assert!(opened(&codecs, &swapped).is_none(), "pages have their places");
        let other = sealed(&codecs, FileId(9), &hint(3 * PAGE_LEN));
        let foreign = [&bytes[..DATA_HEADER_LEN], &other[DATA_HEADER_LEN..]].concat();
        assert!(opened(&codecs, &foreign).is_none(), "pages have their file");
        assert!(opened(&codecs, &other).is_none(), "another file's");
        assert!(opened(&self::codecs(2), &bytes).is_none(), "another key");
    }
}
