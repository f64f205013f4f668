//! Whether one signature is valid: numbered steps without any input or output.
//!
//! 1. It is small enough to be looked at.
//! 2. It can be read: strict JSON of a known media type.
//! 3. It names one thing to verify it by: a key, or a certificate.
//! 4. It has one content: a statement in an envelope, or a payload with its signature.
//! 5. There is exactly one signature over that content.
//! 6. The content is of the type that signatures of images have.
//! 7. One of the trusted keys made the signature, or a certificate names one of the trusted
//!    identities (the twelve steps of [`crate::keyless`]). Only then the content is used.
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

use crate::bundle::{self, Bundle};
use crate::error::{Error, RejectedSignature, Result};
use crate::mismatch::Mismatch;
use crate::printable::printable;
use crate::signed_identity::SignedIdentity;
use crate::signers::{Signer, Signers};
use crate::strict::texts;
use crate::{dsse, simple_signing};

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
    /// Who is trusted; one of them must have signed.
    pub signers: Signers,
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
    signer: Signer,
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

    /// Who signed it.
    pub fn signer(&self) -> &Signer {
        &self.signer
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
    // Step 10. Only a bundle may name nothing: the older form has a field for the name.
    let rule = match (&demand.identity, claims.form) {
        (SignedIdentity::IfNamed, Form::Tag) => &SignedIdentity::RepoDigestOrExact,
        (rule, _) => rule,
    };
    rule.check(demand.asked.as_ref(), claims.name.as_deref())?;
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
        signer: claims.signer,
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
                rejected.push(RejectedSignature { origin: candidate.origin.clone(), mismatch });
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
    signer: Signer,
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
    // Step 7.
    let signer = demand.signers.of_envelope(&parts)?;
    let unchecked = match demand.signers.logs {
        Some(_) => 0,
        None => parts.entries.len() + usize::from(parts.timestamps.is_some()),
    };
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
    let by_key = matches!(signer, Signer::Key(_));
    Ok(Claims {
        signer,
        form: Form::Bundle,
        name: subject.name.filter(|name| !name.is_empty()),
        annotations: texts(subject.annotations.unwrap_or_default()),
        unchecked: if by_key { unchecked } else { 0 },
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
        .map_err(|error| Mismatch::malformed("its signature is not base64: ", &error))?;
    // Step 7, and step 3 with it.
    let signer = demand.signers.of_payload(payload, &signature, annotations)?;
    // Step 2, late: nothing unverified is parsed.
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
    Ok(Claims { signer, form: Form::Tag, name, annotations, unchecked: 0 })
}

fn name_of_subject(subject: &dsse::Subject) -> String {
    let digest = subject.digest.0.iter().next();
    digest.map_or("nothing".to_owned(), |(algorithm, hex)| format!("{algorithm}:{hex}"))
}

#[cfg(test)]
mod tests;
