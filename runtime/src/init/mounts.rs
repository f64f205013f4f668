//! One mount of a spec: what its options mean, and making it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::mount_options::{self, MountFlag};
use crate::sys;

/// What the options of a mount say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// A bind mount, and whether of a whole tree.
    pub(crate) bind: Option<bool>,
    /// `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// Whether `set` goes for the mounts below too.
    pub(crate) recursive: bool,
    /// `MOUNT_ATTR_*` to clear.
    pub(crate) clear: u64,
    /// `MS_PRIVATE` and its like; recursive.
    pub(crate) propagation: u64,
    /// A mount with the ids of the container, and whether of a whole tree.
    pub(crate) mapped: Option<bool>,
    /// Whether it begins with a copy of what it covers.
    pub(crate) copies: bool,
    /// The options of the file system itself.
    pub(crate) data: Vec<(String, Option<String>)>,
}

/// Sorts the options of a mount into flags and data.
pub(crate) fn parse(options: &[String]) -> MountOptions {
    let mut parsed = MountOptions::default();
    for option in options {
        parse_one(option, &mut parsed);
    }
    parsed
}

fn parse_one(option: &str, to: &mut MountOptions) {
    let flag = match mount_options::flag(option) {
        None | Some((MountFlag::Data, _)) => {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (option, None),
            };
            return to.data.push((key.to_owned(), value));
        }
        Some((flag, below)) => {
            to.recursive |= below;
            flag
        }
    };
    match flag {
        MountFlag::Attribute(set, clear) => {
            to.set = (to.set & !clear) | set;
            to.clear = (to.clear & !set) | clear;
        }
        MountFlag::Bind(tree) => to.bind = Some(tree),
        MountFlag::Propagation(propagation) => to.propagation = propagation,
        MountFlag::Mapped(tree) => to.mapped = Some(tree),
        MountFlag::CopyUp => to.copies = true,
        MountFlag::Data | MountFlag::Default => {}
    }
}

/// Makes a file system, mounted nowhere yet.
pub(crate) fn make(kind: &str, source: &str, options: &MountOptions) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", source)?;
    for (key, value) in &options.data {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), key, value)?,
            None => fsconfig_set_flag(context.as_fd(), key)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain(options.set as u32);
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Gives a bind mount its own attributes, and cuts or keeps its ties to the host.
pub(crate) fn adjust(mount: BorrowedFd<'_>, options: &MountOptions) -> io::Result<()> {
    let propagation = if options.propagation == 0 { libc::MS_PRIVATE } else { options.propagation };
    sys::mount_setattr(mount, true, 0, 0, propagation)?;
    let clear = options.clear & !sys::MOUNT_ATTR_ATIME;
    if options.set & !clear == 0 && clear == 0 {
        return Ok(());
    }
    let atime = if options.set & sys::MOUNT_ATTR_ATIME == 0 { 0 } else { sys::MOUNT_ATTR_ATIME };
    // What the host forbids stays forbidden where we may not lift it.
    match sys::mount_setattr(mount, options.recursive, options.set, clear | atime, 0) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && clear != 0 => {
            sys::mount_setattr(mount, options.recursive, options.set, atime, 0)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_flags_or_data() {
        let parse = |text: &str| parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>());
        let dev = parse("nosuid,strictatime,mode=755,size=65536k");
        assert_eq!(dev.set, sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_STRICTATIME);
        assert_eq!(dev.data[0], ("mode".to_owned(), Some("755".to_owned())));
        let bind = parse("rbind,ro,rslave");
        assert_eq!((bind.bind, bind.set), (Some(true), sys::MOUNT_ATTR_RDONLY));
        assert_eq!(bind.propagation, libc::MS_SLAVE);
        assert_eq!(parse("ro,rw").set, 0);
        assert_eq!(parse("rw,ro").clear, 0);
        assert_eq!(parse("newinstance").data, [("newinstance".to_owned(), None)]);
    }
}
