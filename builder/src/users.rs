//! `user[:group]` by the image's own user databases.

use std::path::Path;

use layers::Root;
use task::Fault;

use crate::error::During;
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

/// The user and group that `user[:group]` names. A user alone given by number brings the group
/// of the same number, by name the group the database says.
///
/// # Errors
/// [`Error::Invalid`] for names the image does not know and ids that cannot be meant.
pub(crate) fn owner(root: &Root, text: &str) -> Result<(u32, u32)> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let (uid, own_group) = match id(user)? {
        Some(uid) => (uid, None),
        None if user.is_empty() => (0, Some(0)),
        None => {
            let fields = lookup(root, "/etc/passwd", user)?;
            let fields = fields.ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
            let number = |index: usize| fields.get(index).and_then(|text| id(text).ok().flatten());
            let uid = number(2);
            (uid.ok_or_else(|| unknown("user", user, "/etc/passwd"))?, number(3))
        }
    };
    let gid = match group {
        None => own_group.unwrap_or(uid),
        Some(group) => match id(group)? {
            Some(gid) => gid,
            None => {
                let fields = lookup(root, "/etc/group", group)?;
                let gid = fields.and_then(|fields| id(fields.get(2)?).ok().flatten());
                gid.ok_or_else(|| unknown("group", group, "/etc/group"))?
            }
        },
    };
    Ok((uid, gid))
}

fn unknown(what: &str, name: &str, file: &str) -> Error {
    Error::Invalid(format!("{what} {name:?} is not in {file} of the image"))
}

fn id(text: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    // 4294967295 means "no change" to the kernel, and would leave the owner as it is.
    match text.parse::<u32>() {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => Err(Error::Invalid(format!("{text} is not a user or group id"))),
    }
}

fn lookup(root: &Root, path: &str, name: &str) -> Result<Option<Vec<String>>> {
    let Some(text) = database(root, path)? else { return Ok(None) };
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    Ok(line.map(|line| line.split(':').map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_resolved_in_the_image() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd = "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\nbad:x:z:1::/:\nodd:x:5:4294967295::/:\n";
        std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(
            dir.path().join("etc/group"),
            "root:x:0:\nstaff:x:50:\nall:x:4294967295:\nplus:x:+5:\n",
        )
        .unwrap();
        let root = Root::open(dir.path()).unwrap();
        let cases = [
            ("0", Some((0, 0))),
            ("7", Some((7, 7))),
            ("7:8", Some((7, 8))),
            ("app", Some((1000, 1001))),
            ("app:staff", Some((1000, 50))),
            ("app:9", Some((1000, 9))),
            ("7:staff", Some((7, 50))),
            (":staff", Some((0, 50))),
            ("nobody", None),
            ("app:nobody", None),
            ("bad", None),
            ("odd", Some((5, 5))),
            ("7:all", None),
            ("7:plus", None),
            ("4294967295", None),
            ("4294967296", None),
            ("0:4294967295", None),
        ];
        for (text, expected) in cases {
            assert_eq!(owner(&root, text).ok(), expected, "{text}");
        }
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
