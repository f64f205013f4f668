//! `--cache-from` and `--cache-to`, as buildx and buildah write them.

use std::path::Path;

use builder::{CacheForm, CacheFrom, CacheTo, Mode};
use image::{Digest, Encoding, Reference, Tag};
use layers::Compression;
use transport::{Location, Named};

use crate::config;
use crate::flags;
use crate::report::Failure;

/// The tag of a cache in a repository that is given without one.
const TAG: &str = "buildcache";

/// One value of a flag, taken apart.
struct Value<'a> {
    flag: &'a str,
    text: &'a str,
    pairs: Vec<(String, String)>,
}

/// A cache to be written.
pub(super) enum To {
    /// In the image itself.
    Inline,
    /// At a place.
    Place(CacheTo),
}

impl<'a> Value<'a> {
    fn read(flag: &'a str, text: &'a str) -> Result<Value<'a>, Failure> {
        let value = Value { flag, text, pairs: Vec::new() };
        let mut pairs = Vec::new();
        for pair in flags::fields(text).map_err(|why| value.refuse(why))? {
            match pair.split_once('=') {
                Some((key, _)) if pairs.iter().any(|(known, _)| known == key.trim()) => {
                    return Err(value.refuse(format!("{key:?} is given twice")));
                }
                Some((key, value)) => pairs.push((key.trim().to_owned(), value.trim().to_owned())),
                None => return Err(value.refuse(format!("{pair:?} is not KEY=VALUE"))),
            }
        }
        Ok(Value { pairs, ..value })
    }

    fn refuse(&self, why: impl std::fmt::Display) -> Failure {
        Failure::usage(format!("{} {:?}: {why}", self.flag, self.text))
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(known, _)| known == key)?;
        Some(self.pairs.remove(at).1)
    }

    fn need(&mut self, key: &str) -> Result<String, Failure> {
        let found = self.take(key).filter(|value| !value.is_empty());
        found.ok_or_else(|| self.refuse(format!("it has no {key}=")))
    }

    fn flag(&mut self, key: &str, default: bool) -> Result<bool, Failure> {
        match self.take(key).as_deref() {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(self.refuse(format!("{key}={other}: expected true or false"))),
        }
    }

    fn reference(&self, text: &str) -> Result<Reference, Failure> {
        text.parse::<Reference>().map_err(|error| self.refuse(error))
    }

    /// Nothing may be left.
    fn end(self) -> Result<(), Failure> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => Err(self.refuse(format!("the key {key:?} is not supported"))),
        }
    }

    fn layout(&mut self, key: &str) -> Result<Location, Failure> {
        let path = config::absolute(Path::new(&self.need(key)?))?;
        let tag = self.take("tag");
        let named = match self.take("digest") {
            None => Named::Name(tag.unwrap_or_else(|| "latest".to_owned())),
            Some(digest) => {
                let digest = digest.parse::<Digest>().map_err(|error| self.refuse(error))?;
                Named::Digest(digest)
            }
        };
        Ok(Location::Layout(path, named))
    }

    fn unknown(&self, kind: &str) -> Failure {
        let supported = "supported types are registry, local and inline";
        match kind {
            "gha" | "s3" | "azblob" => self
                .refuse(format!("type {kind:?} is not supported: it needs an external service"))
                .hint("use type=local and let the CI keep the directory, or type=registry"),
            _ => self.refuse(format!("type {kind:?} is not supported")).hint(supported),
        }
    }
}

