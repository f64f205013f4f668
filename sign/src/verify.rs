//! Whether one signature is good: numbered steps, none of which reads or writes anything.
//!
//! 1. It is small enough to be looked at.
//! 2. It can be read: strict JSON of a known media type.
//! 3. It is made with a key, and names nothing else to verify it by.
//! 4. It has one content: a statement in an envelope, or a payload with its signature.
//! 5. There is exactly one signature over that content.
//! 6. The content is of the type that signatures of images have.
//! 7. One of the trusted keys made the signature. Only now the content is believed.
//! 8. The content says that it is the signature of an image.
//! 9. It is the signature of this image: the digests are the same.
//! 10. It was made for the name that was asked for.
//! 11. It has the annotations that were asked for.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use image::{Digest, Reference};
use serde::Serialize;

use crate::bundle::{self, Bundle, Unfit};
use crate::policy::SignedIdentity;
use crate::strict::texts;
use crate::{Error, KeyId, PublicKey, Rejected, Result, dsse, simple_signing};

/// In which form a signature is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A sigstore bundle that refers to the image, as cosign 3 stores it.
    #[default]
    Bundle,
    /// A simple-signing payload under the tag `sha256-<hex>.sig`, as cosign 2 and skopeo store it.
    Tag,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Bundle => "bundle",
            Form::Tag => "tag",
        })
    }
}

/// A signature as it was found; nothing about it is known yet.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Where it was found, for messages.
    pub origin: String,
    /// What was found there.
    pub evidence: Evidence,
}

/// What was found where a signature is expected.
#[derive(Debug, Clone)]
pub enum Evidence {
    /// The bytes of a sigstore bundle.
    Bundle(Bytes),
    /// A simple-signing payload and the annotations of its descriptor.
    Payload(Bytes, BTreeMap<String, String>),
    /// An OpenPGP message with a simple-signing payload in it.
    Gpg(Bytes),
    /// Something that could not even be read.
    Unreadable(Mismatch),
}

/// What a signature has to be to be accepted.
#[derive(Debug, Clone, Default)]
pub struct Demand {
    /// The trusted keys; one of them must have signed.
    pub keys: Vec<PublicKey>,
    /// For which name it must have been made.
    pub identity: SignedIdentity,
    /// The name that was asked for, where there is one; `identity` compares with it.
    pub asked: Option<Reference>,
    /// Annotations that the signature must have.
    pub annotations: BTreeMap<String, String>,
}

/// A signature that was found good. Only [`verify()`] makes one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    image: Digest,
    key: KeyId,
    form: Form,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    annotations: BTreeMap<String, String>,
    origin: String,
    unchecked: usize,
}

impl Verified {
    /// The image that is signed.
    pub fn image(&self) -> Digest {
        self.image
    }

    /// The key that signed it.
    pub fn key(&self) -> KeyId {
        self.key
    }

