//! Mounts that only commands in working containers have: of images and other containers, caches,
//! secrets, and paths below a directory.

use std::path::{Path, PathBuf};

use runtime::{Mount, Propagation};
use store::{CacheMount, CacheSharing, Store};
use task::Task;

use super::{Invocation, SyntaxError};
use crate::error::ErrorContext;
use crate::working::MountFrom;
use crate::{Error, Result};

/// A mount for a command in a working container.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkingMount {
    /// Of an image, or of another working container.
    Loan(MountFrom),
    /// A cache of the store.
    Cache(CacheText),
    /// A file of this machine: a secret.
    File(Mount),
}

/// A cache of the store, as it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheText {
    id: String,
    target: PathBuf,
    sharing: CacheSharing,
    read_only: bool,
}

impl CacheText {
    /// Takes the cache; it is the command's as long as the [`CacheMount`] lives.
    ///
    /// # Errors
    /// The store cannot give it; [`Error::Cancelled`] while waiting for it.
    pub fn take(&self, store: &Store, task: &Task) -> Result<(Mount, CacheMount)> {
        let cache = store.cache_mount(&self.id, self.sharing, task);
        let cache = cache.during("taking a cache")?;
        Ok((bind(cache.path().to_owned(), self.target.clone(), self.read_only), cache))
    }
}

/// The mount that the fields of a text describe, if it is one of those that only working
/// containers have:
///
/// - `type=cache,target=…[,id=…][,sharing=shared|private|locked][,ro]`
/// - `type=bind,from=IMAGE|CONTAINER,target=…[,source=…][,rw]`
/// - `type=secret,id=NAME,src=FILE[,target=…]`; by default at `/run/secrets/NAME`
///
/// # Errors
/// [`Error::Syntax`]; [`Error::File`]: the file is not there.
pub fn working_mount(fields: &[String], call: &Invocation<'_>) -> Result<Option<WorkingMount>> {
    let has = |text: &str| fields.iter().any(|pair| pair == text);
    Ok(Some(if has("type=cache") {
        WorkingMount::Cache(cache(fields)?)
    } else if fields.iter().any(|pair| pair.starts_with("from=")) {
        WorkingMount::Loan(loan(fields)?)
    } else if has("type=secret") {
        WorkingMount::File(secret(fields, call)?)
    } else {
        return Ok(None);
    }))
}

/// Fields of a mount whose relative source is below a directory, which it must not lead out of.
///
/// # Errors
/// [`Error::Syntax`]: it leads out; [`Error::File`]: it is not there.
pub fn below(directory: &Path, fields: &[String]) -> Result<Vec<String>> {
    let real = |path: &Path| path.canonicalize().map_err(Error::file("finding", path));
    let one = |pair: &String| match pair.split_once('=') {
        Some((key @ ("source" | "src"), path)) if !path.starts_with('/') => {
            let root = real(directory)?;
            let path = real(&root.join(path))?;
            if path.starts_with(&root) {
                return Ok(format!("{key}={}", path.display()));
            }
            let why = format!("{} is not below {}", path.display(), root.display());
            Err(SyntaxError::new(why).into())
        }
        _ => Ok(pair.clone()),
    };
    fields.iter().map(one).collect()
}

fn loan(fields: &[String]) -> Result<MountFrom, SyntaxError> {
    let (mut source, mut from, mut target, mut writable) = ("", "", "", false);
    for pair in fields {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("type", "bind") => {}
            ("from", value) => from = value,
            ("source" | "src", value) => source = value,
            ("target" | "dst" | "destination", value) => target = value,
            ("ro" | "readonly", "" | "true") | ("rw" | "readwrite", "false") => writable = false,
            ("rw" | "readwrite", "" | "true") | ("ro" | "readonly", "false") => writable = true,
            (key, _) => {
                let why = format!("{key:?} is not supported with from=");
                return Err(SyntaxError::new(why));
            }
        }
    }
    if !target.starts_with('/') || target == "/" {
        let why = "it needs target=, an absolute path below the root";
        return Err(SyntaxError::new(why));
    }
    Ok(MountFrom { from: from.into(), source: source.into(), target: target.into(), writable })
}