/// Where a cache may be that is given as an image or repository.
fn bare(value: &Value<'_>) -> Result<Vec<Location>, Failure> {
    let reference = value.reference(value.text)?;
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

/// Reads one `--cache-from`.
pub(super) fn from(text: &str) -> Result<CacheFrom, Failure> {
    let flag = "--cache-from";
    if !text.contains('=') {
        let value = Value { flag, text, pairs: Vec::new() };
        return Ok(CacheFrom { name: text.to_owned(), places: bare(&value)? });
    }
    let mut value = Value::read(flag, text)?;
    let (name, place) = match value.need("type")?.as_str() {
        "registry" => {
            let name = value.need("ref")?;
            (name.clone(), Location::Registry(value.reference(&name)?.or_latest()))
        }
        "local" => {
            let place = value.layout("src")?;
            (place.to_string(), place)
        }
        kind => return Err(value.unknown(kind)),
    };
    value.end()?;
    Ok(CacheFrom { name, places: vec![place] })
}

/// Reads one `--cache-to`.
pub(super) fn to(text: &str) -> Result<To, Failure> {
    let flag = "--cache-to";
    if !text.contains('=') {
        let value = Value { flag, text, pairs: Vec::new() };
        let reference = value.reference(text)?;
        if reference.digest.is_some() {
            return Err(value.refuse("a cache cannot be named by a digest"));
        }
        let reference = match reference.tag {
            Some(_) => reference,
            None => tagged(&reference),
        };
        let (name, place) = (reference.to_string(), Location::Registry(reference));
        let (mode, form, compression) = (Mode::Max, CacheForm::Manifest, None);
        let (force, mounts, ignore_error) = (false, false, false);
        return Ok(To::Place(CacheTo {
            name,
            place,
            mode,
            form,
            compression,
            force,
            mounts,
            ignore_error,
        }));
    }
    let mut value = Value::read(flag, text)?;
    let place = match value.need("type")?.as_str() {
        "inline" => {
            value.end()?;
            return Ok(To::Inline);
        }
        "registry" => {
            let reference = value.need("ref")?;
            let reference = value.reference(&reference)?;
            if reference.digest.is_some() {
                return Err(value.refuse("a cache cannot be named by a digest"));
            }
            Location::Registry(reference.or_latest())
        }
        "local" => value.layout("dest")?,
        kind => return Err(value.unknown(kind)),
    };
    let mode = match value.take("mode").as_deref() {
        None | Some("max") => Mode::Max,
        Some("min") => Mode::Min,
        Some(other) => return Err(value.refuse(format!("mode={other}: expected min or max"))),
    };
    let oci = value.flag("oci-mediatypes", true)?;
    let form = match (value.flag("image-manifest", oci)?, oci) {
        (true, true) => CacheForm::Manifest,
        (false, true) => CacheForm::Index,
        (false, false) => CacheForm::DockerList,
        (true, false) => {
            let why = "an image manifest needs OCI media types: leave one of the two keys out";
            return Err(value.refuse(why));
        }
    };
    let compression = compression(&mut value)?;
    let force = value.flag("force-compression", false)?;
    if force && compression.is_none() {
        return Err(value.refuse("force-compression=true needs compression="));
    }
    let mounts = value.flag("mounts", false)?;
    let ignore_error = value.flag("ignore-error", false)?;
    value.end()?;
    let name = place.to_string();
    Ok(To::Place(CacheTo { name, place, mode, form, compression, force, mounts, ignore_error }))
}

fn compression(value: &mut Value<'_>) -> Result<Option<Compression>, Failure> {
    let level =
        match value.take("compression-level") {
            None => None,
            Some(text) => Some(text.parse::<i32>().map_err(|_| {
                value.refuse(format!("compression-level={text}: expected a number"))
            })?),
        };
    let encoding = match value.take("compression").as_deref() {
        None if level.is_some() => {
            return Err(value.refuse("compression-level= needs compression="));
        }
        None => return Ok(None),
        Some("gzip") => Encoding::Gzip,
        Some("zstd") => Encoding::Zstd,
        Some("uncompressed" | "none") => Encoding::Plain,
        Some(other) => {
            return Err(value
                .refuse(format!("compression={other} is not supported"))
                .hint("use gzip, zstd or uncompressed"));
        }
    };
    Ok(Some(Compression { encoding, level }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> CacheTo {
        match to(text) {
            Ok(To::Place(place)) => place,
            Ok(To::Inline) => panic!("{text} is inline"),
            Err(failure) => panic!("{text}: {failure:?}"),
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
        assert!(matches!(to("type=inline"), Ok(To::Inline)));
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
            let failure = to(text).err().unwrap_or_else(|| panic!("{text} was taken"));
            assert!(failure.messages[0].contains(word), "{text}: {failure:?}");
            assert_eq!(failure.exit_code(), 2);
        }
    }
}
