//! Which images may be used: `policy.json` as skopeo and podman read it.
//!
//! The requirements of the most specific scope apply, and all of them must be satisfied. What
//! this version cannot check (keyless, logs) is read and refused when it would have to
//! decide; it is never taken as satisfied.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use async_trait::async_trait;
use image::{Descriptor, Digest};
use task::{Cause, Task};
use transport::{Gate, Location, Source};

use self::file::{KeySource, MAX_POLICY, PolicyFile, Requirement};
pub use self::matcher::SignedIdentity;
use crate::error::{Error, Result};
use crate::find::{self, Found};
use crate::key::PublicKey;
use crate::verify::{Candidate, Demand, Verified, verify_any};
use crate::{gpg, pem};

mod file;
mod matcher;

/// Decides which images may be used. Made from a file, or by [`Policy::accept_anything`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    name: String,
    file: PolicyFile,
}

impl Policy {
    /// The policy that accepts every image.
    pub fn accept_anything() -> Policy {
        let file =
            PolicyFile { default: vec![Requirement::Accept], transports: Default::default() };
        Policy { name: "accept anything".to_owned(), file }
    }

    /// Reads a policy; `name` is for messages. Key files are read when they are needed.
    ///
    /// # Errors
    /// [`Error::Policy`].
    pub fn read(name: &str, json: &[u8]) -> Result<Policy> {
        let file = file::read(json);
        let file = file.map_err(|reason| Error::Policy { name: name.to_owned(), reason })?;
        Ok(Policy { name: name.to_owned(), file })
    }

    /// Reads a policy file.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Policy`].
    pub fn open(path: &Path) -> Result<Policy> {
        let json = read_file("signature policy", path, MAX_POLICY)?;
        Policy::read(&path.display().to_string(), &json)
    }

    /// Whether signatures are looked at to decide about images of this place.
    pub fn wants_signatures(&self, location: Option<&Location>) -> bool {
        let (_, requirements) = self.requirements(location);
        requirements.iter().any(|requirement| matches!(requirement, Requirement::Signed { .. }))
    }

    /// Whether GPG signatures, which lie in lookasides, decide about images of this place.
    pub fn wants_lookaside(&self, location: Option<&Location>) -> bool {
        let (_, requirements) = self.requirements(location);
        requirements.iter().any(|requirement| matches!(requirement, Requirement::Gpg { .. }))
    }

    /// The signatures that decide about an image, if any do; those first that say they were made
    /// with a key of the policy.
    ///
    /// # Errors
    /// [`Error::Transport`], [`Error::Cancelled`]; [`Error::File`] and [`Error::Key`] for the
    /// keys that the policy names.
    pub async fn collect(
        &self,
        source: &dyn Source,
        image: &Descriptor,
        task: &Task,
    ) -> Result<Found> {
        let location = source.location();
        if !self.wants_signatures(location.as_ref()) {
            return Ok(Found::default());
        }
        let mut keys = Vec::new();
        for requirement in self.requirements(location.as_ref()).1 {
            if let Requirement::Signed { keys: sources, .. } = requirement {
                for source in sources {
                    keys.push(key(source)?.id());
                }
            }
        }
        find::collect(image, &keys, source, task).await
    }

    /// Decides about an image of a place, by the signatures that were found for it. What is given
    /// back are the sigstore signatures that satisfied the policy; it is empty where none was needed.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::Unsupported`], [`Error::Unsigned`], [`Error::Unverified`];
    /// [`Error::File`] and [`Error::Key`] for the keys that the policy names.
    pub fn decide(
        &self,
        image: &Digest,
        location: Option<&Location>,
        candidates: &[Candidate],
    ) -> Result<Vec<Verified>> {
        let (scope, requirements) = self.requirements(location);
        let asked = match location {
            Some(Location::Registry(reference)) => Some(reference.clone()),
            Some(Location::Store(name)) => name.parse().ok(),
            _ => None,
        };
        let mut verified = Vec::new();
        for requirement in requirements {
            match requirement {
                Requirement::Accept => {}
                Requirement::Reject => {
                    let scope = format!("{scope} of {}", self.name);
                    return Err(Error::Rejected { image: *image, scope });
                }
                Requirement::Unsupported(what) => {
                    let (scope, what) = (format!("{scope} of {}", self.name), what.clone());
                    return Err(Error::Unsupported { image: *image, scope, what });
                }
                Requirement::Gpg { keys, identity } => {
                    let keys = keys.iter().map(gpg_key).collect::<Result<Vec<_>>>()?;
                    let signer = gpg::any(image, candidates, &keys, identity, asked.as_ref())?;
                    tracing::info!(%image, signer, "GPG signature accepted");
                }
                Requirement::Signed { keys, identity } => {
                    let demand = Demand {
                        keys: keys.iter().map(key).collect::<Result<_>>()?,
                        identity: identity.clone(),
                        asked: asked.clone(),
                        ..Demand::default()
                    };
                    verified.extend(verify_any(image, candidates, &demand)?);
                }
            }
        }
        Ok(verified)
    }

    /// The requirements that apply, and the name of their scope.
    fn requirements(&self, location: Option<&Location>) -> (String, &[Requirement]) {
        let scoped = location.and_then(|location| {
            let transport = location.transport();
            let scopes = self.file.transports.get(transport)?;
            let own = matcher::scopes(location).into_iter().find_map(|scope| {
                let requirements = scopes.get(&scope)?;
                Some((format!("scope {transport}:{scope}"), requirements.as_slice()))
            });
            let all = || Some((format!("transport {transport}"), scopes.get("")?.as_slice()));
            own.or_else(all)
        });
        scoped.unwrap_or_else(|| ("the default".to_owned(), &self.file.default))
    }
}

/// Lets an image pass if the policy is satisfied; reads its signatures only if they matter.
#[async_trait]
impl Gate for Policy {
    async fn check(&self, source: &dyn Source, root: &Descriptor) -> Result<(), Cause> {
        let location = source.location();
        let location = location.as_ref();
        let found = self.collect(source, root, &Task::silent()).await?;
        let decided = self.decide(&root.digest, location, &found.candidates);
        let verified = find::told(root, found.unread, decided)?;
        for signature in verified {
            tracing::info!(image = %root.digest, key = %signature.key(), "signature accepted");
        }
        Ok(())
    }
}

fn key(source: &KeySource) -> Result<PublicKey> {
    match source {
        KeySource::Pem(pem) => PublicKey::read(pem),
        KeySource::File(path) => {
            PublicKey::read(&read_file("public key", path, pem::MAX_PEM as u64)?)
        }
    }
}

fn gpg_key(source: &KeySource) -> Result<Vec<u8>> {
    match source {
        KeySource::Pem(key) => Ok(key.clone()),
        KeySource::File(path) => read_file("GPG key", path, gpg::MAX_KEYS),
    }
}

/// Reads a file of bounded size; one byte more than the limit makes the reader of it refuse.
fn read_file(what: &'static str, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| Error::File { what, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
