use std::ffi::OsString;
use std::path::{Path, PathBuf};

use image::Reference;

use super::SyntaxError;
use crate::Result;

/// Where texts were written: what relative paths, names of variables and short names of images mean.
#[derive(Clone)]
pub struct Invocation<'a> {
    /// Relative paths begin here; an absolute path.
    pub directory: PathBuf,
    /// The value of a variable of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The registry of names without one: `localhost`.
    pub registry: &'a str,
}

impl Invocation<'_> {
    /// A path without `.` and doubled slashes, from the root.
    pub(super) fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.directory.join(path);
        std::path::absolute(&path).unwrap_or(path)
    }

    /// The name of an image that is made here; without a tag it is `latest`.
    pub(super) fn name(&self, text: &str) -> Result<Reference> {
        let reference = Reference::parse_with(text, self.registry)
            .map_err(|error| SyntaxError::new(error.to_string()))?;
        if reference.digest.is_some() {
            let why = format!("{text:?}: an image cannot be named by a digest");
            return Err(SyntaxError::new(why).into());
        }
        Ok(reference.or_latest())
    }
}

/// The fields between commas.
pub(super) fn fields(text: &str) -> Result<Vec<String>, SyntaxError> {
    let fields = dockerfile::fields(text).map_err(SyntaxError::new)?;
    Ok(fields.into_iter().map(|field| field.text).collect())
}

/// A value that is true or false.
pub(super) fn truth(key: &str, value: &str) -> Result<bool, SyntaxError> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(SyntaxError::new(format!("{key}={other} is neither true nor false"))),
    }
}
