//! `key TAB value`, with the five bytes that lines and tools trip over escaped; then, if it expires, another
//! tab and when, in milliseconds since 1970.
//!
//! Every other byte is itself, so text stays readable and sorted lines are in order of key as long
//! as keys hold none of the five.

use super::Decoded;

pub(super) fn encode(key: &[u8], value: &[u8], expires_at_ms: Option<u64>, line: &mut Vec<u8>) {
    escape(key, line);
    line.push(b'\t');
    escape(value, line);
    if let Some(ms) = expires_at_ms {
        line.push(b'\t');
        line.extend_from_slice(ms.to_string().as_bytes());
    }
}

pub(super) fn decode(line: &[u8]) -> Result<Decoded, String> {
    let mut fields = line.split(|&byte| byte == b'\t');
    match (fields.next(), fields.next(), fields.next(), fields.next()) {
        (Some(key), Some(value), expiry, None) => {
            let expires_at_ms = expiry.map(milliseconds).transpose()?;
            Ok(Decoded { key: unescape(key)?, value: unescape(value)?, expires_at_ms })
        }
        (_, None, ..) => Err("there is no tab between key and value".to_owned()),
        _ => Err("there are more than two tabs; a tab in a key or value is written \\t".to_owned()),
    }
}

fn milliseconds(field: &[u8]) -> Result<u64, String> {
    // Only what `encode` would have written: not "+1", not "01".
    let ms = std::str::from_utf8(field).ok().and_then(|text| text.parse::<u64>().ok());
    ms.filter(|ms| ms.to_string().as_bytes() == field).ok_or_else(|| {
        let field = &field[..field.len().min(40)];
        format!(
            "\"{}\" behind the second tab is no time in milliseconds; a tab in a key or value is written \\t",
            field.escape_ascii()
        )
    })
}

pub(in crate::cli) fn escape(mut field: &[u8], line: &mut Vec<u8>) {
    let is_special = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b'\\' | b'\0');
    while let Some(plain_len) = field.iter().position(is_special) {
        let letter = match field[plain_len] {
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\0' => b'0',
            backslash => backslash,
        };
        line.extend_from_slice(&field[..plain_len]);
        line.extend_from_slice(&[b'\\', letter]);
        field = &field[plain_len + 1..];
    }
    line.extend_from_slice(field);
}

fn unescape(mut field: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(field.len());
    while let Some(plain_len) = field.iter().position(|&byte| byte == b'\\') {
        let byte = match field.get(plain_len + 1) {
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b'0') => b'\0',
            Some(b'\\') => b'\\',
            Some(other) => {
                return Err(format!(
                    "\\{} is no escape; there are \\t \\n \\r \\0 \\\\",
                    other.escape_ascii()
                ));
            }
            None => return Err("a backslash ends the key or value".to_owned()),
        };
        bytes.extend_from_slice(&field[..plain_len]);
        bytes.push(byte);
        field = &field[plain_len + 2..];
    }
    bytes.extend_from_slice(field);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        for expires_at_ms in [None, Some(0), Some(u64::MAX)] {
            let mut line = Vec::new();
            encode(&all, &all, expires_at_ms, &mut line);
            assert!(!line.contains(&b'\n'));
            let decoded = Decoded { key: all.clone(), value: all.clone(), expires_at_ms };
            assert_eq!(decode(&line), Ok(decoded));
        }
    }

    #[test]
    fn a_line_that_was_not_written_by_encode_is_refused() {
        for line in ["", "key", "a\tb\tc", "a\tb\t", "a\tb\t01", "a\tb\t1\t", "a\\x\tb", "a\tb\\"] {
            assert!(decode(line.as_bytes()).is_err(), "{line:?}");
        }
    }
}
