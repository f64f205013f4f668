//! Users and groups, read strictly: what is not exactly a number is a name, and what is a number
//! must be one that exists.

use crate::{Error, Result};

/// Numbers above this wrap around somewhere (CVE-2024-40635).
const MAX_ID: u64 = i32::MAX as u64;

/// Ids of files reach further: only the one that means "no change" to the kernel is none.
const MAX_FILE_ID: u64 = u32::MAX as u64 - 1;

/// Who runs a program, by the image's user databases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, each once, in the order found.
    pub groups: Vec<u32>,
    /// Home directory, if the databases know it.
    pub home: Option<String>,
    /// Name, if the databases know it.
    pub name: Option<String>,
}

struct Account<'a> {
    name: &'a str,
    uid: &'a str,
    gid: &'a str,
    home: &'a str,
}

fn passwd(text: &str) -> impl Iterator<Item = Account<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let (_, uid, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

/// Name, number and members of each group.
fn group(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let (_, gid) = (fields.next()?, fields.next()?);
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// A number if the text has digits only; an error if it is out of range.
fn number(text: &str) -> Result<Option<u32>, String> {
    bounded(text, MAX_ID)
}

fn bounded(text: &str, most: u64) -> Result<Option<u32>, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u64>() {
        Ok(number) if number <= most => Ok(u32::try_from(number).ok()),
        _ => Err(format!("{text} is not a number between 0 and {most}")),
    }
}

fn database_number(text: &str, of: &str) -> Result<u32, String> {
    number(text)?
        .ok_or_else(|| format!("the image gives {of} the id {text:?}, which is not a number"))
}

/// Who runs a program: `user[:group]` and further groups, by the texts of `/etc/passwd` and
/// `/etc/group`. A user alone, by name or number, has the group and the further groups that the
/// databases give; one that is not there has group 0, as in Docker.
///
/// # Errors
/// [`Error::User`] for names that are not there and ids that cannot be meant.
pub fn resolve_user(wanted: &str, extra: &[String], users: &str, groups: &str) -> Result<User> {
    let fail = |reason: String| Error::User { user: wanted.to_owned(), reason };
    let (user, explicit) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    if wanted.ends_with(':') || explicit.is_some_and(|group| group.contains(':')) {
        return Err(fail("it is not of the form user or user:group".to_owned()));
    }
    let user = if user.is_empty() { "0" } else { user };
    let mut identity = find_user(user, users).map_err(fail)?;
    match explicit {
        Some(name) => identity.gid = find_group(name, groups).map_err(fail)?,
        None => identity.groups = memberships(&identity, groups),
    }
    for name in extra {
        let gid = find_group(name, groups).map_err(fail)?;
        if !identity.groups.contains(&gid) {
            identity.groups.push(gid);
        }
    }
    // Else a setgid program would be free of the group (CVE-2022-36109).
    if !identity.groups.contains(&identity.gid) {
        identity.groups.insert(0, identity.gid);
    }
    Ok(identity)
}

/// The owner of a file: `user[:group]` of `COPY --chown` and similar. A bare number implies the
/// group of the same number, a name the group in the databases, as in BuildKit.
///
/// # Errors
/// As [`resolve_user`].
pub fn resolve_owner(wanted: &str, users: &str, groups: &str) -> Result<(u32, u32)> {
    let fail = |reason: String| Error::User { user: wanted.to_owned(), reason };
    let (user, group) = wanted.split_once(':').unwrap_or((wanted, ""));
    let (uid, own) = match bounded(user, MAX_FILE_ID).map_err(fail)? {
        Some(uid) => (uid, uid),
        None if user.is_empty() => (0, 0),
        None => find_user(user, users).map(|user| (user.uid, user.gid)).map_err(fail)?,
    };
    let gid = match bounded(group, MAX_FILE_ID).map_err(fail)? {
        Some(gid) => gid,
        None if group.is_empty() => own,
        None => find_group(group, groups).map_err(fail)?,
    };
    Ok((uid, gid))
}

fn find_user(wanted: &str, users: &str) -> Result<User, String> {
    let by_number = number(wanted)?;
    // A number is never looked up as a name (CVE-2016-3697).
    let entry = passwd(users).find(|user| match by_number {
        Some(uid) => number(user.uid) == Ok(Some(uid)),
        None => user.name == wanted,
    });
    match (entry, by_number) {
        (Some(user), _) => Ok(User {
            uid: database_number(user.uid, user.name)?,
            gid: database_number(user.gid, user.name)?,
            groups: Vec::new(),
            home: Some(user.home.to_owned()).filter(|home| !home.is_empty()),
            name: Some(user.name.to_owned()),
        }),
        (None, Some(uid)) => Ok(User { uid, ..User::default() }),
        (None, None) => Err(format!("the image has no user {wanted:?}")),
    }
}

fn find_group(wanted: &str, groups: &str) -> Result<u32, String> {
    if let Some(gid) = number(wanted)? {
        return Ok(gid);
    }
    let entry = group(groups).find(|(name, ..)| *name == wanted);
    let (name, gid, _) = entry.ok_or_else(|| format!("the image has no group {wanted:?}"))?;
    database_number(gid, name)
}

fn memberships(identity: &User, groups: &str) -> Vec<u32> {
    let Some(user) = &identity.name else { return Vec::new() };
    let mut found = Vec::new();
    for (_, gid, members) in group(groups) {
        let member = members.split(',').any(|member| member == user);
        if let (true, Ok(Some(gid))) = (member, number(gid))
            && !found.contains(&gid)
            && gid != identity.gid
        {
            found.push(gid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\n# no:x:9:9::/:\nbroken\n1000:x:0:0::/evil:/bin/sh\napp:x:1000:100:App:/home/app:/bin/sh\nbad:x:4294967295:0::/:\nneg:x:-1:0::/:\nwrap:x:4294967296:0::/:";
    const GROUPS: &str = "root:x:0:root\nusers:x:100:app\nwheel:x:10:root,app\nvideo:x:44:app\nodd:x:+7:app\n44:x:7:";

    #[test]
    fn users_are_found_or_refused() {
        let check = |wanted: &str, expected: Option<(u32, u32, &[u32])>| {
            let got = resolve_user(wanted, &[], USERS, GROUPS).ok();
            let got = got.as_ref().map(|id| (id.uid, id.gid, &id.groups[..]));
            assert_eq!(got, expected, "{wanted}");
        };
        check("", Some((0, 0, &[0, 10])));
        check("root", Some((0, 0, &[0, 10])));
        check("app", Some((1000, 100, &[100, 10, 44])));
        check("app:video", Some((1000, 44, &[44])));
        check("app:7", Some((1000, 7, &[7])));
        // The user whose name is a number is not the one with that number.
        check("1000", Some((1000, 100, &[100, 10, 44])));
        check("app:44", Some((1000, 44, &[44])));
        check("007", Some((7, 0, &[0])));
        check("2147483647", Some((2_147_483_647, 0, &[0])));
        check(":100", Some((0, 100, &[100])));
        for refused in [
            "2147483648",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "-1",
            "+1",
            "0x0",
            "007_",
            " 0",
            "0 ",
            "nobody",
            "app:",
            "app:nogroup",
            "app:1:2",
            "bad",
            "neg",
            "wrap",
            "app:4294967295",
            "app:odd",
            ":",
            "# no",
            "root\n",
        ] {
            check(refused, None);
        }
    }

    #[test]
    fn further_groups_are_added_once() {
        let extra = ["video", "10", "5"].map(str::to_owned);
        let identity = resolve_user("app", &extra, USERS, GROUPS).unwrap();
        assert_eq!(identity.groups, [100, 10, 44, 5]);
        assert_eq!(identity.home.as_deref(), Some("/home/app"));
        assert!(resolve_user("0", &["none".to_owned()], USERS, GROUPS).is_err());
    }

    #[test]
    fn owners_of_files_are_found_or_refused() {
        for (wanted, expected) in [
            ("0", Some((0, 0))),
            ("7", Some((7, 7))),
            ("1000", Some((1000, 1000))),
            ("7:8", Some((7, 8))),
            ("app", Some((1000, 100))),
            ("app:video", Some((1000, 44))),
            ("app:9", Some((1000, 9))),
            ("7:video", Some((7, 44))),
            (":video", Some((0, 44))),
            ("4294967294", Some((4_294_967_294, 4_294_967_294))),
            ("nobody", None),
            ("app:nobody", None),
            ("bad", None),
            ("7:odd", None),
            ("4294967295", None),
            ("4294967296", None),
            ("0:4294967295", None),
        ] {
            assert_eq!(resolve_owner(wanted, USERS, GROUPS).ok(), expected, "{wanted}");
        }
    }
}
