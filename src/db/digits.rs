//! Bytes as lines of text that can stand in a URL: what cursors and positions are written as.

use std::fmt;

/// Shows two of the digits `0` to `9` and `a` to `f` for each byte.
pub(super) struct Digits<'b>(pub(super) &'b [u8]);

impl fmt::Display for Digits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The bytes that are written as `text`, if they are no more than `len_max`; or what is wrong with it.
pub(super) fn parse(text: &str, len_max: usize) -> Result<Vec<u8>, &'static str> {
    if text.len() > 2 * len_max {
        return Err("it is too long");
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    let bytes = bytes.filter(|_| rest.is_empty());
    bytes.ok_or("it is not made of pairs of the digits 0 to f")
}
