//! registries.d (containers-registries.d(5)): where signatures lie beside registries, and reading
//! them from there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use copy::bridge::blocking;
use copy::{Gate, Location, Source};
use futures::future::BoxFuture;
use image::{Descriptor, Digest, Reference};
use serde::Deserialize;
use task::{Cause, Fault, Kind, Task};

use crate::error::{Error, Result};
use crate::gpg::MAX_GPG;
use crate::policy::Policy;
use crate::verify::{Candidate, Evidence, Verified};

/// What the files of registries.d say together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookaside {
    default: Option<Scope>,
    scopes: BTreeMap<String, Scope>,
    /// The directory of signatures where no file says.
    fallback: PathBuf,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Scope {
    #[serde(alias = "sigstore")]
    lookaside: Option<String>,
    #[serde(alias = "sigstore-staging")]
    lookaside_staging: Option<String>,
    /// Attachments are always read.
    #[serde(rename = "use-sigstore-attachments")]
    _attachments: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct LookasideFile {
    default_docker: Option<Scope>,
    #[serde(default)]
    docker: BTreeMap<String, Scope>,
}

/// A place of signatures that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("reading signatures from {place}: {reason}")]
struct Unusable {
    place: String,
    reason: String,
    kind: Kind,
}

impl Fault for Unusable {
    fn kind(&self) -> Kind {
        self.kind
    }
}

/// Reads a file of a lookaside; `None` if it does not exist.
pub type FileFuture<'a> = BoxFuture<'a, Result<Option<Vec<u8>>, Cause>>;

/// Reads lookasides that are on servers.
pub trait Servers: Send + Sync {
    /// The file at an `http://` or `https://` address, or the first bytes of it where it is longer
    /// than `limit`; `None` where there is none.
    fn read<'a>(&'a self, url: &'a str, limit: u64) -> FileFuture<'a>;
}

impl Lookaside {
    /// Signatures of one image that are read.
    pub const MOST: usize = 32;

    /// Nothing is said anywhere: signatures lie in a directory.
    pub fn new(fallback: PathBuf) -> Lookaside {
        Lookaside { fallback, ..Lookaside::default() }
    }

    /// What these files of registries.d say; signatures of other registries lie in `fallback`.
    ///
    /// # Errors
    /// A file cannot be read, or as [`Lookaside::add`].
    pub fn read(fallback: PathBuf, files: &[PathBuf]) -> Result<Lookaside> {
        const LARGEST: u64 = 4 << 20;
        let mut all = Lookaside::new(fallback);
        for path in files {
            let mut text = String::new();
            let read =
                File::open(path).and_then(|file| file.take(LARGEST).read_to_string(&mut text));
            read.map_err(|source| Error::File {
                what: "signature configuration",
                path: path.clone(),
                source,
            })?;
            all.add(path, &text)?;
        }
        Ok(all)
    }

    /// Whether there may be signatures of images of this repository: a directory that is not there
    /// has none.
    pub fn may_have(&self, name: &Reference) -> bool {
        let base = self.base(name, false);
        let Some(path) = base.strip_prefix("file://") else { return true };
        Path::new(path).parent().is_some_and(Path::is_dir)
    }

    /// The signatures of an image that are there, by their places.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn signatures(
        &self,
        servers: &dyn Servers,
        name: &Reference,
        image: &Digest,
    ) -> Result<Vec<(String, Vec<u8>)>, Cause> {
        let base = self.base(name, false);
        let mut found = Vec::new();
        for number in 1..=Lookaside::MOST {
            let place = Lookaside::place(&base, image, number);
            let Some(bytes) = read(servers, &place).await? else { break };
            found.push((place, bytes));
        }
        Ok(found)
    }

    /// Reads one more file of registries.d.
    ///
    /// # Errors
    /// [`Error::Lookaside`]: it is malformed, or speaks of something that another one speaks of.
    pub fn add(&mut self, path: &Path, text: &str) -> Result<()> {
        let refuse = |reason: String| Error::Lookaside { path: path.to_owned(), reason };
        if text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#')) {
            return Ok(());
        }
        let written: LookasideFile =
            serde_saphyr::from_str(text).map_err(|error| refuse(error.to_string()))?;
        if let Some(default) = written.default_docker
            && self.default.replace(default).is_some()
        {
            return Err(refuse("default-docker: another file has it already".to_owned()));
        }
        for (name, scope) in written.docker {
            if self.scopes.insert(name.clone(), scope).is_some() {
                return Err(refuse(format!("docker.{name}: another file has it already")));
            }
        }
        Ok(())
    }

    /// Where signatures of a name are read from or, for writing, put: a URL.
    pub fn base(&self, name: &Reference, writing: bool) -> String {
        let repository = name.repository.to_string();
        let mut scopes = vec![name.to_string(), repository.clone()];
        let mut rest = repository.as_str();
        while let Some((shorter, _)) = rest.rsplit_once('/') {
            scopes.push(shorter.to_owned());
            rest = shorter;
        }
        let mut host = rest;
        while let Some((_, parent)) = host.split_once('.') {
            scopes.push(format!("*.{parent}"));
            host = parent;
        }
        let found = scopes.iter().filter_map(|scope| self.scopes.get(scope));
        let place = |scope: &Scope| {
            let staging = scope.lookaside_staging.as_ref().filter(|_| writing);
            staging.or(scope.lookaside.as_ref()).filter(|place| !place.is_empty()).cloned()
        };
        let configured = found.chain(&self.default).find_map(place);
        let base = configured.unwrap_or_else(|| format!("file://{}", self.fallback.display()));
        format!("{}/{}", base.trim_end_matches('/'), name.repository.path())
    }

    /// The directory in which signatures of a manifest are put.
    ///
    /// # Errors
    /// They are on a server that cannot be written to.
    pub fn directory(&self, name: &Reference, image: Digest) -> Result<PathBuf> {
        let base = self.base(name, true);
        match base.strip_prefix("file://") {
            Some(path) if path.starts_with('/') => {
                let (algorithm, hex) = (image.algorithm().as_str(), image.hex());
                Ok(PathBuf::from(format!("{path}@{algorithm}={hex}")))
            }
            _ => {
                let name = name.to_string();
                Err(Error::NoDirectory { name, place: base })
            }
        }
    }

    /// The place of an image's signature, counted from 1.
    pub fn place(base: &str, image: &Digest, number: usize) -> String {
        format!("{base}@{}={}/signature-{number}", image.algorithm().as_str(), image.hex())
    }
}

