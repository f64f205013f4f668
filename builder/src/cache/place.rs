//! Places of caches, in the words of buildx and buildah: `type=registry,ref=…`, `type=local,dest=…`,
//! or the name of a repository.

use image::{Digest, Encoding, Reference, Tag};
use layers::Compression;
use transport::{ImageSelector, Location};

use crate::syntax::SyntaxError;

use super::bucket;
use super::fields::{Fields, Result, Surroundings, bad};
use super::{CacheForm, CacheFrom, CachePlace, CacheTo, Mode};

/// The tag of a cache in a repository that is given without one.
const TAG: &str = "buildcache";

impl Fields<'_> {
    fn layout(&mut self, key: &str) -> Result<Location> {
        let path = self.around.directory.join(self.need(key)?).components().collect();
        let tag = self.take("tag");
        let named = match self.take("digest") {
            None => ImageSelector::Name(tag.unwrap_or_else(|| "latest".to_owned())),
            Some(digest) => {
                let digest = digest.parse::<Digest>().map_err(|error| bad(error.to_string()))?;
                ImageSelector::Digest(digest)
            }
        };
        Ok(Location::Layout(path, named))
    }
}

fn reference(text: &str) -> Result<Reference> {
    text.parse::<Reference>().map_err(|error| bad(error.to_string()))
}

/// The place of a kind that no registry and no directory serves.
fn elsewhere(kind: &str, value: &mut Fields<'_>) -> Result<CachePlace> {
    let bucket = match kind {
        "s3" => bucket::s3(value),
        "azblob" => bucket::azure(value),
        "gha" => bucket::actions(value),
        _ => Err(SyntaxError {
            reason: format!("type {kind:?} is not supported"),
            hint: Some("supported types are registry, local, inline, s3, gha and azblob"),
        }),
    };
    bucket.map(CachePlace::Bucket)
}

/// The text of a place that is given by its name alone.
fn name(fields: &[String]) -> Option<&str> {
    match fields {
        [text] if !text.contains('=') => Some(text),
        _ => None,
    }
}

/// Where a cache may be that is given as an image or repository.
fn bare(text: &str) -> Result<Vec<CachePlace>> {
    let reference = reference(text)?;
    let mut places = Vec::new();
    if reference.tag.is_none() && reference.digest.is_none() {
        places.push(Location::Registry(tagged(&reference)).into());
    }
    places.push(Location::Registry(reference.or_latest()).into());
    Ok(places)
}

fn tagged(reference: &Reference) -> Reference {
    let tag: Tag = TAG.parse().unwrap_or_else(|_| unreachable!("it is a tag"));
    reference.repository.tagged(tag)
}

impl CacheFrom {
    /// Reads the fields of a place.
    ///
    /// # Errors
    /// What is not supported, by name.
    pub fn parse(
        fields: &[String],
        around: Surroundings<'_>,
    ) -> std::result::Result<CacheFrom, SyntaxError> {
        if let Some(text) = name(fields) {
            return Ok(CacheFrom { name: text.to_owned(), places: bare(text)? });
        }
        let mut value = Fields::read(fields, around)?;
        let (name, place) = match value.need("type")?.as_str() {
            "registry" => {
                let name = value.need("ref")?;
                (name.clone(), Location::Registry(reference(&name)?.or_latest()).into())
            }
            "local" => {
                let place = value.layout("src")?;
                (place.to_string(), place.into())
            }
            kind => {
                let place = elsewhere(kind, &mut value)?;
                (place.to_string(), place)
            }
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
            place: Location::Registry(reference).into(),
            mode: Mode::Max,
            form: CacheForm::Manifest,
            compression: None,
            force: false,
            mounts: false,
            ignore_error: false,
        }
    }

    /// Reads the fields of a place. `None` is the image itself (`type=inline`).
    ///
    /// # Errors
    /// What is not supported, by name.
    pub fn parse(
        fields: &[String],
        around: Surroundings<'_>,
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
        let mut value = Fields::read(fields, around)?;
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
                Location::Registry(reference.or_latest()).into()
            }
            "local" => value.layout("dest")?.into(),
            kind => elsewhere(kind, &mut value)?,
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
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    fn with<T>(variables: &[(&str, &str)], parse: impl FnOnce(Surroundings<'_>) -> T) -> T {
        let variables: BTreeMap<_, _> =
            variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        parse(Surroundings { directory: Path::new("/here"), variables: &variables })
    }

    fn to(text: &str) -> Result<Option<CacheTo>> {
        let fields: Vec<String> = text.split(',').map(str::to_owned).collect();
        with(&[], |around| CacheTo::parse(&fields, around))
    }

    fn from(text: &str) -> Result<CacheFrom> {
        let fields: Vec<String> = text.split(',').map(str::to_owned).collect();
        with(&[], |around| CacheFrom::parse(&fields, around))
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
    fn keys_and_variables_name_a_bucket() {
        let shown = |text: &str, variables: &[(&str, &str)]| {
            let fields: Vec<String> = text.split(',').map(str::to_owned).collect();
            let to = with(variables, |around| CacheTo::parse(&fields, around));
            let from = with(variables, |around| CacheFrom::parse(&fields, around)).unwrap();
            let to = to.unwrap().unwrap();
            assert_eq!(from.places, std::slice::from_ref(&to.place), "{text}");
            assert!(!format!("{to:?} {from:?} {}", to.name).contains("hidden"), "{text}");
            to.name
        };
        let region = ("AWS_REGION", "eu-1");
        let bucket = ("AWS_BUCKET", "b");
        assert_eq!(shown("type=s3,bucket=b,region=r", &[]), "s3://b/manifests/buildkit");
        assert_eq!(
            shown("type=s3,prefix=p/,name=one;two,secret_access_key=hidden", &[region, bucket]),
            "s3://b/p/manifests/one"
        );
        let azure = "type=azblob,account_url=https://a.blob.example/,secret_access_key=hidden";
        assert_eq!(shown(azure, &[]), "https://a.blob.example/buildkit-cache/manifests/buildkit");
        let job =
            [("ACTIONS_RESULTS_URL", "https://r.example/"), ("ACTIONS_RUNTIME_TOKEN", "hidden")];
        assert_eq!(shown("type=gha", &job), "gha:buildkit");
        assert_eq!(shown("type=gha,scope=app", &job), "gha:app");
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (text, word) in [
            ("type=gha", "ACTIONS_RESULTS_URL"),
            ("type=gha,url_v2=https://gha.example,token=t,version=1", "version=1"),
            ("type=s3,region=eu-1", "bucket="),
            ("type=s3,bucket=b", "region="),
            ("type=s3,bucket=b,region=r,touch_refresh=1h", "touch_refresh"),
            ("type=azblob", "account_url="),
            ("type=ftp,bucket=b", "ftp"),
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
