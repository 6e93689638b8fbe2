//! What fuzzing starts from: files of real stores, and the parts they are made of.
//!
//! What is kept in `fuzz/corpus` was made of it: fuzzed for a while, then minimised (`scripts/fuzz.sh`).

use std::io;
use std::path::PathBuf;

use crate::store;

const DATA_HEADER_LEN: usize = 128;
const GROUP_HEADER_LEN: usize = 48;
const TRAILER_LEN: usize = 160;
/// In a hint's trailer: where offset and length of its index and of its filter are.
const AT_INDEX: usize = 88;
const AT_FILTER: usize = 104;
const AT_ENTRIES: usize = 72;

struct Seeds {
    dir: PathBuf,
}

/// Fills a directory for each target in the directory that the environment names.
pub fn write() {
    let dir = std::env::var_os("RINGCASK_FUZZ_SEEDS").expect("a directory to write to");
    Seeds { dir: dir.into() }.write().expect("the directory can be written to");
}

impl Seeds {
    fn write(&self) -> io::Result<()> {
        for (store, base) in store::bases().iter().enumerate() {
            for (name, bytes) in &base.image {
                let name = format!("{store}-{}", name.replace('/', "-"));
                match name.rsplit(['-', '.']).next() {
                    Some("MANIFEST") => self.add("manifest", &name, bytes)?,
                    Some("FILES") => self.add("files", &name, bytes)?,
                    Some("data") => self.data_file(&name, bytes)?,
                    Some("hint") => self.hint_file(&name, bytes)?,
                    _ => {}
                }
            }
        }
        // Literals of LZ4, and a frame of zstd with one block that is stored as it is.
        let zstd = [b"\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00".as_slice(), b"hello"].concat();
        for (method, stored) in [(0, b"\x50hello".to_vec()), (1, zstd)] {
            let input = [&[method], 5_u64.to_le_bytes().as_slice(), &stored].concat();
            self.add("compressed_value", &method.to_string(), &input)?;
        }
        self.add_with("sealed_record", "short", 3 + 64 * 70, b"keyvalue")?;
        let mut random = fastrand::Rng::with_seed(7);
        for target in ["mutated_store", "operations"] {
            for number in 0..32_usize {
                let bytes: Vec<u8> = (0..number * 16 + 16).map(|_| random.u8(..)).collect();
                self.add(target, &number.to_string(), &bytes)?;
            }
        }
        Ok(())
    }

    fn add(&self, target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
        let dir = self.dir.join(target);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join(name), bytes)
    }

    /// An input that begins with a number.
    fn add_with(&self, target: &str, name: &str, number: u64, bytes: &[u8]) -> io::Result<()> {
        self.add(target, name, &[&number.to_le_bytes(), bytes].concat())
    }

    fn data_file(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.add("data_file", name, bytes)?;
        let group = DATA_HEADER_LEN;
        let record = group + GROUP_HEADER_LEN;
        for (target, range) in [
            ("data_header", 0..group),
            ("group_header", group..record),
            ("record", record..record + 512),
        ] {
            let end = range.end.min(bytes.len());
            self.add(target, name, bytes.get(range.start..end).unwrap_or_default())?;
        }
        Ok(())
    }

    fn hint_file(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.add("hint_file", name, bytes)?;
        let Some(at) = bytes.len().checked_sub(TRAILER_LEN) else { return Ok(()) };
        let number = |offset| u64_at(bytes, at + offset);
        let (index, index_len) = (number(AT_INDEX), number(AT_INDEX + 8));
        let (filter, filter_len) = (number(AT_FILTER), number(AT_FILTER + 8));
        let part = |offset: u64, len: u64| &bytes[offset as usize..][..len as usize];
        let blocks = part(DATA_HEADER_LEN as u64, index - DATA_HEADER_LEN as u64);
        self.add("hint_block", name, blocks)?;
        self.add_with("hint_index", name, index, part(index, index_len))?;
        self.add_with("hint_filter", name, number(AT_ENTRIES), part(filter, filter_len))?;
        let keys = (filter + filter_len) as usize;
        self.add_with("hint_trailer", name, bytes.len() as u64, &bytes[keys..])
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u64::from_le_bytes)
}
