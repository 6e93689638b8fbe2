//! How values are compressed.

/// How values are compressed; see [`Options::compression`](crate::Options::compression).
///
/// A store may be opened with another setting each time: every record says how its own value was compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4: some hundred megabytes a second and core to compress, some gigabytes to decompress. Feature
    /// `lz4`.
    #[cfg(feature = "lz4")]
    Lz4,
    /// Zstandard: smaller and slower than LZ4. Feature `zstd`.
    #[cfg(feature = "zstd")]
    Zstd {
        /// -7 (fastest) to 19 (smallest); 3 is a good start.
        level: i32,
    },
}
