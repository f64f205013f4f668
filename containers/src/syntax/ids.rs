//! The ids of a container, as `--userns` and the maps have them.

use std::path::Path;

use runtime::{IdMaps, IdRange, Ids, Join};

use super::SyntaxError;

/// How many ids a container gets that does not say: of root's, and of an ordinary user's few.
const USUAL: u32 = 65_536;
const FEW: u32 = 4096;

/// Which user namespace a container is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserNamespace {
    /// No word: that of this program for new containers, one of its own for working containers and builds.
    Empty,
    /// That of this program.
    Host,
    /// One of its own, whose ids are named.
    Private,
    /// One of its own with so many ids that no other container has.
    Auto(u32),
    /// One of its own in which ids are the same as on the machine.
    KeepId(KeepId),
    /// One of its own with the subordinate ids of an ordinary user, without the user.
    NoMap,
    /// That of a running container, or the one at a path.
    Join(Join),
}

/// Which ids are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeepId {
    /// The id of the user inside, if not that on the machine.
    uid: Option<u32>,
    /// The id of the user's group inside.
    gid: Option<u32>,
    /// How many ids there are, if not all.
    size: Option<u32>,
}

impl UserNamespace {
    /// The word for it.
    pub fn name(&self) -> &'static str {
        match self {
            UserNamespace::Empty => "",
            UserNamespace::Host => "host",
            UserNamespace::Private => "private",
            UserNamespace::Auto(_) => "auto",
            UserNamespace::KeepId(_) => "keep-id",
            UserNamespace::NoMap => "nomap",
            UserNamespace::Join(Join::Container(_)) => "container",
            UserNamespace::Join(Join::Path(_)) => "ns",
        }
    }

    /// The user that runs the program if none is named: with kept ids it is the user of the machine.
    pub fn user(&self) -> Option<String> {
        match self {
            UserNamespace::KeepId(kept) if runtime::in_user_namespace() => {
                let (uid, gid) = kept.user();
                Some(format!("{uid}:{gid}"))
            }
            _ => None,
        }
    }
}

impl KeepId {
    /// What this user is in the container.
    fn user(self) -> (u32, u32) {
        let (uid, gid) = runtime::outer_root();
        (self.uid.unwrap_or(uid), self.gid.unwrap_or(gid))
    }

    /// All ids there are for root; for an ordinary user the subordinate ids around the user's own.
    fn maps(self) -> IdMaps {
        let same = |inside, outside, count| IdRange { inside, outside, count };
        if !runtime::in_user_namespace() {
            let all = vec![same(0, 0, self.size.unwrap_or(ALL))];
            return IdMaps { uids: all.clone(), gids: all };
        }
        let count = self.size.unwrap_or(u32::MAX).min(runtime::mapped_ids());
        let (uid, gid) = self.user();
        IdMaps { uids: around(uid, count), gids: around(gid, count) }
    }
}

/// So many ids, of which `own` is 0 outside and the others follow from 1 on.
fn around(own: u32, count: u32) -> Vec<IdRange> {
    let before = own.min(count.saturating_sub(1));
    let after = count.saturating_sub(1) - before;
    let ranges = [
        IdRange { inside: 0, outside: 1, count: before },
        IdRange { inside: own, outside: 0, count: 1 },
        IdRange { inside: own.saturating_add(1), outside: before + 1, count: after },
    ];
    ranges.into_iter().filter(|range| range.count > 0).collect()
}

/// All ids there are: the last number is none.
const ALL: u32 = u32::MAX;

/// `host`, `private`, `auto[:size=NUMBER]`, `keep-id[:size=NUMBER,uid=ID,gid=ID]`, `nomap`,
/// `container:NAME` or `ns:PATH`.
///
/// # Errors
/// It is another one.
pub fn user_namespace(text: &str) -> Result<UserNamespace, SyntaxError> {
    if text.starts_with('/') {
        return Ok(UserNamespace::Join(Join::Path(text.into())));
    }
    let (kind, options) = text.split_once(':').unwrap_or((text, ""));
    let refuse = |why: &str| Err(SyntaxError::new(format!("{text:?} is not supported: {why}")));
    let ordinary = runtime::in_user_namespace();
    match (kind, options) {
        ("", "") => Ok(UserNamespace::Empty),
        ("host", "") => Ok(UserNamespace::Host),
        ("private", "") => Ok(UserNamespace::Private),
        _ if text == "container" => Ok(UserNamespace::Private),
        ("auto", "") => Ok(UserNamespace::Auto(if ordinary { FEW } else { USUAL })),
        ("auto", options) => match options.strip_prefix("size=").map(str::parse) {
            Some(Ok(size)) if size > 0 => Ok(UserNamespace::Auto(size)),
            _ => refuse("the option of auto is size=NUMBER; maps name the ids"),
        },
        ("keep-id", options) => match keep_id(options) {
            Some(kept) if ordinary || kept.uid.or(kept.gid).is_none() => {
                Ok(UserNamespace::KeepId(kept))
            }
            Some(_) => refuse("you are root, whose id stays 0; maps name other ids"),
            None => refuse("the options of keep-id are size=NUMBER, uid=ID and gid=ID"),
        },
        ("nomap", "") if ordinary => Ok(UserNamespace::NoMap),
        ("nomap", _) => refuse(
            "it hides the id of an ordinary user, and you are root; auto has no id \
             of this machine's users",
        ),
        ("container", name) if !name.is_empty() => {
            Ok(UserNamespace::Join(Join::Container(name.to_owned())))
        }
        ("ns", path) if path.starts_with('/') => Ok(UserNamespace::Join(Join::Path(path.into()))),
        _ => {
            let reason = format!(
                "{text:?} is not host, private, auto, auto:size=NUMBER, keep-id, nomap, container:NAME or \
                 ns:PATH"
            );
            Err(SyntaxError::new(reason))
        }
    }
}