fn secret(fields: &[String], call: &Invocation<'_>) -> Result<Mount> {
    let (mut source, mut id, mut target) = (None, "", None);
    for pair in fields {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("type", _) => {}
            ("id", value) => id = value,
            ("source" | "src", value) => source = Some(value),
            ("target" | "dst" | "destination", value) => target = Some(value.to_owned()),
            (key, _) => return Err(unsupported(key).into()),
        }
    }
    let source = source.ok_or_else(|| SyntaxError::new("it needs src=, the file of the secret"))?;
    let target = target.unwrap_or_else(|| format!("/run/secrets/{id}"));
    if !target.starts_with('/') || target.ends_with('/') {
        return Err(SyntaxError::new("it needs id=, or target=, an absolute path").into());
    }
    let source = call.absolute(source);
    std::fs::metadata(&source).map_err(Error::file("finding", &source))?;
    Ok(bind(source, PathBuf::from(target), true))
}

fn cache(fields: &[String]) -> Result<CacheText, SyntaxError> {
    let (mut id, mut target, mut sharing, mut read_only) =
        (None, None, CacheSharing::Shared, false);
    for pair in fields {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("type", "cache") => {}
            ("id", value) => id = Some(value),
            ("target" | "dst" | "destination", value) => target = Some(value),
            ("ro" | "readonly", "" | "true") => read_only = true,
            ("ro" | "readonly", "false") | ("rw" | "readwrite", "" | "true") => read_only = false,
            ("sharing", "shared") => sharing = CacheSharing::Shared,
            ("sharing", "private") => sharing = CacheSharing::Private,
            ("sharing", "locked") => sharing = CacheSharing::Locked,
            (key, _) => return Err(unsupported(key)),
        }
    }
    let target = target.filter(|target| target.starts_with('/'));
    let target = target.ok_or_else(|| SyntaxError::new("it needs target=, an absolute path"))?;
    let id = id.unwrap_or(target).to_owned();
    Ok(CacheText { id, target: target.into(), sharing, read_only })
}

fn unsupported(key: &str) -> SyntaxError {
    SyntaxError::new(format!("{key:?} is not supported"))
}

fn bind(source: PathBuf, target: PathBuf, read_only: bool) -> Mount {
    Mount::Bind {
        source,
        target,
        read_only,
        recursive: false,
        propagation: Propagation::Private,
        options: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<WorkingMount>> {
        let call = Invocation { directory: "/".into(), variable: &|_| None, registry: "localhost" };
        working_mount(&text.split(',').map(str::to_owned).collect::<Vec<_>>(), &call)
    }

    #[test]
    fn working_containers_have_mounts_of_their_own() {
        let loan = read("type=bind,from=app,target=/x,rw").unwrap();
        assert!(matches!(loan, Some(WorkingMount::Loan(loan)) if loan.writable));
        let cache = read("type=cache,target=/x,sharing=locked,ro").unwrap();
        let Some(WorkingMount::Cache(cache)) = cache else { panic!("{cache:?}") };
        assert_eq!(
            (cache.id.as_str(), cache.sharing, cache.read_only),
            ("/x", CacheSharing::Locked, true)
        );
        let secret = read("type=secret,id=key,src=dev/null").unwrap();
        let target = Path::new("/run/secrets/key");
        assert!(matches!(secret, Some(WorkingMount::File(mount)) if mount.target() == target));
        assert_eq!(read("type=bind,source=/tmp,target=/x").unwrap(), None);
        for text in [
            "from=app,target=/",
            "from=app,target=x",
            "type=cache,target=x",
            "type=cache,target=/x,size=1m",
            "type=secret,id=key",
            "type=secret,src=dev/null",
        ] {
            assert!(matches!(read(text), Err(Error::Syntax(_))), "{text}");
        }
        assert!(matches!(read("type=secret,id=a,src=nowhere"), Err(Error::File { .. })));
    }

    #[test]
    fn sources_below_a_directory_do_not_lead_out_of_it() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("in")).unwrap();
        let fields = |source: &str| vec!["type=bind".to_owned(), format!("source={source}")];
        assert!(below(place.path(), &fields("in")).unwrap()[1].ends_with("/in"));
        assert_eq!(below(place.path(), &fields("/tmp")).unwrap(), fields("/tmp"));
        assert!(matches!(below(place.path(), &fields("..")), Err(Error::Syntax(_))));
        assert!(matches!(below(place.path(), &fields("nowhere")), Err(Error::File { .. })));
    }
}