/// Lets an image pass if the policy is satisfied, by the signatures beside it and in lookasides.
pub struct PolicyGate {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Where GPG signatures lie.
    pub lookaside: Lookaside,
    /// What reads those on servers.
    pub servers: Arc<dyn Servers>,
    /// What was decided before.
    pub verdicts: Arc<dyn Verdicts>,
    /// Whether images are refused whose signatures the policy does not check.
    pub strict: bool,
}

/// Where it is remembered which images passed.
pub trait Verdicts: Send + Sync {
    /// Who signed, by the name of the verdict; `None` where there is none.
    fn recall(&self, verdict: &Digest) -> Option<String>;
    /// Remembers who signed. Whatever goes wrong is forgotten as well.
    fn remember(&self, verdict: &Digest, signers: &str);
}

impl PolicyGate {
    async fn collect(&self, name: &Reference, image: &Digest) -> Result<Vec<Candidate>, Cause> {
        let found = self.lookaside.signatures(&*self.servers, name, image).await?;
        let candidate = |(origin, bytes): (String, Vec<u8>)| Candidate {
            origin,
            evidence: Evidence::Gpg(bytes.into()),
        };
        Ok(found.into_iter().map(candidate).collect())
    }
}

fn unusable(place: &str, reason: String, kind: Kind) -> Cause {
    Unusable { place: place.to_owned(), reason, kind }.into()
}

