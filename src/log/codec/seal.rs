//! Encryption at rest: key and value of a record, and the pieces of a hint, under XChaCha20-Poly1305.
//!
//! A sealed record has the same header as any other; its key is as long as the caller's, and in front of its
//! value stands the *seal*:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | key id: which of the store's keys |
//! | 8 | 24 | nonce, random |
//! | 32 | 16 | tag of the record's key |
//! | 48 | 16 | tag of the value |
//! | 64 | | the value, compressed before if it is, encrypted |
//!
//! Key and value are encrypted apart, so that whoever needs only keys (opening, hints, compaction) does not
//! decrypt values, and a key is vouched for before its value was read. Both have the same nonce under different
//! keys. Authenticated with them is what the header says of keyspace, kind, codec and lengths, and with the
//! value the tag of the key: neither can be put with another one's. Sequence number and expiry are not, because
//! what changes the expiry keeps the rest as it is.
//!
//! The keys for keys, values and hints, and the key id, are derived from the caller's by a keystream under it,
//! which is used for nothing else. The id says nothing about the key but that it is this one.
//!
//! ## Invariants
//! - **SE1** No nonce is used twice under a key: each is 192 random bits.
//! - **SE2** Nothing of a plain key or value is handed out before its tag was verified.

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, Key, KeyInit, Tag, XChaCha20Poly1305, XNonce};

use super::{About, KeyId, SEAL_LEN};
use crate::log::format::FormatError;

const KEY_ID_LEN: usize = 8;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;

const AT_NONCE: usize = KEY_ID_LEN;
const AT_KEY_TAG: usize = AT_NONCE + NONCE_LEN;
const AT_VALUE_TAG: usize = AT_KEY_TAG + TAG_LEN;

const _: () = assert!(AT_VALUE_TAG + TAG_LEN == SEAL_LEN);

/// What a sealed page of a hint has in front of it.
pub(super) const PAGE_OVERHEAD: usize = NONCE_LEN + TAG_LEN;

/// No nonce of a record or page is ever this one, which makes a keystream of a key: they are random.
const DERIVATION_NONCE: [u8; NONCE_LEN] = *b"ringcask key derivation1";

/// The keys of a store: the one that seals first, then those that only open.
#[derive(Clone, Default)]
pub(crate) struct Keyring {
    keys: Vec<StoreKey>,
    seals: bool,
}

/// What is made of one key that a caller gave.
#[derive(Clone)]
struct StoreKey {
    id: KeyId,
    of_keys: XChaCha20Poly1305,
    of_values: XChaCha20Poly1305,
    of_hints: XChaCha20Poly1305,
}

impl StoreKey {
    fn derive(secret: &[u8; 32]) -> StoreKey {
        // Zeros encrypted are the keystream: bytes that nobody without the secret can tell from random ones.
        let mut stream = [0; 3 * 32 + KEY_ID_LEN];
        let _tag = encrypt(&cipher(secret), &DERIVATION_NONCE, &[], &mut stream);
        let (parts, id) = stream.as_chunks::<32>();
        let id = id.first_chunk().copied().map_or(0, u64::from_le_bytes);
        // Zero stands for no key.
        let id = KeyId(id.max(1));
        StoreKey {
            id,
            of_keys: cipher(&parts[0]),
            of_values: cipher(&parts[1]),
            of_hints: cipher(&parts[2]),
        }
    }
}

impl Keyring {
    /// Without `current` nothing is sealed.
    pub(crate) fn new(current: Option<&[u8; 32]>, old: &[[u8; 32]]) -> Keyring {
        let keys = current.into_iter().chain(old).map(StoreKey::derive);
        Keyring { keys: keys.collect(), seals: current.is_some() }
    }

    /// The key that seals; [`KeyId::NONE`] if nothing is sealed.
    pub(crate) fn current(&self) -> KeyId {
        self.sealing().map_or(KeyId::NONE, |key| key.id)
    }

    pub(crate) fn has(&self, id: KeyId) -> bool {
        self.find(id).is_ok()
    }

    /// The stored key and value, one behind the other; `None` if nothing is sealed.
    pub(super) fn seal(&self, about: &About, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let keys = self.sealing()?;
        let nonce = random_nonce();
        let mut body = Vec::with_capacity(key.len() + SEAL_LEN + value.len());
        body.extend_from_slice(key);
        body.resize(key.len() + SEAL_LEN, 0);
        body.extend_from_slice(value);
        let (stored_key, stored_value) = body.split_at_mut(key.len());
        let (seal, value) = stored_value.split_at_mut(SEAL_LEN);
        let key_tag = encrypt(&keys.of_keys, &nonce, about, stored_key);
        let about_value = [&about[..], &key_tag].concat();
        let value_tag = encrypt(&keys.of_values, &nonce, &about_value, value);
        seal[..AT_NONCE].copy_from_slice(&keys.id.0.to_le_bytes());
        seal[AT_NONCE..AT_KEY_TAG].copy_from_slice(&nonce);
        seal[AT_KEY_TAG..AT_VALUE_TAG].copy_from_slice(&key_tag);
        seal[AT_VALUE_TAG..].copy_from_slice(&value_tag);
        Some(body)
    }

