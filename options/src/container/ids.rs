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