/// A signature in a file; `None` where there is none.
///
/// # Errors
/// It cannot be read.
pub fn signature_file(path: &str) -> Result<Option<Vec<u8>>, Cause> {
    let failed = |error: std::io::Error| unusable(path, error.to_string(), Kind::System);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_GPG + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

async fn read(servers: &dyn Servers, place: &str) -> Result<Option<Vec<u8>>, Cause> {
    if let Some(path) = place.strip_prefix("file://") {
        let path = path.to_owned();
        return blocking(move || signature_file(&path)).await;
    }
    if !place.starts_with("https://") && !place.starts_with("http://") {
        let reason = "it is neither file://, http:// nor https://".to_owned();
        return Err(unusable(place, reason, Kind::Invalid));
    }
    servers.read(place, MAX_GPG).await
}

/// Removes the signatures in a directory; how many there were.
///
/// # Errors
/// One cannot be removed.
pub fn remove_signatures(directory: &Path) -> Result<usize> {
    for number in 1.. {
        let path = directory.join(format!("signature-{number}"));
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Another file may be in it.
                let _ = std::fs::remove_dir(directory);
                return Ok(number - 1);
            }
            Err(source) => return Err(Error::File { what: "signatures", path, source }),
        }
    }
    Ok(0)
}

/// Puts a signature beside those that are there, unless it is one of them.
///
/// # Errors
/// It cannot be written.
pub fn add_signature(directory: &Path, signature: &[u8]) -> Result<()> {
    let failed = |source| Error::File { what: "signatures", path: directory.to_owned(), source };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let free = (1..=1000).map(|at| directory.join(format!("signature-{at}")));
    let part = directory.join(format!(".signature-{}", std::process::id()));
    std::fs::write(&part, signature).map_err(failed)?;
    for path in free {
        // A link never takes the place of another signature.
        match std::fs::hard_link(&part, &path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                if std::fs::read(&path).is_ok_and(|there| there == signature) {
                    let _ = std::fs::remove_file(&part);
                    return Ok(());
                }
            }
            linked => {
                let _ = std::fs::remove_file(&part);
                return linked.map_err(failed);
            }
        }
    }
    let _ = std::fs::remove_file(&part);
    Err(failed(std::io::Error::other("it holds a thousand signatures")))
}

impl PolicyGate {
    /// The name of the verdict about an image, and who signed it, if that is known. Files of the
    /// policy are read for that, and the store: on a thread.
    async fn recall(
        &self,
        location: Option<&Location>,
        image: Digest,
    ) -> Result<(Option<Digest>, Option<String>)> {
        let Some(location) = location.filter(|location| !self.policy.accepts(location)).cloned()
        else {
            return Ok((None, None));
        };
        let (policy, verdicts) = (Arc::clone(&self.policy), Arc::clone(&self.verdicts));
        blocking(move || {
            let verdict = policy.verdict(Some(&location), &image)?;
            let signers = verdict.and_then(|verdict| verdicts.recall(&verdict));
            Ok((verdict, signers))
        })
        .await
    }

    /// Decides about an image; gives back the sigstore signatures that satisfied the policy.
    ///
    /// # Errors
    /// Those of [`Policy::decide`]; signatures cannot be read.
    pub async fn verify(
        &self,
        source: &dyn Source,
        root: &Descriptor,
        task: &Task,
    ) -> Result<Vec<Verified>, Cause> {
        let location = source.location();
        let mut found = self.policy.collect(source, root, task).await?;
        let gpg = self.policy.wants_lookaside(location.as_ref());
        if let (true, Some(Location::Registry(name))) = (gpg, &location) {
            found.candidates.extend(self.collect(name, &root.digest).await?);
        }
        Ok(self.policy.judge(location, root, found).await?)
    }
}

