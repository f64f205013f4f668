//! Annotations, and numbers that concern the image as a whole.

use image::Encoding;
use layers::Compression;

use super::SyntaxError;
use crate::{Annotation, Level};

/// `[LEVEL[PLATFORM][,LEVEL…]:]KEY=VALUE`, as docker buildx reads it: an annotation for each level.
///
/// # Errors
/// It has no key; a platform is malformed, or of an index.
pub fn annotations(text: &str) -> Result<Vec<Annotation>, SyntaxError> {
    let (whole, value) = text.split_once('=').unwrap_or((text, ""));
    let is_level = |levels: &str| {
        levels.split(',').all(|level| {
            let name = level.split('[').next().unwrap_or_default();
            ["manifest", "index", "manifest-descriptor", "index-descriptor"].contains(&name)
        })
    };
    let (levels, key) = match whole.split_once(':') {
        Some((levels, key)) if is_level(levels) => (levels, key),
        _ => ("manifest", whole),
    };
    if key.is_empty() {
        return Err(SyntaxError::new("it has no key"));
    }
    levels.split(',').map(|level| annotation(level, key, value)).collect()
}

fn annotation(level: &str, key: &str, value: &str) -> Result<Annotation, SyntaxError> {
    let (name, platform) = match level.split_once('[') {
        Some((name, rest)) => {
            let platform = rest.strip_suffix(']').ok_or_else(|| {
                SyntaxError::new(format!("the platform of {level:?} has no closing bracket"))
            })?;
            let platform = platform.parse();
            let platform =
                platform.map_err(|error: image::Error| SyntaxError::new(error.to_string()))?;
            (name, Some(platform))
        }
        None => (level, None),
    };
    let level = match name {
        "manifest" => Level::Manifest,
        "manifest-descriptor" => Level::ManifestDescriptor,
        _ if platform.is_some() => return Err(SyntaxError::new("an index is for no one platform")),
        "index" => Level::Index,
        _ => Level::IndexDescriptor,
    };
    Ok(Annotation { level, platform, key: key.to_owned(), value: Some(value.to_owned()) })
}

/// A compression with a level that its encoder has.
///
/// # Errors
/// The encoder has no such level.
pub fn compression(encoding: Encoding, level: Option<i32>) -> Result<Compression, SyntaxError> {
    let range = match encoding {
        Encoding::Gzip => 0..=9,
        Encoding::Zstd => 1..=22,
        Encoding::Plain if level.is_some() => {
            return Err(SyntaxError::new("there is nothing to compress"));
        }
        Encoding::Plain => return Ok(Compression { encoding, level }),
    };
    match level.filter(|level| !range.contains(level)) {
        Some(level) => {
            let (low, high) = (range.start(), range.end());
            Err(SyntaxError::new(format!("{level}: the levels are {low} to {high}")))
        }
        None => Ok(Compression { encoding, level }),
    }
}

/// The value of `SOURCE_DATE_EPOCH`: seconds since 1970.
///
/// # Errors
/// It is not a number.
pub fn epoch(text: &str) -> Result<i64, SyntaxError> {
    let wrong = |_| SyntaxError::new(format!("is {text:?}, not a number of seconds"));
    text.parse().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_name_levels_and_platforms() {
        let levels = |text: &str| -> Vec<(Level, Option<String>, String)> {
            let all = annotations(text).unwrap().into_iter();
            all.map(|one| (one.level, one.platform.map(|p| p.to_string()), one.key)).collect()
        };
        let key = || "a.b".to_owned();
        assert_eq!(levels("a.b=c"), [(Level::Manifest, None, key())]);
        assert_eq!(levels("x:a=c"), [(Level::Manifest, None, "x:a".to_owned())]);
        assert_eq!(
            levels("index,manifest:a.b=c"),
            [(Level::Index, None, key()), (Level::Manifest, None, key())]
        );
        assert_eq!(
            levels("manifest-descriptor[linux/arm64]:a.b=c"),
            [(Level::ManifestDescriptor, Some("linux/arm64".to_owned()), key())]
        );
        assert_eq!(levels("index-descriptor:a.b=c"), [(Level::IndexDescriptor, None, key())]);
        let index = ["index-descriptor[linux/arm64]:a=b", "index[linux/arm64]:a=b"];
        for text in index.into_iter().chain(["manifest[x:a=b", "=b"]) {
            assert!(annotations(text).is_err(), "{text}");
        }
    }

    #[test]
    fn levels_are_the_encoders() {
        assert!(compression(Encoding::Zstd, Some(22)).is_ok());
        assert!(compression(Encoding::Gzip, Some(10)).is_err());
        assert!(compression(Encoding::Plain, Some(1)).is_err());
        assert!(compression(Encoding::Plain, None).is_ok());
        assert_eq!(epoch("7"), Ok(7));
        assert!(epoch("context").is_err());
    }
}
