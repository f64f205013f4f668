//! The ids of a container, as `--userns` and the maps have them.

use std::path::Path;

use runtime::{IdMaps, IdRange, Ids};

use super::SyntaxError;

/// How many ids a container gets that does not say.
const USUAL: u32 = 65_536;

/// Which user namespace a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserNamespace {
    /// That of this program.
    Host,
    /// One of its own, whose ids are named.
    Private,
    /// One of its own with so many ids that no other container has.
    Auto(u32),
    /// One of its own with so many ids, from 0 on, that are the same on the machine.
    KeepId(u32),
}

impl UserNamespace {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            UserNamespace::Host => "host",
            UserNamespace::Private => "private",
            UserNamespace::Auto(_) => "auto",
            UserNamespace::KeepId(_) => "keep-id",
        }
    }
}

/// All ids there are: the last number is none.
const ALL: u32 = u32::MAX;

/// Why an ordinary user has no ids that differ from those of its images.
const OWNERS: &str = "the files of an image would need other owners, and the kernel gives those to \
                      mounts of root only; without the flag root of the container is you, and what it \
                      writes is yours";

/// `host`, `private`, `auto[:size=NUMBER]` or `keep-id[:size=NUMBER]`.
///
/// # Errors
/// It is another one.
pub fn user_namespace(text: &str) -> Result<UserNamespace, SyntaxError> {
    let (kind, options) = text.split_once(':').unwrap_or((text, ""));
    let refuse = |why: &str| Err(SyntaxError::new(format!("{text:?} is not supported: {why}")));
    match (kind, options) {
        ("" | "host", "") => Ok(UserNamespace::Host),
        ("private", "") => Ok(UserNamespace::Private),
        ("auto", "") => Ok(UserNamespace::Auto(USUAL)),
        ("auto", options) => match options.strip_prefix("size=").map(str::parse) {
            Some(Ok(size)) if size > 0 => Ok(UserNamespace::Auto(size)),
            _ => refuse("the option of auto is size=NUMBER; maps name the ids"),
        },
        ("keep-id" | "nomap", _) if runtime::in_user_namespace() => refuse(OWNERS),
        ("keep-id", "") => Ok(UserNamespace::KeepId(ALL)),
        ("keep-id", options) => match options.strip_prefix("size=").map(str::parse) {
            Some(Ok(size)) if size > 0 => Ok(UserNamespace::KeepId(size)),
            _ => refuse(
                "you are root, whose id stays 0; the option is size=NUMBER, and maps name other ids",
            ),
        },
        ("nomap", _) => refuse(
            "it hides the id of an ordinary user, and you are root; auto has no id \
             of this machine's users",
        ),
        ("ns" | "container", _) => refuse("the ids of files come from maps of ids, or from auto"),
        _ => {
            let reason =
                format!("{text:?} is not host, private, auto, auto:size=NUMBER or keep-id");
            Err(SyntaxError::new(reason))
        }
    }
}

/// `ID:HOST[:COUNT]`: the first id in the container, the first of this machine, how many.
///
/// # Errors
/// They are no numbers; there is none.
pub fn id_range(text: &str) -> Result<IdRange, SyntaxError> {
    let numbers: Option<Vec<u32>> = text.split(':').map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[inside, outside, count]) if count > 0 => Ok(IdRange { inside, outside, count }),
        Some(&[inside, outside]) => Ok(IdRange { inside, outside, count: 1 }),
        _ => Err(SyntaxError::new(format!("{text:?} is not ID:HOST:COUNT with numbers"))),
    }
}

