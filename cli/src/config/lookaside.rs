//! Where GPG signatures of images lie: `registries.d` (containers-registries.d(5)).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{Digest, Reference};
use serde::Deserialize;

use super::Places;
use crate::report::Failure;

/// No configuration file is larger.
const LARGEST: u64 = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    default_docker: Option<Scope>,
    #[serde(default)]
    docker: Option<BTreeMap<String, Scope>>,
}

/// What is said of the images of a scope; `sigstore` is the older word.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Scope {
    #[serde(alias = "sigstore")]
    lookaside: Option<String>,
    #[serde(alias = "sigstore-staging")]
    lookaside_staging: Option<String>,
}

/// Where signatures of images are written.
#[derive(Debug, Default)]
pub(crate) struct Lookaside {
    default: Option<Scope>,
    scopes: BTreeMap<String, Scope>,
    usual: PathBuf,
}

impl Lookaside {
    /// Reads every `*.yaml` of a directory: of `flag`, or else of the user's, or else of the
    /// machine's.
    ///
    /// # Errors
    /// A file cannot be read, is malformed, or says of a scope what another one said.
    pub(crate) fn read(places: &Places, flag: Option<&Path>) -> Result<Lookaside, Failure> {
        let mut found = Lookaside { usual: places.signatures(), ..Lookaside::default() };
        let Some(directory) = places.registries_d(flag) else { return Ok(found) };
        let failed = |error| Failure::io(format!("reading {}", directory.display()), &error);
        let entries = std::fs::read_dir(&directory).map_err(failed)?;
        let mut files: Vec<PathBuf> = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        for path in files {
            found.add(&path)?;
        }
        Ok(found)
    }

    fn add(&mut self, path: &Path) -> Result<(), Failure> {
        let refuse = |why: String| Failure::usage(format!("reading {}: {why}", path.display()));
        let bytes = crate::commands::tags::read_bounded(path, LARGEST)?;
        let text = String::from_utf8(bytes).map_err(|_| refuse("it is no text".to_owned()))?;
        let file: Option<File> =
            serde_saphyr::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        let file = file.unwrap_or_default();
        if let Some(scope) = file.default_docker
            && self.default.replace(scope).is_some()
        {
            return Err(refuse("default-docker is in another file, too".to_owned()));
        }
        for (name, scope) in file.docker.unwrap_or_default() {
            if self.scopes.insert(name.clone(), scope).is_some() {
                return Err(refuse(format!("{name} is in another file, too")));
            }
        }
        Ok(())
    }

    /// The directory in which the signatures of a manifest are.
    ///
    /// # Errors
    /// They are on a server, which nobody can write to.
    pub(crate) fn directory(
        &self,
        reference: &Reference,
        manifest: Digest,
    ) -> Result<PathBuf, Failure> {
        let base = match self.scope(reference).and_then(|s| s.lookaside_staging.or(s.lookaside)) {
            None => self.usual.clone(),
            Some(url) => match url.strip_prefix("file://") {
                Some(path) if path.starts_with('/') => PathBuf::from(path),
                _ => {
                    let what =
                        format!("signatures of {reference} lie at {url}, which is no file://");
                    return Err(Failure::usage(what)
                        .hint("set lookaside-staging to a file:// URL in registries.d"));
                }
            },
        };
        let (algorithm, hex) = (manifest.algorithm().as_str(), manifest.hex());
        Ok(base.join(format!("{}@{algorithm}={hex}", reference.repository.path())))
    }

    /// The narrowest scope an image is in: name, repository, what is above it, registry,
    /// `*.domain`.
    fn scope(&self, reference: &Reference) -> Option<Scope> {
        let name = Reference { digest: None, ..reference.clone() }.to_string();
        if let Some(scope) = self.scopes.get(&name) {
            return Some(scope.clone());
        }
        let mut above = reference.repository.to_string();
        loop {
            if let Some(scope) = self.scopes.get(&above) {
                return Some(scope.clone());
            }
            match above.rsplit_once('/') {
                Some((parent, _)) => above = parent.to_owned(),
                None => break,
            }
        }
        let mut domain = reference.repository.registry();
        while let Some((_, parent)) = domain.split_once('.') {
            if let Some(scope) = self.scopes.get(&format!("*.{parent}")) {
                return Some(scope.clone());
            }
            domain = parent;
        }
        self.default.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_scope_counts() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        let text = "default-docker:\n  lookaside: file:///default\ndocker:\n  r.example:\n    lookaside: https://r.example/sigs\n    lookaside-staging: file:///host\n  r.example/team:\n    sigstore: file:///team\n  r.example/team/app:1:\n    lookaside: file:///one\n  '*.wild.example':\n    lookaside: https://wild\n";
        std::fs::write(&file, text).unwrap();
        let mut read = Lookaside::default();
        read.add(&file).unwrap();
        let digest = Digest::of(b"x");
        let place = |name: &str| {
            let reference: Reference = name.parse().unwrap();
            read.directory(&reference, digest).map(|path| path.display().to_string())
        };
        let end = format!("@sha256={}", digest.hex());
        assert_eq!(place("r.example/team/app:1").unwrap(), format!("/one/team/app{end}"));
        assert_eq!(place("r.example/team/app:2").unwrap(), format!("/team/team/app{end}"));
        assert_eq!(place("r.example/other:2").unwrap(), format!("/host/other{end}"));
        assert_eq!(place("q.example/other:2").unwrap(), format!("/default/other{end}"));
        assert!(place("a.wild.example/x").is_err());
        assert!(read.add(&file).is_err(), "said twice");
        std::fs::write(&file, "docker: [1").unwrap();
        assert!(read.add(&file).is_err());
    }
}
