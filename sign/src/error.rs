use std::fmt;
use std::path::PathBuf;

use image::Digest;
use task::{Cause, Fault, Kind};

use crate::mismatch::Mismatch;

/// What this crate's functions give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What goes wrong while signing and verifying.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key cannot be read.
    #[error("reading a {what} key: {reason}")]
    Key {
        /// `private` or `public`.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The private key is encrypted and no passphrase was given.
    #[error("reading a private key: it is encrypted and there is no passphrase")]
    PassphraseNeeded,
    /// The private key cannot be decrypted.
    #[error("decrypting a private key: the passphrase is wrong, or the file was changed")]
    Passphrase,
    /// The kernel gave no random bytes.
    #[error("getting random bytes for a key")]
    Random,
    /// A file cannot be read.
    #[error("reading {what} {path:?}")]
    File {
        /// What the file is.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("writing {}", path.display())]
    Keep {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A policy file breaks its grammar (containers-policy.json(5)).
    #[error("reading signature policy {name}: {reason}")]
    Policy {
        /// The file's name.
        name: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// There is no signature at all.
    #[error("verifying {image}: it has no signature")]
    Unsigned {
        /// The image that was to be verified.
        image: Digest,
    },
    /// There is no attestation of the requested type.
    #[error("verifying {image}: no signed statement of {kind} is attached to it")]
    Unattested {
        /// The image that was to be verified.
        image: Digest,
        /// The type.
        kind: String,
    },
    /// There are signatures, and none of them will do.
    #[error("verifying {image}: {}", RejectionList(rejected))]
    Unverified {
        /// The image that was to be verified.
        image: Digest,
        /// Why each signature was not accepted, in the order they were found.
        rejected: Vec<RejectedSignature>,
    },
    /// There are more signatures than are read (CVE-2024-29903), and none of those that are read
    /// will do.
    #[error(
        "verifying {image}: of its {found} signatures {} are read, and {}",
        rejected.len(),
        RejectionList(rejected)
    )]
    TooMany {
        /// The image that was to be verified.
        image: Digest,
        /// How many there are.
        found: usize,
        /// Why each signature that was read was not accepted.
        rejected: Vec<RejectedSignature>,
    },
    /// The policy says no, whatever the signatures are.
    #[error("checking {image} against the signature policy: {scope} is rejected")]
    Rejected {
        /// The image that was to be let through.
        image: Digest,
        /// The scope of the policy that matched.
        scope: String,
    },
    /// Certificates or a trusted root that a policy or flag names cannot be used.
    #[error("reading what {name} trusts: {reason}")]
    Trust {
        /// Where it is.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `gpg`, or a key of the policy, is of no use.
    #[error("verifying the GPG signatures of {image}: {reason}")]
    Gpg {
        /// The image that was to be verified.
        image: Digest,
        /// What is in the way.
        reason: String,
    },
    /// A service of keyless signing refuses, or cannot be reached.
    #[error("asking {what}: {reason}")]
    Service {
        /// Which service.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// A file of the update framework cannot be trusted.
    #[error("updating the trusted root: {file}: {reason}")]
    Update {
        /// Which file.
        file: String,
        /// Why not.
        reason: String,
    },
    /// `gpg` could not sign or verify with the user's keyring.
    #[error("using gpg: {reason}")]
    GpgFailed {
        /// What it said.
        reason: String,
    },
    /// A file of registries.d breaks its grammar (containers-registries.d(5)).
    #[error("reading {}: {reason}", path.display())]
    Lookaside {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// Parameters of signing that cannot be used.
    #[error("reading {}: {reason}", path.display())]
    Parameters {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The signatures are on a server that cannot be written to.
    #[error("signatures of {name} lie at {place}, which is not a file:// URL")]
    NoDirectory {
        /// The name.
        name: String,
        /// The URL.
        place: String,
    },
    /// The image's `.sig` tag holds something else than signatures.
    #[error("adding a signature to {name}: {reason}")]
    NotSignatures {
        /// The tag.
        name: String,
        /// What is there instead.
        reason: String,
    },
    /// An image cannot be signed as asked.
    #[error("signing {image}: {reason}")]
    Sign {
        /// The image that was to be signed.
        image: Digest,
        /// What stands against it.
        reason: String,
    },
    /// A document cannot be read.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The place where the image lies could not be read or written.
    #[error(transparent)]
    Transport(#[from] Cause),
    /// The user stopped the work.
    #[error(transparent)]
    Cancelled(#[from] task::Cancelled),
}

/// One signature that was not accepted, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedSignature {
    /// Where the signature was found.
    pub origin: String,
    /// What did not match.
    pub mismatch: Mismatch,
}

impl fmt::Display for RejectedSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.mismatch)
    }
}

/// At most this many reasons are spelled out in one message.
const SPELLED_OUT: usize = 4;

struct RejectionList<'a>(&'a [RejectedSignature]);

impl fmt::Display for RejectionList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [one] => return write!(f, "its signature is not accepted: {one}"),
            many => write!(f, "none of its {} signatures is accepted", many.len())?,
        }
        for (index, rejected) in self.0.iter().take(SPELLED_OUT).enumerate() {
            write!(f, "{} {rejected}", if index == 0 { ":" } else { ";" })?;
        }
        match self.0.len().saturating_sub(SPELLED_OUT) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Key { .. } | Error::Policy { .. } | Error::Trust { .. } | Error::Sign { .. } => {
                Kind::Invalid
            }
            Error::NotSignatures { .. }
            | Error::Lookaside { .. }
            | Error::Parameters { .. }
            | Error::NoDirectory { .. } => Kind::Invalid,
            Error::PassphraseNeeded | Error::Passphrase => Kind::Denied,
            Error::Random => Kind::System,
            Error::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Kind::NotFound
            }
            Error::File { .. } => Kind::System,
            Error::Keep { source, .. } => Kind::of_io(source),
            Error::Unsigned { .. }
            | Error::Unattested { .. }
            | Error::Unverified { .. }
            | Error::TooMany { .. }
            | Error::Rejected { .. }
            | Error::Gpg { .. }
            | Error::Service { .. }
            | Error::Update { .. }
            | Error::GpgFailed { .. } => Kind::Refused,
            Error::Image(error) => error.kind(),
            Error::Transport(cause) => cause.kind(),
            Error::Cancelled(_) => Kind::Cancelled,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Unverified { rejected, .. } | Error::TooMany { rejected, .. } => {
                rejected.iter().find_map(|rejected| rejected.mismatch.hint())
            }
            Error::Unsigned { .. } => {
                Some("sign it, or ask its publisher where the signatures are".to_owned())
            }
            Error::NoDirectory { .. } => {
                Some("set lookaside-staging to a file:// URL in registries.d".to_owned())
            }
            Error::GpgFailed { reason } if reason.starts_with("running it") => {
                Some("install GnuPG: `apt install gnupg`".to_owned())
            }
            Error::Parameters { reason, .. } if reason.ends_with("is not supported") => Some(
                "signatures are made with a private key, and not recorded in a transparency log"
                    .to_owned(),
            ),
            Error::Transport(cause) => cause.hint(),
            Error::Image(error) => error.hint(),
            _ => None,
        }
    }
}
