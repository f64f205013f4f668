//! The image's own user databases.

use std::path::Path;

use layers::Root;
use task::Fault;

use crate::error::ErrorContext;
use crate::{Error, Result};

/// No user database larger than this is read.
const LIMIT: u64 = 4 << 20;

/// The text of a user database of the image; `None` if it has none. Links are followed inside
/// the image only, and nothing but a plain file is opened.
pub(crate) fn database(root: &Root, path: &str) -> Result<Option<String>> {
    match root.read(Path::new(path), LIMIT) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == task::Kind::NotFound => Ok(None),
        Err(error) => Err(error).during(format!("reading {path} of the image")),
    }
}

/// The user and group that files given to `user[:group]` get.
///
/// # Errors
/// A name the image does not know, an id that cannot be meant.
pub(crate) fn owner(root: &Root, text: &str) -> Result<(u32, u32)> {
    let (passwd, group) = databases(root)?;
    runtime::resolve_owner(text, &passwd, &group).map_err(Error::User)
}

/// The user and group a program run as `user[:group]` has.
///
/// # Errors
/// As [`owner`].
pub(crate) fn user(root: &Root, text: &str) -> Result<(u32, u32)> {
    let (passwd, group) = databases(root)?;
    let user = runtime::resolve_user(text, &[], &passwd, &group);
    let user = user.map_err(Error::User)?;
    Ok((user.uid, user.gid))
}

fn databases(root: &Root) -> Result<(String, String)> {
    let read = |path| database(root, path).map(Option::unwrap_or_default);
    Ok((read("/etc/passwd")?, read("/etc/group")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_the_group_of_the_database_and_a_file_that_of_the_number() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "app:x:1000:1001::/:/bin/sh\n").unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(user(&root, "1000").unwrap(), (1000, 1001));
        assert_eq!(owner(&root, "1000").unwrap(), (1000, 1000));
        assert_eq!(user(&root, "app").unwrap(), owner(&root, "app").unwrap());
        assert_eq!(user(&root, "7").unwrap(), (7, 0));
    }

    #[test]
    fn a_database_that_leads_out_of_the_image_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/../../../../etc/passwd", dir.path().join("etc/passwd"))
            .unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert!(owner(&root, "daemon").is_err());
    }
}
