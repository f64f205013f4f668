//! Places of caches, in the words of buildx and buildah: `type=registry,ref=…`, `type=local,dest=…`,
//! or the name of a repository.

use std::path::Path;

use image::{Digest, Encoding, Reference, Tag};
use layers::Compression;
use transport::{Location, Named};

use crate::syntax::SyntaxError;

use super::{CacheForm, CacheFrom, CacheTo, Mode};

/// The tag of a cache in a repository that is given without one.
const TAG: &str = "buildcache";

type Result<T> = std::result::Result<T, SyntaxError>;

fn bad(reason: impl Into<String>) -> SyntaxError {
    SyntaxError::new(reason)
}

/// The fields `KEY=VALUE` of a place, which are taken out one by one.
struct Fields<'a> {
    pairs: Vec<(String, String)>,
    directory: &'a Path,
}

impl<'a> Fields<'a> {
    fn read(fields: &[String], directory: &'a Path) -> Result<Fields<'a>> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in fields {
            match pair.split_once('=') {
                Some((key, _)) if pairs.iter().any(|(known, _)| known == key.trim()) => {
                    return Err(bad(format!("{key:?} is given twice")));
                }
                Some((key, value)) => pairs.push((key.trim().to_owned(), value.trim().to_owned())),
                None => return Err(bad(format!("{pair:?} is not KEY=VALUE"))),
            }
        }
        Ok(Fields { pairs, directory })
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(known, _)| known == key)?;
        Some(self.pairs.remove(at).1)
    }

    fn need(&mut self, key: &str) -> Result<String> {
        let found = self.take(key).filter(|value| !value.is_empty());
        found.ok_or_else(|| bad(format!("it has no {key}=")))
    }

    fn flag(&mut self, key: &str, default: bool) -> Result<bool> {
        match self.take(key).as_deref() {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(bad(format!("{key}={other}: expected true or false"))),
        }
    }

    /// Nothing may be left.
    fn end(self) -> Result<()> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => Err(bad(format!("the key {key:?} is not supported"))),
        }
    }

    fn layout(&mut self, key: &str) -> Result<Location> {
        let path = self.directory.join(self.need(key)?).components().collect();
        let tag = self.take("tag");
        let named = match self.take("digest") {
            None => Named::Name(tag.unwrap_or_else(|| "latest".to_owned())),
            Some(digest) => {
                let digest = digest.parse::<Digest>().map_err(|error| bad(error.to_string()))?;
                Named::Digest(digest)
            }
        };
        Ok(Location::Layout(path, named))
    }
}

fn reference(text: &str) -> Result<Reference> {
    text.parse::<Reference>().map_err(|error| bad(error.to_string()))
}

fn unknown(kind: &str) -> SyntaxError {
    match kind {
        "gha" | "s3" | "azblob" => SyntaxError {
            reason: format!("type {kind:?} is not supported: it needs an external service"),
            hint: Some("use type=local and let the CI keep the directory, or type=registry"),
        },
        _ => SyntaxError {
            reason: format!("type {kind:?} is not supported"),
            hint: Some("supported types are registry, local and inline"),
        },
    }
}

/// The text of a place that is given by its name alone.
fn name(fields: &[String]) -> Option<&str> {
    match fields {
        [text] if !text.contains('=') => Some(text),
        _ => None,
    }
}

/// Where a cache may be that is given as an image or repository.
fn bare(text: &str) -> Result<Vec<Location>> {
    let reference = reference(text)?;
    let mut places = Vec::new();
    if reference.tag.is_none() && reference.digest.is_none() {
        places.push(Location::Registry(tagged(&reference)));
    }
    places.push(Location::Registry(reference.or_latest()));
    Ok(places)
}

fn tagged(reference: &Reference) -> Reference {
    let tag: Tag = TAG.parse().unwrap_or_else(|_| unreachable!("it is a tag"));
    reference.repository.tagged(tag)
}

