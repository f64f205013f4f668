//! Lock files, which pin the inputs of a build.

use std::io::Read;
use std::path::{Path, PathBuf};

use builder::{Lock, MAX_LOCK};
use task::Kind;

use crate::report::Failure;

/// `rbuild.lock` in a context that is a directory, or else here.
pub(crate) fn default_file(context: &str) -> PathBuf {
    let directory = Path::new(context);
    match directory.is_dir() {
        true => directory.join("rbuild.lock"),
        false => PathBuf::from("rbuild.lock"),
    }
}

/// Reads a lock file.
///
/// # Errors
/// It does not exist; it is not a lock file.
pub(crate) fn read(path: &Path) -> Result<Lock, Failure> {
    let doing = || format!("reading the lock file {}", path.display());
    let file = std::fs::File::open(path)
        .map_err(|error| Failure::io(doing(), &error).hint("`rbuild lock` makes it"))?;
    let mut text = String::new();
    let read = file.take(MAX_LOCK + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::io(doing(), &error))?;
    if text.len() as u64 > MAX_LOCK {
        return Err(Failure::new(Kind::Invalid, format!("{}: it is larger than 4 MiB", doing())));
    }
    Ok(Lock::parse(&text, &path.display().to_string())?)
}
