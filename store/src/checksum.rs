//! Values begin with a checksum of what follows: what is damaged is told from what is there.

const CHECKSUM_BYTES: usize = 4;

/// A body with its checksum before it.
pub(crate) fn with_checksum(body: &[u8]) -> Vec<u8> {
    [crc32fast::hash(body).to_be_bytes().as_slice(), body].concat()
}

/// The body of such a value; nothing if it is damaged.
pub(crate) fn checked(value: &[u8]) -> Option<&[u8]> {
    let (checksum, body) = value.split_first_chunk::<CHECKSUM_BYTES>()?;
    (crc32fast::hash(body).to_be_bytes() == *checksum).then_some(body)
}
