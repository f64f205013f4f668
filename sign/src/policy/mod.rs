//! Which images may be used: `policy.json` as skopeo and podman read it.
//!
//! The requirements of the most specific scope apply, and all of them must be satisfied.

use std::path::Path;
use std::time::SystemTime;

use async_trait::async_trait;
use copy::{Gate, Location, Source};
use image::{Descriptor, Digest};
use task::{Cause, Task};

use self::file::{MAX_POLICY, PolicyFile, Requirement};
use self::files::read_file;
use self::sigstore::Authenticator;
use crate::error::{Error, Result};
use crate::find::{self, SignatureCandidates};
use crate::gpg::{self, GpgChild};
use crate::key_id::KeyId;
use crate::verify::{Candidate, Demand, Verified, verify_any};

mod file;
mod files;
mod scopes;
mod sigstore;

/// Decides which images may be used. Made from a file, or by [`Policy::accept_anything`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    name: String,
    file: PolicyFile,
    now: Option<u64>,
}

impl Policy {
    /// The policy that accepts every image.
    pub fn accept_anything() -> Policy {
        let file =
            PolicyFile { default: vec![Requirement::Accept], transports: Default::default() };
        Policy { name: "accept anything".to_owned(), file, now: None }
    }

    /// Reads a policy; `name` is for messages. Key files are read when they are needed.
    ///
    /// # Errors
    /// [`Error::Policy`].
    pub fn read(name: &str, json: &[u8]) -> Result<Policy> {
        let file = file::read(json);
        let file = file.map_err(|reason| Error::Policy { name: name.to_owned(), reason })?;
        Ok(Policy { name: name.to_owned(), file, now: None })
    }

    /// Reads a policy file.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Policy`].
    pub fn open(path: &Path) -> Result<Policy> {
        let json = read_file("signature policy", path, MAX_POLICY)?;
        Policy::read(&path.display().to_string(), &json)
    }

