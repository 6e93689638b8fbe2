//! Records as lines, and back, whatever bytes they hold (C2).

mod json;
mod tsv;

use clap::ValueEnum;

pub(super) use self::json::{JsonRecord, JsonText};

/// How a record is written as a line.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Format {
    /// One object a line; what is not UTF-8 in base64.
    Json,
    /// Key, tab, value; escaped.
    Tsv,
}

impl Format {
    /// Appends the line of a record, with its newline.
    pub(super) fn encode(self, key: &[u8], value: &[u8], line: &mut Vec<u8>) {
        match self {
            Format::Json => json::encode(key, value, line),
            Format::Tsv => tsv::encode(key, value, line),
        }
        line.push(b'\n');
    }

    /// Appends the line of a key alone, with its newline.
    pub(super) fn encode_key(self, key: &[u8], line: &mut Vec<u8>) {
        match self {
            Format::Json => json::encode_key(key, line),
            Format::Tsv => tsv::escape(key, line),
        }
        line.push(b'\n');
    }

    /// The key and value of a line without its newline, or what is wrong with it.
    pub(super) fn decode(self, line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        match self {
            Format::Json => json::decode(line),
            Format::Tsv => tsv::decode(line),
        }
    }

    /// The most bytes that the line of an acceptable record takes (C3).
    pub(super) fn line_len_max(self, key_len_max: usize, value_len_max: usize) -> usize {
        match self {
            // A control character becomes `\u0000`; the rest is braces, names and spaces.
            Format::Json => 6 * (key_len_max + value_len_max) + 1024,
            Format::Tsv => 2 * (key_len_max + value_len_max) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_round_trip(format: Format, key: &[u8], value: &[u8]) {
        let mut line = Vec::new();
        format.encode(key, value, &mut line);
        assert!(line.len() <= format.line_len_max(key.len(), value.len()) + 1, "C3");
        assert_eq!(line.pop(), Some(b'\n'));
        assert!(!line.contains(&b'\n'), "a record is one line");
        assert_eq!(format.decode(&line), Ok((key.to_vec(), value.to_vec())), "C2");
    }

    /// Breaks if some bytes do not come back as they went in, or a line can hold a record that cannot be
    /// written. Lines are made of what the two formats give a meaning to.
    #[test]
    fn whatever_a_line_holds_comes_back() {
        const PIECES: [&[u8]; 16] = [
            b"{\"key\":",
            b"\"value\":",
            b"{\"base64\":",
            b"\"",
            b"}",
            b",",
            b"\\",
            b"\\u00",
            b"\t",
            b"\\t",
            b"\0",
            b"\xff",
            b"AA==",
            b"a",
            b"{\"key\":\"a\",\"value\":\"b\"}",
            b"\xc3\xa4",
        ];
        let seed = std::env::var("RINGCASK_SEED").map_or_else(
            |_| fastrand::u64(..1 << 48),
            |seed| seed.parse().expect("RINGCASK_SEED is a number"),
        );
        println!("RINGCASK_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut decoded = 0;
        for _ in 0..50_000 {
            let line: Vec<u8> = (0..random.usize(..10))
                .flat_map(|_| PIECES[random.usize(..PIECES.len())].to_vec())
                .collect();
            let (key, value) = line.split_at(line.len() / 2);
            for format in [Format::Json, Format::Tsv] {
                check_round_trip(format, key, value);
                if let Ok((key, value)) = format.decode(&line) {
                    check_round_trip(format, &key, &value);
                    decoded += 1;
                }
            }
        }
        assert!(decoded > 1000, "most lines are none, some have to be");
    }
}
