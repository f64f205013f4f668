//! The options of mounts that are not data of a file system (runtime-spec, "Mounts"): one list, for
//! what specs and command lines say, and for what `features` shows.

use crate::sys;

/// What an option means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MountFlag {
    /// `MOUNT_ATTR_*` to set, and to clear.
    Attribute(u64, u64),
    /// A bind mount, and whether of a whole tree.
    Bind(bool),
    /// `MS_PRIVATE` and its like.
    Propagation(u64),
    /// A mount with the ids of the container, and whether of a whole tree.
    Mapped(bool),
    /// It begins with a copy of what it covers.
    CopyUp,
    /// A word that goes to the file system itself.
    Data,
    /// It is so anyway.
    Default,
}

use MountFlag::{Attribute, Bind, CopyUp, Data, Default as Anyway, Mapped, Propagation};

/// Every option, with what it means.
const FLAGS: &[(&str, MountFlag)] = &[
    ("async", Anyway),
    ("bind", Bind(false)),
    ("defaults", Anyway),
    ("dev", Attribute(0, sys::MOUNT_ATTR_NODEV)),
    ("diratime", Attribute(0, sys::MOUNT_ATTR_NODIRATIME)),
    ("dirsync", Data),
    ("exec", Attribute(0, sys::MOUNT_ATTR_NOEXEC)),
    ("idmap", Mapped(false)),
    ("lazytime", Data),
    ("noatime", Attribute(sys::MOUNT_ATTR_NOATIME, sys::MOUNT_ATTR_ATIME)),
    ("nodev", Attribute(sys::MOUNT_ATTR_NODEV, 0)),
    ("nodiratime", Attribute(sys::MOUNT_ATTR_NODIRATIME, 0)),
    ("noexec", Attribute(sys::MOUNT_ATTR_NOEXEC, 0)),
    ("nosuid", Attribute(sys::MOUNT_ATTR_NOSUID, 0)),
    ("nosymfollow", Attribute(sys::MOUNT_ATTR_NOSYMFOLLOW, 0)),
    ("nouser", Anyway),
    ("private", Propagation(libc::MS_PRIVATE)),
    ("rbind", Bind(true)),
    ("relatime", Attribute(0, sys::MOUNT_ATTR_ATIME)),
    ("ridmap", Mapped(true)),
    ("ro", Attribute(sys::MOUNT_ATTR_RDONLY, 0)),
    ("rprivate", Propagation(libc::MS_PRIVATE)),
    ("rshared", Propagation(libc::MS_SHARED)),
    ("rslave", Propagation(libc::MS_SLAVE)),
    ("runbindable", Propagation(libc::MS_UNBINDABLE)),
    ("rw", Attribute(0, sys::MOUNT_ATTR_RDONLY)),
    ("shared", Propagation(libc::MS_SHARED)),
    ("silent", Anyway),
    ("slave", Propagation(libc::MS_SLAVE)),
    ("strictatime", Attribute(sys::MOUNT_ATTR_STRICTATIME, sys::MOUNT_ATTR_ATIME)),
    ("suid", Attribute(0, sys::MOUNT_ATTR_NOSUID)),
    ("symfollow", Attribute(0, sys::MOUNT_ATTR_NOSYMFOLLOW)),
    ("sync", Data),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagation(libc::MS_UNBINDABLE)),
];

/// What an option means, and whether for the mounts below as well: an attribute with an `r` before
/// it. `None` for data of a file system.
pub(crate) fn flag(option: &str) -> Option<(MountFlag, bool)> {
    let find = |name: &str| FLAGS.iter().find(|(known, _)| *known == name).map(|(_, flag)| *flag);
    if let Some(flag) = find(option) {
        return Some((flag, false));
    }
    let below = option.strip_prefix('r').and_then(find);
    below
        .filter(|flag| has_recursive_form(option) && matches!(flag, Attribute(..)))
        .map(|flag| (flag, true))
}

/// The runtime-spec has no such form of the two about symbolic links.
fn has_recursive_form(option: &str) -> bool {
    !option.ends_with("symfollow")
}

/// Whether an option turns an attribute of a mount on or off that only concerns the mount itself:
/// `nosuid`, `exec`, `noatime`. Whether it is read-only has words of its own on command lines.
pub fn is_mount_attribute(option: &str) -> bool {
    let attribute = matches!(flag(option), Some((Attribute(..), false)));
    attribute && !matches!(option, "ro" | "rw")
}

/// Every option that is known, sorted.
pub(crate) fn known() -> Vec<String> {
    let plain = FLAGS.iter().map(|(name, _)| (*name).to_owned());
    let below = FLAGS.iter().map(|(name, _)| format!("r{name}"));
    let below = below.filter(|name| matches!(flag(name), Some((_, true))));
    let mut all: Vec<String> = plain.chain(below).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_means_one_thing() {
        let all = known();
        assert_eq!(all.len(), 48);
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
        for option in ["nosuid", "exec", "strictatime", "symfollow"] {
            assert!(is_mount_attribute(option), "{option}");
        }
        for option in ["ro", "rw", "rnosuid", "bind", "size=1m", "sync", "", "shared", "rsymfollow"]
        {
            assert!(!is_mount_attribute(option), "{option}");
        }
        assert_eq!(flag("rnodev"), Some((Attribute(sys::MOUNT_ATTR_NODEV, 0), true)));
        assert_eq!(flag("rrw").map(|(_, below)| below), Some(true));
        assert_eq!((flag("rsync"), flag("mode=755")), (None, None));
    }
}