    /// The same at this time: when certificates of an own authority (`pki`) must be valid. Without
    /// a time none is.
    #[must_use]
    pub fn at(self, now: SystemTime) -> Policy {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs());
        Policy { now, ..self }
    }

    /// Whether signatures decide about images of this place.
    pub fn wants_signatures(&self, location: Option<&Location>) -> bool {
        let (_, requirements) = self.requirements(location);
        requirements.iter().any(|requirement| matches!(requirement, Requirement::Signed { .. }))
    }

    /// Whether any signature decides about images of this place.
    pub fn checks(&self, location: Option<&Location>) -> bool {
        self.wants_signatures(location) || self.wants_lookaside(location)
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
    ) -> Result<SignatureCandidates> {
        let location = source.location();
        if !self.wants_signatures(location.as_ref()) {
            return Ok(SignatureCandidates::default());
        }
        let ids = self.on_thread(move |policy, _| policy.key_ids(location.as_ref())).await?;
        find::collect(image, &ids, source, task).await
    }

    /// The keys that signatures of images of this place must be made with.
    fn key_ids(&self, location: Option<&Location>) -> Result<Vec<KeyId>> {
        let mut ids = Vec::new();
        for requirement in self.requirements(location).1 {
            if let Requirement::Signed { by: Authenticator::Keys(keys), .. } = requirement {
                for key in keys {
                    ids.push(sigstore::key(key)?.id());
                }
            }
        }
        Ok(ids)
    }

    /// Does what reads files or waits for `gpg` on a thread. If it is not waited for to its end,
    /// `gpg` ends.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Policy, &GpgChild) -> T + Send + 'static,
    ) -> T {
        let policy = self.clone();
        gpg::on_thread(move |running| work(&policy, running)).await
    }

    /// As [`Policy::decide`], on a thread, by what was found for the image.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn judge(
        &self,
        location: Option<Location>,
        root: &Descriptor,
        found: SignatureCandidates,
    ) -> Result<Vec<Verified>> {
        let root = root.clone();
        self.on_thread(move |policy, running| {
            let (digest, candidates) = (&root.digest, &found.candidates);
            let decided = policy.decide_while(digest, location.as_ref(), candidates, running);
            find::told(&root, found.unread, decided)
        })
        .await
    }

    /// Decides about an image of a place, by the signatures that were found for it. Returns the
    /// sigstore signatures that satisfied the policy; empty if none was required.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::Unsigned`], [`Error::Unverified`];
    /// [`Error::File`] and [`Error::Key`] for the keys that the policy names.
    pub fn decide(
        &self,
        image: &Digest,
        location: Option<&Location>,
        candidates: &[Candidate],
    ) -> Result<Vec<Verified>> {
        self.decide_while(image, location, candidates, &GpgChild::default())
    }

    /// As [`Policy::decide`]; who holds `running` may end it.
    fn decide_while(
        &self,
        image: &Digest,
        location: Option<&Location>,
        candidates: &[Candidate],
        running: &GpgChild,
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
                Requirement::Gpg { keys, identity } => {
                    let keys = keys.iter().map(sigstore::gpg_key).collect::<Result<Vec<_>>>()?;
                    let signer =
                        gpg::any(image, candidates, &keys, (identity, asked.as_ref()), running)?;
                    tracing::info!(%image, signer, "GPG signature accepted");
                }
                Requirement::Signed { by, logs, identity } => {
                    let demand = Demand {
                        signers: sigstore::signers(by, logs.as_ref(), self.now)?,
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

    /// Whether every image of this place may be used.
    pub fn accepts(&self, location: &Location) -> bool {
        let (_, requirements) = self.requirements(Some(location));
        requirements.iter().all(|requirement| matches!(requirement, Requirement::Accept))
    }

    /// The name of a verdict about an image: another one wherever the rule that decides is another,
    /// or a file that it names has other content. `None` where no verdict is to be remembered:
    /// where nothing is required, and where the time decides as well.
    ///
    /// # Errors
    /// [`Error::File`]: a file that the policy names cannot be read.
    pub fn verdict(&self, location: Option<&Location>, image: &Digest) -> Result<Option<Digest>> {
        let (_, requirements) = self.requirements(location);
        let Some(location) = location else { return Ok(None) };
        let mut text = format!("{requirements:?}\n{location}\n{image}\n");
        let mut signed = false;
        for requirement in requirements {
            let files = match requirement {
                Requirement::Accept => continue,
                Requirement::Reject | Requirement::Gpg { .. } => return Ok(None),
                Requirement::Signed { by: Authenticator::Pki { .. }, .. } => return Ok(None),
                Requirement::Signed { by, logs, .. } => {
                    by.contents().into_iter().chain(logs.iter().flatten())
                }
            };
            signed = true;
            for file in files {
                text.push_str(&format!("{}\n", file.digest()?));
            }
        }
        Ok(signed.then(|| Digest::of(text.as_bytes())))
    }

    /// Which scope decides about images of this place, and what it requires, in words.
    pub fn explain(&self, location: Option<&Location>) -> (String, Vec<String>) {
        let (scope, requirements) = self.requirements(location);
        let scope = format!("{scope} of {}", self.name);
        (scope, requirements.iter().map(ToString::to_string).collect())
    }

    /// The requirements that apply, and the name of their scope.
    fn requirements(&self, location: Option<&Location>) -> (String, &[Requirement]) {
        let scoped = location.and_then(|location| {
            let transport = location.transport();
            let scopes = self.file.transports.get(transport)?;
            let own = scopes::scopes(location).into_iter().find_map(|scope| {
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
    async fn check(
        &self,
        source: &dyn Source,
        root: &Descriptor,
        task: &Task,
    ) -> Result<(), Cause> {
        let found = self.collect(source, root, task).await?;
        for signature in self.judge(source.location(), root, found).await? {
            tracing::info!(image = %root.digest, signer = %signature.signer(), "signature accepted");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