/// The ids of a container: those of `maps`, and those that a user and a group of these `names` have in
/// `/etc/subuid` and `/etc/subgid`. Where only users or only groups are named, both are the same.
///
/// # Errors
/// The texts contradict each other; there are no such ids; this program is not root.
pub fn ids(
    namespace: Option<UserNamespace>,
    maps: IdMaps,
    names: [Option<&str>; 2],
) -> Result<Option<Ids>, SyntaxError> {
    let maps = all(maps, names)?;
    let ids = match (namespace, maps == IdMaps::default()) {
        (None | Some(UserNamespace::Host), true) => return Ok(None),
        (Some(UserNamespace::Auto(count)), true) => Ids::Auto(count),
        (Some(UserNamespace::KeepId(count)), true) => {
            let same = vec![IdRange { inside: 0, outside: 0, count }];
            Ids::Maps(IdMaps { uids: same.clone(), gids: same })
        }
        (None | Some(UserNamespace::Private), false) => Ids::Maps(maps),
        (Some(UserNamespace::Private), true) => {
            return Err(SyntaxError::new("a private user namespace has no ids without maps")
                .hinting("map users and groups, or let auto choose them"));
        }
        (Some(other), false) => {
            let what =
                format!("the user namespace {} cannot be combined with maps of ids", other.name());
            return Err(SyntaxError::new(what).hinting("name none, or private"));
        }
    };
    if runtime::in_user_namespace() {
        return Err(SyntaxError::new("a container with ids of its own needs root").hinting(
            "the kernel gives other owners to files of root only; without the flags the container \
             has your subordinate ids",
        ));
    }
    Ok(Some(ids))
}

fn all(maps: IdMaps, [user, group]: [Option<&str>; 2]) -> Result<IdMaps, SyntaxError> {
    let named = |name: Option<&str>, file: &str| {
        let Some(name) = name else { return Ok(Vec::new()) };
        let found = runtime::subordinate_ids(Path::new(file), name);
        if found.is_empty() {
            return Err(SyntaxError::new(format!("{file} has no ids of {name:?}"))
                .hinting("add a line such as NAME:100000:65536"));
        }
        Ok(found)
    };
    let IdMaps { mut uids, mut gids } = maps;
    if gids.is_empty() {
        gids = named(group.or(user), "/etc/subgid")?;
    }
    uids.extend(named(user, "/etc/subuid")?);
    if gids.is_empty() {
        gids.clone_from(&uids);
    }
    if uids.is_empty() {
        uids.clone_from(&gids);
    }
    Ok(IdMaps { uids, gids })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_read_or_refused_with_a_reason() {
        for (text, expected) in [
            ("", Some(UserNamespace::Host)),
            ("host", Some(UserNamespace::Host)),
            ("private", Some(UserNamespace::Private)),
            ("auto", Some(UserNamespace::Auto(65_536))),
            ("auto:size=10", Some(UserNamespace::Auto(10))),
            ("auto:size=0", None),
            ("auto:uidmapping=0:1:1", None),
            ("keep-id:uid=1", None),
            ("keep-id:size=0", None),
            ("nomap", None),
            ("ns:/proc/1/ns/user", None),
            ("other", None),
        ] {
            assert_eq!(user_namespace(text).ok(), expected, "{text}");
        }
        if !runtime::in_user_namespace() {
            assert_eq!(user_namespace("keep-id"), Ok(UserNamespace::KeepId(ALL)));
            assert_eq!(user_namespace("keep-id:size=9"), Ok(UserNamespace::KeepId(9)));
        }
    }

    #[test]
    fn one_map_stands_for_both() {
        let list = |texts: &[&str]| texts.iter().map(|text| id_range(text).unwrap()).collect();
        let maps = |uids: &[&str], gids: &[&str]| IdMaps { uids: list(uids), gids: list(gids) };
        let both = all(maps(&["0:100000:10", "10:5"], &[]), [None; 2]).unwrap();
        assert_eq!((&both.uids, both.uids[1].count), (&both.gids, 1));
        let both = all(maps(&[], &["0:7:1"]), [None; 2]).unwrap();
        assert_eq!(both.uids, both.gids);
        let one = || maps(&["0:1:1"], &[]);
        assert!(ids(Some(UserNamespace::Host), one(), [None; 2]).is_err());
        assert!(ids(Some(UserNamespace::Private), maps(&[], &[]), [None; 2]).is_err());
        assert_eq!(ids(None, maps(&[], &[]), [None; 2]), Ok(None));
        for wrong in ["1", "a:b:c", "0:1:0", "1:2:3:4", "0:-1:5"] {
            assert!(id_range(wrong).is_err(), "{wrong}");
        }
    }
}