    /// How the signature is stored.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The name that the image was signed under, if any.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What else was signed.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// Where the signature was found.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many log entries and timestamps came with the signature and were not looked at,
    /// because the key alone decides.
    pub fn unchecked(&self) -> usize {
        self.unchecked
    }
}

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
    /// Step 2: what should hold the signature is not to be had or is something else.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Step 2.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// Step 2.
    #[error("its media type is {0:?}, not that of a bundle v0.3")]
    MediaType(String),
    /// Step 3.
    #[error("it is keyless (made with a certificate), which is not supported yet")]
    Keyless,
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
    #[error("the image comes from a place without names, so that {rule} cannot be satisfied")]
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
    fn malformed(what: &str, error: &dyn fmt::Display) -> Mismatch {
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
            Mismatch::Keyless => "sign it with a key as well, or verify it with cosign",
            Mismatch::Digest { .. } => {
                "the image was changed after it was signed, or the signature was moved to it"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<Unfit> for Mismatch {
    fn from(unfit: Unfit) -> Mismatch {
        match unfit {
            Unfit::Malformed(reason) => Mismatch::malformed("", &reason),
            Unfit::MediaType(found) => Mismatch::MediaType(found),
            Unfit::Keyless => Mismatch::Keyless,
            Unfit::Material(what) => Mismatch::Material(what),
            Unfit::Content(what) => Mismatch::Content(what),
            Unfit::Signatures(count) => Mismatch::Signatures(count),
        }
    }
}

/// Checks one signature of an image against a demand.
///
/// # Errors
/// The first [`Mismatch`], in the order of the steps of this module.
pub fn verify(
    image: &Digest,
    candidate: &Candidate,
    demand: &Demand,
) -> Result<Verified, Mismatch> {
    let claims = match &candidate.evidence {
        Evidence::Bundle(json) => open_bundle(image, json, demand)?,
        Evidence::Payload(payload, annotations) => {
            open_payload(image, payload, annotations, demand)?
        }
        Evidence::Gpg(_) => {
            return Err(Mismatch::Content("is made with GPG, and a sigstore key is asked for"));
        }
        Evidence::Unreadable(mismatch) => return Err(mismatch.clone()),
    };
    // Step 10.
    demand.identity.check(demand.asked.as_ref(), claims.name.as_deref())?;
    // Step 11.
    for (name, wanted) in &demand.annotations {
        let found = claims.annotations.get(name);
        if found != Some(wanted) {
            let (name, wanted, found) = (name.clone(), wanted.clone(), found.cloned());
            return Err(Mismatch::Annotation { name, wanted, found });
        }
    }
    Ok(Verified {
        image: *image,
        key: claims.key,
        form: claims.form,
        name: claims.name,
        annotations: claims.annotations,
        origin: candidate.origin.clone(),
        unchecked: claims.unchecked,
    })
}

/// Checks all signatures of an image and gives back the good ones, at least one.
///
/// # Errors
/// [`Error::Unsigned`], [`Error::Unverified`].
pub fn verify_any(
    image: &Digest,
    candidates: &[Candidate],
    demand: &Demand,
) -> Result<Vec<Verified>> {
    let (mut good, mut rejected) = (Vec::new(), Vec::new());
    for candidate in candidates {
        match verify(image, candidate, demand) {
            Ok(verified) => good.push(verified),
            Err(mismatch) => {
                tracing::debug!(origin = candidate.origin, %mismatch, "signature not accepted");
                rejected.push(Rejected { origin: candidate.origin.clone(), mismatch });
            }
        }
    }
    match (good.is_empty(), rejected.is_empty()) {
        (false, _) => Ok(good),
        (true, true) => Err(Error::Unsigned { image: *image }),
        (true, false) => Err(Error::Unverified { image: *image, rejected }),
    }
}

/// What a signature says, believed because a trusted key made it.
struct Claims {
    key: KeyId,
    form: Form,
    name: Option<String>,
    annotations: BTreeMap<String, String>,
    unchecked: usize,
}

fn bounded(bytes: &[u8], limit: u64) -> Result<(), Mismatch> {
    let size = bytes.len() as u64;
    if size > limit { Err(Mismatch::TooLarge { size, limit }) } else { Ok(()) }
}

/// Steps 1 to 9 for a bundle.
fn open_bundle(image: &Digest, json: &[u8], demand: &Demand) -> Result<Claims, Mismatch> {
    // Step 1.
    bounded(json, bundle::MAX_BUNDLE)?;
    // Steps 2 to 5.
    let parts = Bundle::open(json)?;
    // Step 6.
    if parts.payload_type != dsse::IN_TOTO {
        return Err(Mismatch::PayloadType(parts.payload_type.chars().take(100).collect()));
    }
    // Step 7. A key's name is only a hint: it makes the message better, never the verdict.
    let signed = dsse::pre_authentication_encoding(&parts.payload_type, &parts.payload);
    let key = signer(&signed, &parts.signature, demand).map_err(|mismatch| match mismatch {
        Mismatch::Signature { trusted }
            if !parts.hint.is_empty() && trusted.iter().all(|key| key.hint() != parts.hint) =>
        {
            Mismatch::Key { signer: name_of_hint(&parts.hint), trusted }
        }
        other => other,
    })?;
    // Step 8.
    let statement: dsse::Statement = serde_json::from_slice(&parts.payload)
        .map_err(|error| Mismatch::malformed("its statement: ", &error))?;
    if statement.kind != dsse::STATEMENT_V1 {
        return Err(Mismatch::Type(statement.kind));
    }
    if statement.predicate_type != dsse::SIGN_V1 {
        return Err(Mismatch::Type(statement.predicate_type));
    }
    // Step 9.
    let (algorithm, hex) = (image.algorithm().as_str(), image.hex());
    let ours = |subject: &dsse::Subject| subject.digest.0.get(algorithm) == Some(&hex);
    let named: Vec<String> = statement.subject.iter().map(name_of_subject).collect();
    let Some(subject) = statement.subject.into_iter().find(ours) else {
        let signed = if named.is_empty() { "nothing".to_owned() } else { named.join(", ") };
        return Err(Mismatch::Digest { signed: printable(&signed) });
    };
    Ok(Claims {
        key,
        form: Form::Bundle,
        name: subject.name.filter(|name| !name.is_empty()),
        annotations: texts(subject.annotations.unwrap_or_default()),
        unchecked: parts.unchecked,
    })
}

/// Steps 1 to 9 for the older form.
fn open_payload(
    image: &Digest,
    payload: &[u8],
    annotations: &BTreeMap<String, String>,
    demand: &Demand,
) -> Result<Claims, Mismatch> {
    // Step 1.
    bounded(payload, simple_signing::MAX_PAYLOAD)?;
    // Steps 4 and 5.
    let signature = annotations.get(simple_signing::SIGNATURE_ANNOTATION);
    let signature = signature.ok_or(Mismatch::Content("has a payload, but no signature of it"))?;
    bounded(signature.as_bytes(), 1 << 10)?;
    let signature = STANDARD
        .decode(signature)
        .map_err(|error| Mismatch::malformed("its signature is no base64: ", &error))?;
    // Step 7; and step 3, which only matters where no key fits.
    let key = signer(payload, &signature, demand).map_err(|mismatch| match mismatch {
        Mismatch::Signature { .. }
            if annotations.contains_key(simple_signing::CERTIFICATE_ANNOTATION) =>
        {
            Mismatch::Keyless
        }
        other => other,
    })?;
    // Step 2, late: nothing is parsed that nobody vouches for.
    let claims = simple_signing::read(payload)
        .map_err(|error| Mismatch::malformed("its payload: ", &error))?;
    // Steps 6 and 8.
    if claims.kind != simple_signing::TYPE {
        return Err(Mismatch::Type(claims.kind));
    }
    // Step 9.
    if claims.digest != image.to_string() {
        return Err(Mismatch::Digest { signed: printable(&claims.digest) });
    }
    let (name, annotations) =
        (Some(claims.name).filter(|name| !name.is_empty()), claims.annotations);
    Ok(Claims { key, form: Form::Tag, name, annotations, unchecked: 0 })
}

/// Which trusted key made the signature.
fn signer(message: &[u8], signature: &[u8], demand: &Demand) -> Result<KeyId, Mismatch> {
    if demand.keys.is_empty() {
        return Err(Mismatch::NoKeys);
    }
    match demand.keys.iter().find(|key| key.verifies(message, signature)) {
        Some(key) => Ok(key.id()),
        None => {
            Err(Mismatch::Signature { trusted: demand.keys.iter().map(PublicKey::id).collect() })
        }
    }
}

/// A text from outside, for a message: bounded, and without anything that moves a terminal.
pub(crate) fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(300).map(clean).collect()
}

/// A hint in the form in which we write keys, where it is one of ours.
fn name_of_hint(hint: &str) -> String {
    match STANDARD.decode(hint).map(<[u8; 32]>::try_from) {
        Ok(Ok(digest)) => Digest::Sha256(digest).to_string(),
        _ => format!("{:?}", hint.chars().take(100).collect::<String>()),
    }
}

fn name_of_subject(subject: &dsse::Subject) -> String {
    let digest = subject.digest.0.iter().next();
    digest.map_or("nothing".to_owned(), |(algorithm, hex)| format!("{algorithm}:{hex}"))
}

#[cfg(test)]
mod tests;
