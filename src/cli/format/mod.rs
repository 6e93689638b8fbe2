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
