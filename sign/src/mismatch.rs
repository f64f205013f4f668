//! Why a signature is not accepted.

use std::fmt;

use crate::dsse;
use crate::key_id::KeyId;
use crate::keyless::Refusal;
use crate::printable::printable;

/// Why a signature is not accepted. The words follow "the signature", so to say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// Step 1.
    #[error("it has {size} bytes, more than the {limit} that are read")]
    TooLarge {
        /// Its length in bytes, as announced.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Step 1, for all of them together.
    #[error("the signatures before it are so large that it is not read")]
    TooMuch,
    /// Step 2: the content of the signature is missing or has another type.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Step 2.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// Step 2.
    #[error("its media type is {0:?}, not that of a bundle v0.3")]
    MediaType(String),
    /// Step 3: a key is required, but a certificate made it.
    #[error("it is keyless (made with a certificate), and a key is asked for")]
    Keyless,
    /// Step 3: an identity is required, but a key made it.
    #[error("it is made with a key, and a certificate is asked for")]
    Keyed,
    /// Step 7, of a signature made with a certificate.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Step 3.
    #[error("it {0}")]
    Material(&'static str),
    /// Step 4.
    #[error("it {0}")]
    Content(&'static str),
    /// Step 5.
    #[error("it has {0} signatures where exactly one is allowed")]
    Signatures(usize),
    /// Step 6.
    #[error("its payload is of type {0:?}, not {IN_TOTO:?}", IN_TOTO = dsse::IN_TOTO)]
    PayloadType(String),
    /// Step 7: there is no key to verify with.
    #[error("no key is trusted")]
    NoKeys,
    /// Step 7: the bundle names a key that is not among the trusted ones.
    #[error("it was made with key {signer}, and the trusted key is {}", Keys(trusted))]
    Key {
        /// The key it names.
        signer: String,
        /// The keys that are trusted.
        trusted: Vec<KeyId>,
    },
    /// Step 7.
    #[error("it does not fit its content by the trusted key {}: another key made it, or one of the two was changed", Keys(.trusted))]
    Signature {
        /// The keys that were tried.
        trusted: Vec<KeyId>,
    },
    /// Step 7, of a signature made with GPG.
    #[error("{0}")]
    Gpg(String),
    /// Step 8.
    #[error("it signs {0:?}, which is not the type of an image's signature")]
    Type(String),
    /// Step 9.
    #[error("it signs {signed}, not this image")]
    Digest {
        /// What it signs.
        signed: String,
    },
    /// Step 10.
    #[error("it was made for {signed}, not for {wanted}")]
    Identity {
        /// The name that was signed.
        signed: String,
        /// The name it should be, in words.
        wanted: String,
    },
    /// Step 10: no name was signed.
    #[error("it names no image, only a digest, and {wanted} is asked for")]
    Nameless {
        /// The name it should be, in words.
        wanted: String,
    },
    /// Step 10: the image has no name to compare with.
    #[error("the image comes from a place without names, so {rule} cannot be satisfied")]
    NoReference {
        /// The rule of the policy.
        rule: &'static str,
    },
    /// Step 11.
    #[error("its annotation {name:?} is {}, not {wanted:?}", found.as_ref().map_or("missing".to_owned(), |found| format!("{found:?}")))]
    Annotation {
        /// The annotation.
        name: String,
        /// What it should be.
        wanted: String,
        /// What it is.
        found: Option<String>,
    },
}

struct Keys<'a>(&'a [KeyId]);

impl fmt::Display for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in self.0.iter().enumerate() {
            write!(f, "{}{key}", if index == 0 { "" } else { " or " })?;
        }
        Ok(())
    }
}

impl Mismatch {
    pub(crate) fn malformed(what: &str, error: &dyn fmt::Display) -> Mismatch {
        Mismatch::Malformed(printable(&format!("{what}{error}")))
    }

    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Mismatch::Identity { .. } => {
                "if the image was copied or signed without a tag, a policy can say \
                 \"signedIdentity\": {\"type\": \"matchRepository\"} or \"exactRepository\""
            }
            Mismatch::Nameless { .. } => {
                "a policy that trusts the key for any name says \
                 \"signedIdentity\": {\"type\": \"matchDigestOnly\"}"
            }
            Mismatch::Keyless => "name its signer: the identity and the issuer of its certificate",
            Mismatch::Digest { .. } => {
                "the image was changed after it was signed, or the signature was moved to it"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