#[async_trait]
impl Gate for PolicyGate {
    async fn check(
        &self,
        source: &dyn Source,
        root: &Descriptor,
        task: &Task,
    ) -> Result<(), Cause> {
        let location = source.location();
        if self.strict && !self.policy.checks(location.as_ref()) {
            let place = location.map_or_else(|| root.digest.to_string(), |at| at.to_string());
            let reason = "the policy does not check its signatures".to_owned();
            return Err(unusable(&place, reason, Kind::Refused));
        }
        let (verdict, known) = self.recall(location.as_ref(), root.digest).await?;
        if let Some(signers) = known {
            tracing::info!(image = %root.digest, signers, "signature accepted before");
            return Ok(());
        }
        let mut signers = Vec::new();
        for good in self.verify(source, root, task).await? {
            tracing::info!(image = %root.digest, signer = %good.signer(), "signature accepted");
            signers.push(good.signer().to_string());
        }
        if let Some(verdict) = verdict {
            let verdicts = Arc::clone(&self.verdicts);
            blocking(move || verdicts.remember(&verdict, &signers.join(", "))).await;
        }
        Ok(())
    }

    async fn passed(&self, place: &Location, root: &Digest) -> bool {
        if self.policy.accepts(place) {
            return !self.strict;
        }
        let known = self.recall(Some(place), *root).await;
        known.is_ok_and(|(_, signers)| signers.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<Lookaside> {
        let mut all = Lookaside::new("/var/sig".into());
        for (index, text) in texts.iter().enumerate() {
            all.add(Path::new(&format!("{index}.yaml")), text)?;
        }
        Ok(all)
    }

    #[test]
    fn the_most_specific_scope_says_where() {
        let all = read(&[
            "# nothing\n",
            "default-docker:\n  lookaside: https://all.example/\n  lookaside-staging: file:///stage\n",
            "docker:\n  r.example:\n    lookaside: https://r.example/sig\n  r.example/team:\n    sigstore: file:///team\n    use-sigstore-attachments: true\n  r.example/team/app:2:\n    lookaside: file:///two\n  '*.wide.example':\n    lookaside: file:///wide\n  only.example:\n    lookaside-staging: file:///only\n",
        ])
        .unwrap();
        for (name, reading, writing) in [
            ("r.example/app:1", "https://r.example/sig/app", "https://r.example/sig/app"),
            ("r.example/team/app:1", "file:///team/team/app", "file:///team/team/app"),
            ("r.example/team/app:2", "file:///two/team/app", "file:///two/team/app"),
            (
                "r.example/teams/app:1",
                "https://r.example/sig/teams/app",
                "https://r.example/sig/teams/app",
            ),
            ("x.y.wide.example/a:1", "file:///wide/a", "file:///wide/a"),
            ("only.example/a:1", "https://all.example/a", "file:///only/a"),
            ("debian:1", "https://all.example/library/debian", "file:///stage/library/debian"),
        ] {
            let name = name.parse().unwrap();
            assert_eq!(all.base(&name, false), reading);
            assert_eq!(all.base(&name, true), writing);
        }
        let none = read(&[]).unwrap();
        assert_eq!(none.base(&"r.example/a:1".parse().unwrap(), false), "file:///var/sig/a");
        let digest = Digest::of(b"");
        let place = Lookaside::place("file:///a/b", &digest, 3);
        assert_eq!(place, format!("file:///a/b@sha256={}/signature-3", digest.hex()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_file() {
        for (texts, expected) in [
            (&["docker: [1]"][..], "0.yaml"),
            (&["docker:\n  r.example:\n    lookside: x"], "lookside"),
            (&["docker:\n  a: {}", "docker:\n  a: {}"], "1.yaml: docker.a"),
            (&["default-docker: {}", "default-docker: {}"], "1.yaml: default-docker"),
        ] {
            let error = read(texts).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
