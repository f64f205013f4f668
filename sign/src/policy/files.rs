//! Files that a policy consists of.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::error::{Error, Result};

/// Reads a file of bounded size; one byte more than the limit makes the reader of it refuse.
///
/// # Errors
/// [`Error::File`].
pub(super) fn read_file(what: &'static str, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| Error::File { what, path: path.to_owned(), source })
}