    /// The key of a sealed record; of its value the seal is enough.
    pub(super) fn open_key(
        &self,
        about: &About,
        stored_key: &[u8],
        stored_value: &[u8],
    ) -> Result<Vec<u8>, FormatError> {
        let seal = Seal::of(stored_value)?;
        let mut key = stored_key.to_vec();
        decrypt(&self.find(seal.id)?.of_keys, seal.nonce, about, &mut key, seal.key_tag)?;
        Ok(key)
    }

    /// The value of a sealed record as it was before it was sealed.
    pub(super) fn open_value(
        &self,
        about: &About,
        stored_value: &[u8],
    ) -> Result<Vec<u8>, FormatError> {
        let seal = Seal::of(stored_value)?;
        let mut value = stored_value.get(SEAL_LEN..).unwrap_or_default().to_vec();
        let about = [&about[..], seal.key_tag].concat();
        decrypt(&self.find(seal.id)?.of_values, seal.nonce, &about, &mut value, seal.value_tag)?;
        Ok(value)
    }

    /// A page of a hint; `about` is authenticated with it.
    pub(super) fn seal_page(&self, about: &[u8], page: &[u8]) -> Option<Vec<u8>> {
        let keys = self.sealing()?;
        let nonce = random_nonce();
        let mut bytes = Vec::with_capacity(PAGE_OVERHEAD + page.len());
        bytes.extend_from_slice(&nonce);
        bytes.resize(PAGE_OVERHEAD, 0);
        bytes.extend_from_slice(page);
        let (head, page) = bytes.split_at_mut(PAGE_OVERHEAD);
        let tag = encrypt(&keys.of_hints, &nonce, about, page);
        head[NONCE_LEN..].copy_from_slice(&tag);
        Some(bytes)
    }

    pub(super) fn open_page(
        &self,
        id: KeyId,
        about: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, FormatError> {
        let (nonce, rest) = sealed.split_first_chunk().ok_or_else(damaged)?;
        let (tag, page) = rest.split_first_chunk().ok_or_else(damaged)?;
        let mut page = page.to_vec();
        decrypt(&self.find(id)?.of_hints, nonce, about, &mut page, tag)?;
        Ok(page)
    }

    fn sealing(&self) -> Option<&StoreKey> {
        self.keys.first().filter(|_| self.seals)
    }

    fn find(&self, id: KeyId) -> Result<&StoreKey, FormatError> {
        self.keys.iter().find(|key| key.id == id).ok_or(FormatError::KeyMissing(id))
    }
}

/// Which key a stored value is sealed with.
pub(super) fn key_id(stored_value: &[u8]) -> Result<KeyId, FormatError> {
    Ok(Seal::of(stored_value)?.id)
}

struct Seal<'a> {
    id: KeyId,
    nonce: &'a [u8; NONCE_LEN],
    key_tag: &'a [u8; TAG_LEN],
    value_tag: &'a [u8; TAG_LEN],
}

impl Seal<'_> {
    fn of(stored_value: &[u8]) -> Result<Seal<'_>, FormatError> {
        let split = || {
            let (id, rest) = stored_value.split_first_chunk()?;
            let (nonce, rest) = rest.split_first_chunk()?;
            let (key_tag, rest) = rest.split_first_chunk()?;
            let (value_tag, _) = rest.split_first_chunk()?;
            Some(Seal { id: KeyId(u64::from_le_bytes(*id)), nonce, key_tag, value_tag })
        };
        split().ok_or(FormatError::invalid("an encrypted record is too short for its seal"))
    }
}

fn cipher(key: &[u8; 32]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&Key::from(*key))
}

/// SE1.
fn random_nonce() -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce)
        .expect("the system gave random bytes when the store was opened, and does not stop to");
    nonce
}

fn encrypt(
    cipher: &XChaCha20Poly1305,
    nonce: &[u8; NONCE_LEN],
    about: &[u8],
    bytes: &mut [u8],
) -> [u8; TAG_LEN] {
    cipher
        .encrypt_inout_detached(&XNonce::from(*nonce), about, InOutBuf::from(bytes))
        .expect("no record or page is longer than the 256 GiB that one nonce is good for")
        .into()
}

/// SE2: of what does not verify nothing is decrypted.
fn decrypt(
    cipher: &XChaCha20Poly1305,
    nonce: &[u8; NONCE_LEN],
    about: &[u8],
    bytes: &mut [u8],
    tag: &[u8; TAG_LEN],
) -> Result<(), FormatError> {
    cipher
        .decrypt_inout_detached(
            &XNonce::from(*nonce),
            about,
            InOutBuf::from(bytes),
            &Tag::from(*tag),
        )
        .map_err(|_error| damaged())
}

fn damaged() -> FormatError {
    FormatError::invalid("it does not decrypt: it is not what was encrypted under its key")
}
