//! Records as lines, and back, whatever bytes they hold (C2).

mod json;
mod tsv;

use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;

pub(super) use self::json::{JsonRecord, JsonText};
pub(super) use self::tsv::escape as tsv_escape;

/// Milliseconds since 1970, as every format has a time; `None` for one before that.
pub(super) fn epoch_ms(at: SystemTime) -> Option<u64> {
    u64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// What the line of a record says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// In milliseconds since 1970.
    pub(super) expires_at_ms: Option<u64>,
}

/// How a record is written as a line.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Format {
    /// One object a line; what is not UTF-8 in base64.
    Json,
    /// Key, tab, value, both escaped; then, if it expires, a tab and when, in milliseconds since 1970.
    Tsv,
}

impl Format {
    /// Appends the line of a record, with its newline.
    pub(super) fn encode(
        self,
        key: &[u8],
        value: &[u8],
        expires_at_ms: Option<u64>,
        line: &mut Vec<u8>,
    ) {
        match self {
            Format::Json => json::encode(key, value, expires_at_ms, line),
            Format::Tsv => tsv::encode(key, value, expires_at_ms, line),
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

    /// What a line without its newline says, or what is wrong with it.
    pub(super) fn decode(self, line: &[u8]) -> Result<Decoded, String> {
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
            // A tab, and another one before twenty digits.
            Format::Tsv => 2 * (key_len_max + value_len_max) + 22,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_round_trip(format: Format, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) {
        let mut line = Vec::new();
        format.encode(key, value, expires_at_ms, &mut line);
        assert!(line.len() <= format.line_len_max(key.len(), value.len()) + 1, "C3");
        assert_eq!(line.pop(), Some(b'\n'));
        assert!(!line.contains(&b'\n'), "a record is one line");
        let decoded = Decoded { key: key.to_vec(), value: value.to_vec(), expires_at_ms };
        assert_eq!(format.decode(&line), Ok(decoded), "C2");
    }

    /// Breaks if some bytes do not come back as they went in, or a line can hold a record that cannot be
    /// written. Lines are made of what the two formats give a meaning to.
    #[test]
    fn whatever_a_line_holds_comes_back() {
        const PIECES: [&[u8]; 18] = [
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
            b"{\"key\":\"a\",\"value\":\"b\",\"expires_at_ms\":17}",
            b"1700000000000",
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
                let expires_at_ms = random.bool().then(|| random.u64(..) >> random.u8(..64));
                check_round_trip(format, key, value, expires_at_ms);
                if let Ok(Decoded { key, value, expires_at_ms }) = format.decode(&line) {
                    check_round_trip(format, &key, &value, expires_at_ms);
                    decoded += 1;
                }
            }
        }
        assert!(decoded > 1000, "most lines are none, some have to be");
    }
}