impl CacheFrom {
    /// Reads the fields of a place; paths are relative to `directory`.
    ///
    /// # Errors
    /// What is not supported, by name.
    pub fn parse(
        fields: &[String],
        directory: &Path,
    ) -> std::result::Result<CacheFrom, SyntaxError> {
        if let Some(text) = name(fields) {
            return Ok(CacheFrom { name: text.to_owned(), places: bare(text)? });
        }
        let mut value = Fields::read(fields, directory)?;
        let (name, place) = match value.need("type")?.as_str() {
            "registry" => {
                let name = value.need("ref")?;
                (name.clone(), Location::Registry(reference(&name)?.or_latest()))
            }
            "local" => {
                let place = value.layout("src")?;
                (place.to_string(), place)
            }
            kind => return Err(unknown(kind)),
        };
        value.end()?;
        Ok(CacheFrom { name, places: vec![place] })
    }
}

impl CacheTo {
    /// All steps, in a manifest of this name.
    fn named(reference: Reference) -> CacheTo {
        CacheTo {
            name: reference.to_string(),
            place: Location::Registry(reference),
            mode: Mode::Max,
            form: CacheForm::Manifest,
            compression: None,
            force: false,
            mounts: false,
            ignore_error: false,
        }
    }

    /// Reads the fields of a place; paths are relative to `directory`. `None` is the image itself
    /// (`type=inline`).
    ///
    /// # Errors
    /// What is not supported, by name.
    pub fn parse(
        fields: &[String],
        directory: &Path,
    ) -> std::result::Result<Option<CacheTo>, SyntaxError> {
        if let Some(text) = name(fields) {
            let reference = reference(text)?;
            if reference.digest.is_some() {
                return Err(bad("a cache cannot be named by a digest"));
            }
            let reference = match reference.tag {
                Some(_) => reference,
                None => tagged(&reference),
            };
            return Ok(Some(CacheTo::named(reference)));
        }
        let mut value = Fields::read(fields, directory)?;
        let place = match value.need("type")?.as_str() {
            "inline" => {
                value.end()?;
                return Ok(None);
            }
            "registry" => {
                let reference = reference(&value.need("ref")?)?;
                if reference.digest.is_some() {
                    return Err(bad("a cache cannot be named by a digest"));
                }
                Location::Registry(reference.or_latest())
            }
            "local" => value.layout("dest")?,
            kind => return Err(unknown(kind)),
        };
        let mode = match value.take("mode").as_deref() {
            None | Some("max") => Mode::Max,
            Some("min") => Mode::Min,
            Some(other) => return Err(bad(format!("mode={other}: expected min or max"))),
        };
        let oci = value.flag("oci-mediatypes", true)?;
        let form = match (value.flag("image-manifest", oci)?, oci) {
            (true, true) => CacheForm::Manifest,
            (false, true) => CacheForm::Index,
            (false, false) => CacheForm::DockerList,
            (true, false) => {
                let why = "an image manifest needs OCI media types: leave one of the two keys out";
                return Err(bad(why));
            }
        };
        let compression = compression(&mut value)?;
        let force = value.flag("force-compression", false)?;
        if force && compression.is_none() {
            return Err(bad("force-compression=true needs compression="));
        }
        let mounts = value.flag("mounts", false)?;
        let ignore_error = value.flag("ignore-error", false)?;
        value.end()?;
        let name = place.to_string();
        Ok(Some(CacheTo { name, place, mode, form, compression, force, mounts, ignore_error }))
    }
}

