//! The files of one user's trust: a trusted root, where to sign, and the metadata of the mirror that
//! they come from.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use super::{Directory, Mirror, Remote, TrustedMetadata, refuse, update};
use crate::error::{Error, Result};
use crate::keyless::{MAX_TRUSTED_ROOT, TrustedRoot};
use crate::online::{Http, Services};

/// What is kept, and what a mirror calls it.
const TRUSTED_ROOT: &str = "trusted_root.json";
/// What is kept of where to sign.
const SIGNING_CONFIG: &str = "signing_config.json";
/// What a mirror calls that.
const PUBLISHED_CONFIG: &str = "signing_config.v0.2.json";

/// A directory with the trust of one user. Each file in it is whole at any time.
#[derive(Debug, Clone)]
pub struct TrustDirectory(pub PathBuf);

impl TrustDirectory {
    /// The trusted root.
    pub fn trusted_root(&self) -> PathBuf {
        self.0.join(TRUSTED_ROOT)
    }

    /// Where to sign.
    pub fn signing_config(&self) -> PathBuf {
        self.0.join(SIGNING_CONFIG)
    }

    /// The metadata of the mirror.
    pub fn metadata(&self) -> PathBuf {
        self.0.join("tuf")
    }

    /// The mirror that updates come from, and what the last update left; `None` without a mirror.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn mirror(&self) -> Result<Option<(String, TrustedMetadata)>> {
        let file = |name: &str| read(&self.metadata().join(name));
        let (Some(mirror), Some(root)) = (file("mirror")?, file("root.json")?) else {
            return Ok(None);
        };
        let kept = TrustedMetadata {
            root,
            timestamp: file("timestamp.json")?,
            snapshot: file("snapshot.json")?,
            targets: file("targets.json")?,
        };
        Ok(Some((String::from_utf8_lossy(&mirror).trim().to_owned(), kept)))
    }

    /// Keeps a trusted root, and where to sign if that is given, which no update replaces.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Keep`].
    pub fn set(&self, root: &[u8], signing_config: Option<&[u8]>) -> Result<()> {
        match std::fs::remove_dir_all(self.metadata()) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(Error::Keep { path: self.metadata(), source });
            }
            _ => {}
        }
        self.keep(TRUSTED_ROOT, Some(root))?;
        if signing_config.is_some() {
            self.keep(SIGNING_CONFIG, signing_config)?;
        }
        Ok(())
    }

    /// Brings everything to what a mirror, a URL or the path of a directory, hands out now. `now` is
    /// in seconds since 1970.
    ///
    /// # Errors
    /// Those of [`update`]; [`Error::Update`] for files that are malformed; [`Error::Keep`].
    pub async fn update(
        &self,
        mirror: &str,
        trusted: &TrustedMetadata,
        now: u64,
    ) -> Result<TrustedMetadata> {
        let from: Box<dyn Mirror> = match mirror.contains("://") {
            true => Box::new(Remote { http: Http::new()?, url: mirror.to_owned() }),
            false => Box::new(Directory(PathBuf::from(mirror))),
        };
        let wanted = [TRUSTED_ROOT, PUBLISHED_CONFIG];
        let (kept, files) = update(trusted, &*from, &wanted, now).await?;
        let root = files.get(TRUSTED_ROOT);
        let root = root.ok_or_else(|| refuse(TRUSTED_ROOT, "the mirror does not list it"))?;
        TrustedRoot::read(root).map_err(|why| refuse(TRUSTED_ROOT, why))?;
        let config = files.get(PUBLISHED_CONFIG);
        if let Some(config) = config {
            Services::read(config, now).map_err(|why| refuse(PUBLISHED_CONFIG, why))?;
        }
        self.keep(TRUSTED_ROOT, Some(root))?;
        self.keep(SIGNING_CONFIG, config.map(Vec::as_slice))?;
        // The root last: without it nothing of the rest is read.
        self.keep("tuf/mirror", Some(mirror.as_bytes()))?;
        self.keep("tuf/targets.json", kept.targets.as_deref())?;
        self.keep("tuf/snapshot.json", kept.snapshot.as_deref())?;
        self.keep("tuf/timestamp.json", kept.timestamp.as_deref())?;
        self.keep("tuf/root.json", Some(&kept.root))?;
        Ok(kept)
    }

    /// Writes a file whole, or removes it.
    fn keep(&self, name: &str, content: Option<&[u8]>) -> Result<()> {
        let path = self.0.join(name);
        let failed = |source| Error::Keep { path: path.clone(), source };
        let Some(content) = content else {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        };
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let directory = path.parent().unwrap_or(&self.0);
        std::fs::create_dir_all(directory).map_err(failed)?;
        std::fs::write(&part, content).map_err(failed)?;
        std::fs::rename(&part, &path).map_err(failed)
    }
}

/// A small file; `None` where there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = |source| Error::File { what: "the trust of", path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_TRUSTED_ROOT).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_by_hand_ends_updates() {
        let home = tempfile::tempdir().unwrap();
        let trust = TrustDirectory(home.path().join("trust"));
        assert!(trust.mirror().unwrap().is_none());
        trust.keep("tuf/mirror", Some(b"/mirror\n")).unwrap();
        trust.keep("tuf/root.json", Some(b"{}")).unwrap();
        let (mirror, kept) = trust.mirror().unwrap().unwrap();
        assert_eq!((mirror.as_str(), &kept.root[..]), ("/mirror", &b"{}"[..]));
        trust.set(b"root", Some(b"config")).unwrap();
        assert!(trust.mirror().unwrap().is_none());
        assert_eq!(std::fs::read(trust.trusted_root()).unwrap(), b"root");
        trust.set(b"other", None).unwrap();
        assert_eq!(std::fs::read(trust.signing_config()).unwrap(), b"config");
    }
}
