//! Stand-ins for what keyless signing needs, small and honest, on loopback: a certificate authority
//! (Fulcio), logs of certificates and signatures (Rekor v1 and v2), a timestamp authority, an
//! OpenID provider, and the update framework that hands out their keys.
//!
//! A [`World`] holds the keys of all of them. Its functions make single pieces, good or, by what
//! they are asked for, broken in one place; [`serve()`] puts the world behind HTTP.
#![allow(clippy::unwrap_used, reason = "test support fails loudly")]

mod certificate;
mod key;
mod kms;
mod log;
mod oidc;
mod root;
mod serve;
mod timestamp;
mod tuf;

pub use certificate::{Authority, Certificate, San};
pub use key::{Ed25519, P256, pem, sha256};
pub use log::{Log, Version};
pub use oidc::Provider;
pub use serve::{StandinServer, serve};
pub use timestamp::TimestampAuthority;
pub use tuf::Repository;

/// When the world's authorities begin: 2026-01-01.
pub const BEGIN: u64 = 1_767_225_600;
/// A day, in seconds.
pub const DAY: u64 = 86_400;

/// The trusted root of keyless verification.
pub struct World {
    /// Issues certificates.
    pub fulcio: Authority,
    /// Promises to list them.
    pub certificate_log: P256,
    /// Lists signatures: Rekor v1.
    pub rekor: Log,
    /// Lists signatures: Rekor v2.
    pub tiles: Log,
    /// Says when.
    pub timestamps: TimestampAuthority,
    /// Says who.
    pub provider: Provider,
    /// The key that lies in every key service.
    pub service_key: P256,
}

impl Default for World {
    fn default() -> World {
        World::new(1)
    }
}

impl World {
    /// A world whose keys follow from a number, valid for ten years from [`BEGIN`].
    pub fn new(seed: u8) -> World {
        let end = BEGIN + 3650 * DAY;
        World {
            fulcio: Authority::new("fulcio", seed, (BEGIN, end)),
            certificate_log: P256::new(&[seed, 2]),
            rekor: Log::new(Version::V1, &[seed, 3]),
            tiles: Log::new(Version::V2, &[seed, 4]),
            timestamps: TimestampAuthority::new(seed, (BEGIN, end)),
            provider: Provider::new(&[seed, 5]),
            service_key: P256::new(&[seed, 7]),
        }
    }
}
