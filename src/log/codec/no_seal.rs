//! In place of [`seal`](super) in a build without the feature: there are no keys, and nothing is opened.

use super::{About, KeyId};
use crate::log::format::FormatError;

pub(super) const PAGE_OVERHEAD: usize = 40;

/// No key.
#[derive(Clone, Default)]
pub(crate) struct Keyring(());

#[expect(clippy::unused_self, reason = "as in a build with the feature")]
impl Keyring {
    pub(crate) fn new(_: Option<&[u8; 32]>, _: &[[u8; 32]]) -> Keyring {
        Keyring(())
    }

    pub(crate) fn current(&self) -> KeyId {
        KeyId::NONE
    }

    pub(crate) fn has(&self, _: KeyId) -> bool {
        false
    }

    pub(super) fn seal(&self, _: &About, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    pub(super) fn open_key(&self, _: &About, _: &[u8], _: &[u8]) -> Result<Vec<u8>, FormatError> {
        Err(missing())
    }

    pub(super) fn open_value(&self, _: &About, _: &[u8]) -> Result<Vec<u8>, FormatError> {
        Err(missing())
    }

    pub(super) fn seal_page(&self, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    pub(super) fn open_page(&self, _: KeyId, _: &[u8], _: &[u8]) -> Result<Vec<u8>, FormatError> {
        Err(missing())
    }
}

pub(super) fn key_id(_: &[u8]) -> Result<KeyId, FormatError> {
    Err(missing())
}

fn missing() -> FormatError {
    FormatError::FeatureMissing { what: "encrypted", feature: "encryption" }
}