fn compression(value: &mut Fields<'_>) -> Result<Option<Compression>> {
    let level = match value.take("compression-level") {
        None => None,
        Some(text) => Some(
            text.parse::<i32>()
                .map_err(|_| bad(format!("compression-level={text}: expected a number")))?,
        ),
    };
    let encoding = match value.take("compression").as_deref() {
        None if level.is_some() => {
            return Err(bad("compression-level= needs compression="));
        }
        None => return Ok(None),
        Some("gzip") => Encoding::Gzip,
        Some("zstd") => Encoding::Zstd,
        Some("uncompressed" | "none") => Encoding::Plain,
        Some(other) => {
            return Err(SyntaxError {
                reason: format!("compression={other} is not supported"),
                hint: Some("use gzip, zstd or uncompressed"),
            });
        }
    };
    Ok(Some(Compression { encoding, level }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> Result<Option<CacheTo>> {
        let fields: Vec<String> = text.split(',').map(str::to_owned).collect();
        CacheTo::parse(&fields, Path::new("/here"))
    }

    fn from(text: &str) -> Result<CacheFrom> {
        let fields: Vec<String> = text.split(',').map(str::to_owned).collect();
        CacheFrom::parse(&fields, Path::new("/here"))
    }

    fn place(text: &str) -> CacheTo {
        match to(text) {
            Ok(Some(place)) => place,
            Ok(None) => panic!("{text} is inline"),
            Err(error) => panic!("{text}: {error}"),
        }
    }

    #[test]
    fn both_spellings_are_read() {
        let names = |text: &str| -> Vec<String> {
            from(text).unwrap().places.iter().map(ToString::to_string).collect()
        };
        let repository = "docker://registry.example/team/cache";
        assert_eq!(
            names("registry.example/team/cache"),
            [format!("{repository}:buildcache"), format!("{repository}:latest")]
        );
        assert_eq!(names("registry.example/team/cache:v1"), [format!("{repository}:v1")]);
        assert_eq!(
            names("type=registry,ref=registry.example/team/cache"),
            [format!("{repository}:latest")]
        );
        assert_eq!(names("type=local,src=/srv/cache"), ["oci:/srv/cache:latest"]);
        let bare = place("registry.example/team/cache");
        assert_eq!(bare.place.to_string(), format!("{repository}:buildcache"));
        assert_eq!(
            (bare.mode, bare.mounts),
            (Mode::Max, false),
            "mounts go along only where asked"
        );
        assert!(place("type=local,dest=/d,mounts=true").mounts);
        let full = place(
            "type=registry,ref=registry.example/c:1,mode=min,compression=zstd,compression-level=5,\
             force-compression=true,ignore-error=true,image-manifest=true,oci-mediatypes=true",
        );
        let zstd = Compression { encoding: Encoding::Zstd, level: Some(5) };
        assert_eq!((full.mode, full.compression), (Mode::Min, Some(zstd)));
        assert!(full.force && full.ignore_error && !full.mounts);
        assert!(matches!(to("type=inline"), Ok(None)));
        assert_eq!(place("type=local,dest=d").place.to_string(), "oci:/here/d:latest");
        for (keys, form) in [
            ("", CacheForm::Manifest),
            (",oci-mediatypes=true", CacheForm::Manifest),
            (",image-manifest=false", CacheForm::Index),
            (",oci-mediatypes=false", CacheForm::DockerList),
            (",image-manifest=false,oci-mediatypes=false", CacheForm::DockerList),
        ] {
            assert_eq!(place(&format!("type=local,dest=/d{keys}")).form, form, "{keys}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (text, word) in [
            ("type=gha", "gha"),
            ("type=s3,bucket=b", "s3"),
            ("type=registry", "ref="),
            ("type=registry,ref=UPPER", "UPPER"),
            ("type=registry,ref=a/b,wild=1", "wild"),
            ("type=registry,ref=a/b,ref=c/d", "twice"),
            ("type=local,dest=/d,mode=best", "best"),
            ("type=local,dest=/d,image-manifest=true,oci-mediatypes=false", "OCI media types"),
            ("type=local,dest=/d,compression=estargz", "estargz"),
            ("type=local,dest=/d,compression-level=3", "compression="),
            ("type=local,dest=/d,ignore-error=perhaps", "perhaps"),
            ("type=inline,ref=a/b", "ref"),
            ("ref=a/b", "type="),
            ("type=registry,a/b", "a/b"),
        ] {
            let error = to(text).err().unwrap_or_else(|| panic!("{text} was taken"));
            assert!(error.reason.contains(word), "{text}: {error}");
        }
    }
}
