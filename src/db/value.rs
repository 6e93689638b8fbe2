//! What can be stored: anything that is bytes, without a copy where it is owned.

use bytes::Bytes;

/// Types that can be the value of a put.
///
/// A short value is copied once, next to its key; a long owned one (`Vec<u8>`, `String`, [`Bytes`])
/// moves in without a copy.
pub trait IntoValue {
    /// The bytes to store.
    fn as_value(&self) -> &[u8];

    /// The same bytes, owned.
    fn into_bytes(self) -> Bytes;
}

macro_rules! borrowed {
    ($([$($generics:tt)*] $type:ty,)*) => {$(
        impl<$($generics)*> IntoValue for $type {
            fn as_value(&self) -> &[u8] {
                self.as_ref()
            }

            fn into_bytes(self) -> Bytes {
                Bytes::copy_from_slice(self.as_ref())
            }
        }
    )*};
}

macro_rules! owned {
    ($($type:ty,)*) => {$(
        impl IntoValue for $type {
            fn as_value(&self) -> &[u8] {
                self.as_ref()
            }

            fn into_bytes(self) -> Bytes {
                Bytes::from(self)
            }
        }
    )*};
}

borrowed! {
    [] &str,
    [] &String,
    [] &[u8],
    [] &Vec<u8>,
    [] &Bytes,
    [const N: usize] [u8; N],
    [const N: usize] &[u8; N],
}

owned! {
    Vec<u8>,
    String,
    Bytes,
    Box<[u8]>,
}
