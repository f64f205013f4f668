//! Making signatures of images, checking them, and deciding which of them matter.
//!
//! A signature states that the holder of a key signed the image with this digest under this name.
//! It is stored beside the image as a sigstore [`bundle`] that refers to it, or in the older form
//! of [`simple_signing`] under a tag made from the digest. [`sign_image`] and [`verify_image`] are
//! the only functions that use a registry; [`verify()`] itself is pure and is the only maker of a
//! [`Verified`]. A [`Policy`] is the gate that an image passes before it is used.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use sign::{Candidate, Demand, Evidence, PrivateKey, simple_signing, verify};
//!
//! let image = image::Digest::of(b"the manifest of an image");
//! let key = PrivateKey::generate()?;
//! let signed = simple_signing::sign(&image, "r.example/app:1", &BTreeMap::new(), &key, None)?;
//!
//! let layer = &signed.manifest.layers[0];
//! let (_, payload) = signed.blobs.iter().find(|(blob, _)| blob.digest == layer.digest).unwrap();
//! let evidence = Evidence::Payload(payload.clone(), layer.annotations.clone());
//! let candidate = Candidate { origin: "the example".to_owned(), evidence };
//! let demand = Demand {
//!     signers: sign::Signers::keys(vec![key.public()]),
//!     asked: Some("r.example/app:1".parse()?),
//!     ..Demand::default()
//! };
//! assert_eq!(verify(&image, &candidate, &demand)?.image(), image);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(
    not(all(feature = "online", feature = "cosign-keys")),
    allow(dead_code, unused_imports, unused_variables, reason = "signing by identity needs them")
)]

mod attest;
pub mod beside;
mod blob;
pub mod bundle;
pub mod dsse;
mod error;
mod find;
pub mod gpg;
mod hash;
mod image;
mod key;
mod key_id;
pub mod keyless;
#[cfg(feature = "online")]
pub mod kms;
#[cfg(feature = "lookaside")]
pub mod lookaside;
#[cfg(feature = "lookaside")]
mod lookaside_copy;
mod mismatch;
#[cfg(feature = "online")]
pub mod online;
mod pem;
pub mod policy;
pub mod predicate;
mod printable;
#[cfg(feature = "rules")]
pub mod rules;
#[cfg(feature = "cosign-keys")]
mod sealed;
mod sealer;
mod signed_identity;
mod signers;
#[cfg(feature = "lookaside")]
mod signing_parameters;
pub mod simple_signing;
mod spki;
mod strict;
#[cfg(feature = "online")]
pub mod tuf;
pub mod verify;

pub use self::image::{MAX_MEMBERS, SignOptions, members, sign_image, verify_image};
pub use attest::{
    Attestation, MAX_ATTESTATION, attest_image, attestations, is_signature, verify_attestations,
    verify_envelope, verify_statement,
};
pub use blob::{sign_blob, verify_blob};
pub use error::{Error, RejectedSignature, Result};
pub use find::{MAX_SIGNATURES, SignatureCandidates, collect, told};
pub use gpg::MAX_GPG;
pub use key::{PrivateKey, PublicKey};
pub use key_id::KeyId;
pub use keyless::{Identity, IdentityRule, Matching, TrustedRoot};
#[cfg(feature = "online")]
pub use kms::RemoteKey;
pub use mismatch::Mismatch;
#[cfg(feature = "online")]
pub use online::{IdentitySigner, IdentityToken};
pub use policy::Policy;
pub use sealer::Sealer;
pub use signed_identity::SignedIdentity;
pub use signers::{Signer, Signers};
#[cfg(feature = "lookaside")]
pub use signing_parameters::SigningParameters;
pub use verify::{Candidate, Demand, Evidence, Form, Verified, verify, verify_any};

/// Parsers of foreign signatures, for `fuzz/`.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads bytes as everything a signature consists of.
    pub fn signature(bytes: &[u8]) {
        let _ = crate::bundle::Bundle::open(bytes);
        let _ = crate::simple_signing::read(bytes);
        let _ = crate::pem::find(bytes, |_| true);
        let _ = crate::PublicKey::read(bytes);
        let _ = crate::PrivateKey::read(bytes, None);
    }
}