fn keep_id(options: &str) -> Option<KeepId> {
    let mut kept = KeepId::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=')?;
        let number: u32 = value.parse().ok()?;
        match key {
            "size" if number > 0 => kept.size = Some(number),
            "uid" => kept.uid = Some(number),
            "gid" => kept.gid = Some(number),
            _ => return None,
        }
    }
    Some(kept)
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
        (None | Some(UserNamespace::Host | UserNamespace::Empty), true) => return Ok(None),
        (Some(UserNamespace::Auto(count)), true) => Ids::Auto(count),
        (Some(UserNamespace::KeepId(kept)), true) => Ids::Maps(kept.maps()),
        (Some(UserNamespace::Join(join)), true) => Ids::Join(join),
        (Some(UserNamespace::NoMap), true) => {
            let count = runtime::mapped_ids().saturating_sub(1);
            let all = vec![IdRange { inside: 0, outside: 1, count }];
            Ids::Maps(IdMaps { uids: all.clone(), gids: all })
        }
        (None | Some(UserNamespace::Private | UserNamespace::Empty), false) => Ids::Maps(maps),
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
    if runtime::in_user_namespace() && !matches!(ids, Ids::Join(_)) {
        if names.iter().any(Option::is_some) {
            return Err(SyntaxError::new("ids by the name of a user need root").hinting(
                "an ordinary user has subordinate ids: let auto choose some, or map them, with 0 for \
                 the user and 1 for the first of them",
            ));
        }
        if runtime::mapped_ids() < 2 {
            return Err(SyntaxError::new("a container with ids of its own needs subordinate ids")
                .hinting("add lines such as NAME:100000:65536 to /etc/subuid and /etc/subgid"));
        }
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
            ("", Some(UserNamespace::Empty)),
            ("/x", Some(UserNamespace::Join(Join::Path("/x".into())))),
            ("container", Some(UserNamespace::Private)),
            ("host", Some(UserNamespace::Host)),
            ("private", Some(UserNamespace::Private)),
            ("auto:size=10", Some(UserNamespace::Auto(10))),
            ("auto:size=0", None),
            ("auto:uidmapping=0:1:1", None),
            ("keep-id:size=0", None),
            ("keep-id:uid=x", None),
            ("keep-id:name=x", None),
            ("ns:/x", Some(UserNamespace::Join(Join::Path("/x".into())))),
            ("container:web", Some(UserNamespace::Join(Join::Container("web".to_owned())))),
            ("ns:x", None),
            ("container:", None),
            ("other", None),
        ] {
            assert_eq!(user_namespace(text).ok(), expected, "{text}");
        }
        if !runtime::in_user_namespace() {
            assert_eq!(user_namespace("auto"), Ok(UserNamespace::Auto(65_536)));
            let kept = |size| Ok(UserNamespace::KeepId(KeepId { size, ..KeepId::default() }));
            assert_eq!(user_namespace("keep-id"), kept(None));
            assert_eq!(user_namespace("keep-id:size=9"), kept(Some(9)));
            assert!(user_namespace("keep-id:uid=1").is_err() && user_namespace("nomap").is_err());
        }
        let kept = keep_id("uid=5,size=7,gid=6").unwrap();
        assert_eq!((kept.uid, kept.gid, kept.size), (Some(5), Some(6), Some(7)));
    }

    #[test]
    fn ids_lie_around_the_users_own() {
        let ranges = |own, count| -> Vec<[u32; 3]> {
            let all = around(own, count).into_iter();
            all.map(|range| [range.inside, range.outside, range.count]).collect()
        };
        assert_eq!(ranges(2, 10), [[0, 1, 2], [2, 0, 1], [3, 3, 7]]);
        assert_eq!(ranges(0, 10), [[0, 0, 1], [1, 1, 9]]);
        assert_eq!(ranges(9, 10), [[0, 1, 9], [9, 0, 1]]);
        // Who has a number beyond the others is still there.
        assert_eq!(ranges(70_000, 10), [[0, 1, 9], [70_000, 0, 1]]);
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
