//! Ringcask (module docs come with the first slice).
mod error;
pub mod limits;
#[allow(dead_code)]
mod types;
pub use error::{Error, ErrorKind, Result};
