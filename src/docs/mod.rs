//! How Ringcask works, in five pages.

/// The path of a write and of a read, and which directory does what.
#[doc = include_str!("architecture.md")]
pub mod architecture {}

/// What is promised, what is lost when, and what is refused.
#[doc = include_str!("durability.md")]
pub mod durability {}

/// Every byte of every file.
#[doc = include_str!("on_disk_format.md")]
pub mod on_disk_format {}

/// Figures, how they were measured, and where the time goes.
#[doc = include_str!("performance.md")]
pub mod performance {}

/// The words and the one meaning each has.
#[doc = include_str!("glossary.md")]
pub mod glossary {}
