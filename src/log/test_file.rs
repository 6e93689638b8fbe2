//! Data files in memory, built with the encoders, for the tests of scanner and tail.

use super::files::SealedFile;
use super::format::data_header::{DataHeader, ExpectedFile, FileIdentity, FileKind};
use super::format::group::{Chain, GROUP_HEADER_LEN, GroupHeader, PayloadCrc};
use super::format::record::{RecordHeader, encode_record};
pub(super) use super::in_memory::ShortReads;
use crate::types::{FileId, PartitionId, Seqno, StoreId};

pub(super) const EXPECTED: ExpectedFile = ExpectedFile {
    kind: FileKind::Data,
    store: StoreId(*b"store of a test!"),
    partition: PartitionId(3),
    file: FileId(17),
    hash_key: *b"hash key of test",
};

/// Two records, the second with padding and an expiry.
pub(super) const TWO: [(&str, &str); 2] = [("apple", "red"), ("banana", "yellow and rather long")];

/// What a writer would have in memory for the file it appends to.
pub(super) struct TestFile {
    pub(super) bytes: Vec<u8>,
    pub(super) chain: Chain,
    pub(super) seqno: u64,
    /// Offsets at which groups start.
    pub(super) groups: Vec<usize>,
    identity: FileIdentity,
}

impl TestFile {
    pub(super) fn new(open_id: u64) -> TestFile {
        TestFile::of(&EXPECTED, open_id)
    }

    pub(super) fn of(expected: &ExpectedFile, open_id: u64) -> TestFile {
        let header = DataHeader {
            kind: expected.kind,
            store: expected.store,
            partition: expected.partition,
            partition_count: 4,
            file: expected.file,
            map_epoch: 1,
            hash_key: expected.hash_key,
            open_id,
            created_at_ms: 1_760_000_000_000,
            key: crate::types::KeyId::NONE,
        };
        let (bytes, crc) = header.encode();
        TestFile {
            bytes: bytes.to_vec(),
            chain: Chain::start(open_id, crc),
            seqno: 100,
            groups: Vec::new(),
            identity: expected.identity(),
        }
    }

    /// Everything up to here, as a durable-through offset.
    pub(super) fn end(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Appends a group of puts.
    pub(super) fn group(self, durable_through: u64, pairs: &[(&str, &str)]) -> TestFile {
        let pairs: Vec<_> =
            pairs.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect();
        self.group_of_bytes(durable_through, &pairs)
    }

    /// Appends a group of puts of any bytes.
    pub(super) fn group_of_bytes(
        mut self,
        durable_through: u64,
        pairs: &[(&[u8], &[u8])],
    ) -> TestFile {
        let start = self.end() + GROUP_HEADER_LEN as u64;
        let mut payload = Vec::new();
        let mut payload_crc = PayloadCrc::default();
        for (index, (key, value)) in pairs.iter().enumerate() {
            let header = RecordHeader {
                expires_at_ms: (index % 2 == 1).then_some(1_900_000_000_000),
                ..RecordHeader::put(self.seqno, key, value)
            };
            self.seqno += 1;
            let place = self.identity.at(start + payload.len() as u64);
            payload_crc.push(encode_record(&mut payload, place, &header, [key, value]));
        }
        let count = pairs.len() as u32;
        let header = self.chain.group(payload.len() as u32, payload_crc, count, durable_through);
        self.append(&header, &payload)
    }

    /// Appends a group of one put after everything before it became durable.
    pub(super) fn synced_group(self, key: &str, value: &str) -> TestFile {
        let durable_through = self.end();
        self.group(durable_through, &[(key, value)])
    }

    pub(super) fn close(self) -> TestFile {
        let mark = self.chain.closing_mark(self.end());
        self.append(&mark, &[])
    }

    pub(super) fn append(mut self, header: &GroupHeader, payload: &[u8]) -> TestFile {
        let (bytes, crc) = header.encode(self.identity);
        self.groups.push(self.bytes.len());
        self.bytes.extend_from_slice(&bytes);
        self.bytes.extend_from_slice(payload);
        self.chain.advance(crc);
        self
    }

    /// The entry of `FILES` for a closed file.
    pub(super) fn listed(&self) -> SealedFile {
        let records = self.seqno - 100;
        SealedFile {
            id: EXPECTED.file,
            len: self.end(),
            digest: self.chain.previous,
            records,
            seqno_min: Seqno(if records == 0 { 0 } else { 100 }),
            seqno_max: Seqno(if records == 0 { 0 } else { self.seqno - 1 }),
        }
    }

    /// The last group's header and records.
    pub(super) fn last_group(&self) -> &[u8] {
        &self.bytes[*self.groups.last().unwrap()..]
    }
}
