//! The flags that give a container ids of its own.

use clap::Args;
use containers::syntax::{self, UserNamespace};
use runtime::{IdMaps, IdRange, Ids};

use crate::Failure;
use crate::flags::wrong_use;

/// The ids of `run` and `create`.
#[derive(Debug, Args)]
pub struct IdFlags {
    /// Map users: the first in the container, the first of this machine, how many. For an ordinary user
    /// 0 of this machine is the user, and 1 the first subordinate id
    #[arg(long, value_name = "ID:HOST:COUNT", value_delimiter = ',', value_parser = syntax::id_range, help_heading = "Security")]
    uidmap: Vec<IdRange>,
    /// Map groups (default: as the users)
    #[arg(long, value_name = "ID:HOST:COUNT", value_delimiter = ',', value_parser = syntax::id_range, help_heading = "Security")]
    gidmap: Vec<IdRange>,
    /// Map the ids of this user in /etc/subuid
    #[arg(long, value_name = "NAME", conflicts_with = "uidmap", help_heading = "Security")]
    subuidname: Option<String>,
    /// Map the ids of this group in /etc/subgid (default: as --subuidname)
    #[arg(long, value_name = "NAME", conflicts_with = "gidmap", help_heading = "Security")]
    subgidname: Option<String>,
}

impl IdFlags {
    /// Whether any is given.
    pub fn given(&self) -> bool {
        let IdFlags { uidmap, gidmap, subuidname, subgidname } = self;
        !uidmap.is_empty() || !gidmap.is_empty() || subuidname.is_some() || subgidname.is_some()
    }

    /// What the flags ask for.
    ///
    /// # Errors
    /// They contradict each other; there are no such ids; this program is not root.
    pub fn ids(&self, namespace: Option<UserNamespace>) -> Result<Option<Ids>, Failure> {
        let maps = IdMaps { uids: self.uidmap.clone(), gids: self.gidmap.clone() };
        let names = [self.subuidname.as_deref(), self.subgidname.as_deref()];
        syntax::ids(namespace, maps, names).map_err(wrong_use)
    }
}

/// The ids of working containers and of the commands of a build.
#[derive(Debug, Clone, Default, Args)]
pub struct MapFlags {
    /// Map users of commands: the first in the container, the first of this machine, how many (root)
    #[arg(long, value_name = "ID:HOST:COUNT", value_delimiter = ',', help_heading = "Security")]
    userns_uid_map: Vec<String>,
    /// Map groups of commands (default: as the users)
    #[arg(long, value_name = "ID:HOST:COUNT", value_delimiter = ',', help_heading = "Security")]
    userns_gid_map: Vec<String>,
    /// Map the ids that this user has in /etc/subuid (root; default: as --userns-gid-map-group)
    #[arg(long, value_name = "NAME", conflicts_with = "userns_uid_map", help_heading = "Security")]
    userns_uid_map_user: Option<String>,
    /// Map the ids that this group has in /etc/subgid (default: as --userns-uid-map-user)
    #[arg(long, value_name = "NAME", conflicts_with = "userns_gid_map", help_heading = "Security")]
    userns_gid_map_group: Option<String>,
}

/// Every id there is.
const ALL: IdRange = IdRange { inside: 0, outside: 0, count: u32::MAX };

impl MapFlags {
    /// What the flags ask for, in a namespace such as this.
    ///
    /// # Errors
    /// They contradict each other; there are no such ids; this program is not root.
    pub(super) fn ids(&self, namespace: Option<UserNamespace>) -> Result<Option<Ids>, Failure> {
        let maps = IdMaps {
            uids: ranges("userns-uid-map", &self.userns_uid_map)?,
            gids: ranges("userns-gid-map", &self.userns_gid_map)?,
        };
        let names = [&self.userns_uid_map_user, &self.userns_gid_map_group];
        let named = names.iter().any(|name| name.is_some());
        if maps.uids.is_empty() && !maps.gids.is_empty() && self.userns_uid_map_user.is_none() {
            return Err(Failure::usage(
                "--userns-gid-map can not be used without --userns-uid-map",
            ));
        }
        let ordinary = runtime::in_user_namespace();
        let own = [Some(UserNamespace::Private), Some(UserNamespace::Empty)];
        let private = own.contains(&namespace);
        if private && maps == IdMaps::default() && !named {
            let count = if ordinary { runtime::mapped_ids() } else { ALL.count };
            let all = vec![IdRange { count, ..ALL }];
            return Ok(Some(Ids::Maps(IdMaps { uids: all.clone(), gids: all })));
        }
        // By their groups alone, the users of the same name are meant.
        let names = match names.map(Option::as_deref) {
            [None, Some(group)] if maps.uids.is_empty() => [Some(group), Some(group)],
            names => names,
        };
        let ids = syntax::ids(namespace, maps, names).map_err(wrong_use)?;
        if ids.is_some() && ordinary {
            return Err(Failure::usage("maps of ids need root here").hint(
                "an ordinary user's commands are in a user namespace already; `rbuild run IMAGE` takes \
                 --userns",
            ));
        }
        Ok(ids)
    }
}

/// The ranges of a map.
fn ranges(flag: &str, texts: &[String]) -> Result<Vec<IdRange>, Failure> {
    let range = |text: &String| {
        let read = syntax::id_range(text).ok().filter(|_| text.matches(':').count() == 2);
        read.ok_or_else(|| {
            Failure::usage(format!(
                "initializing ID mappings: {flag} setting is malformed expected \
                 [\"uint32:uint32:uint32\"]: {texts:?}"
            ))
        })
    };
    texts.iter().map(range).collect()
}
