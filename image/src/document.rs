use std::ops::Deref;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Algorithm, Descriptor, Digest, Digester, Error, MediaType, Result};

/// No manifest, index or config larger than this is read (4 MiB, as registries limit them).
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// A parsed document together with the exact bytes that its digest names (invariant I5).
#[derive(Debug, Clone)]
pub struct Document<T> {
    descriptor: Descriptor,
    bytes: Bytes,
    value: T,
}

impl<T> Document<T> {
    /// What names this document.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The document's digest.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// The exact bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The parsed value on its own; changing it makes a new document.
    pub fn into_value(self) -> T {
        self.value
    }

    /// The same document under another descriptor of the same content (annotations, platform).
    pub fn described(mut self, descriptor: Descriptor) -> Self {
        debug_assert_eq!(descriptor.digest, self.descriptor.digest);
        self.descriptor = descriptor;
        self
    }
}

impl<T: DeserializeOwned> Document<T> {
    /// Checks the bytes against size and digest, then parses them.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::SizeMismatch`], [`Error::DigestMismatch`],
    /// [`Error::Malformed`].
    pub fn read(descriptor: Descriptor, bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        check(&descriptor, &bytes)?;
        let value = serde_json::from_slice(&bytes).map_err(|source| Error::Malformed {
            digest: descriptor.digest,
            media_type: descriptor.media_type.to_string(),
            source,
        })?;
        Ok(Document { descriptor, bytes, value })
    }
}

impl<T: Serialize> Document<T> {
    /// Serialises a value: compact JSON, fields in the order of the spec, maps sorted, so that the
    /// same value always gives the same digest (invariant I12).
    pub fn write(media_type: MediaType, value: T) -> Self {
        let bytes = serde_json::to_vec(&value).expect("documents are plain data with string keys");
        let descriptor = Descriptor::of(media_type, &bytes);
        Document { descriptor, bytes: bytes.into(), value }
    }
}

/// Checks that bytes are what the descriptor says, and of a document's size.
pub(crate) fn check(descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
    let found = bytes.len() as u64;
    if descriptor.size > MAX_DOCUMENT || found > MAX_DOCUMENT {
        let size = descriptor.size.max(found);
        return Err(Error::TooLarge { digest: descriptor.digest, size, limit: MAX_DOCUMENT });
    }
    if found != descriptor.size {
        let (digest, expected) = (descriptor.digest, descriptor.size);
        return Err(Error::SizeMismatch { digest, expected, found });
    }
    let found = match descriptor.digest.algorithm() {
        Algorithm::Sha256 => Digest::of(bytes),
        algorithm => {
            let mut digester = Digester::new(algorithm);
            digester.update(bytes);
            digester.finish()
        }
    };
    if found != descriptor.digest {
        return Err(Error::DigestMismatch { expected: descriptor.digest, found });
    }
    Ok(())
}

impl<T> Deref for Document<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}
