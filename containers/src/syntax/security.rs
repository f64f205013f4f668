//! What stands between a container and the machine, and the devices it gets.

use std::io::Read;
use std::path::Path;

use runtime::{Device, DeviceRule, Isolation, Join, Namespace, Seccomp};

use super::SyntaxError;
use crate::{Error, Result};

/// What stands between a container and this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// Everything there is.
    Full,
    /// Mounts and privileges alone.
    Chroot,
}

/// The isolation that buildah names: `oci`, `rootless`, `default` or `chroot`.
///
/// # Errors
/// It is none of these.
pub fn sandbox(text: &str) -> Result<Sandbox, SyntaxError> {
    match text {
        "" | "default" | "oci" | "rootless" | "sandbox" => Ok(Sandbox::Full),
        "chroot" => Ok(Sandbox::Chroot),
        other => {
            let why = format!("{other:?} is not known: there are oci, rootless and chroot");
            Err(SyntaxError::new(why))
        }
    }
}

/// Whose a namespace is: `private`, `host`, `container:NAME` or `ns:PATH`.
///
/// # Errors
/// It is none of these; the path is not absolute.
pub fn namespace(text: &str) -> Result<Namespace, SyntaxError> {
    if text.starts_with('/') {
        return Ok(Namespace::Join(Join::Path(text.into())));
    }
    match text.split_once(':') {
        None if ["", "private", "container"].contains(&text) => Ok(Namespace::Private),
        None if text == "host" => Ok(Namespace::Host),
        Some(("container", name)) if !name.is_empty() => {
            Ok(Namespace::Join(Join::Container(name.to_owned())))
        }
        Some(("ns", path)) if path.starts_with('/') => Ok(Namespace::Join(Join::Path(path.into()))),
        _ => Err(SyntaxError::new(format!(
            "{text:?} is none of private, host, container:NAME and ns:PATH"
        ))),
    }
}

/// Whose ipc is: as [`namespace`], `shareable`, or `none`, which has no `/dev/shm`.
///
/// # Errors
/// As there.
pub fn ipc_namespace(text: &str) -> Result<Namespace, SyntaxError> {
    match text {
        "shareable" => Ok(Namespace::Shareable),
        "none" => Ok(Namespace::None),
        _ => namespace(text).map_err(|_| {
            SyntaxError::new(format!(
                "{text:?} is none of private, shareable, none, host, container:NAME and ns:PATH"
            ))
        }),
    }
}

/// Whose the namespace of cgroups is: `private` or `host`.
///
/// # Errors
/// It is neither.
pub fn cgroup_namespace(text: &str) -> Result<Namespace, SyntaxError> {
    match namespace(text) {
        Ok(Namespace::Join(_)) | Err(_) => {
            Err(SyntaxError::new(format!("{text:?} is neither private nor host")))
        }
        own => own,
    }
}

/// A security option: `no-new-privileges`, `seccomp=FILE|unconfined`, `apparmor=PROFILE`,
/// `mask=PATHS`, `unmask=PATHS`.
///
/// # Errors
/// [`Error::Syntax`]; [`Error::File`], [`Error::Seccomp`]: a profile cannot be read.
pub fn security_option(text: &str, isolation: &mut Isolation) -> Result<()> {
    let paths = |text: &str| text.split(':').map(str::to_owned).collect::<Vec<_>>();
    match text.split_once(['=', ':']).unwrap_or((text, "")) {
        ("no-new-privileges", "" | "true") => isolation.no_new_privileges = Some(true),
        ("no-new-privileges", "false") => isolation.no_new_privileges = Some(false),
        ("seccomp", "unconfined") => isolation.seccomp = Some(Seccomp::Unconfined),
        ("seccomp", file) if !file.is_empty() => {
            isolation.seccomp = Some(profile(Path::new(file))?);
        }
        // Nothing to turn off: no security module labels processes of ours.
        ("label", "disable") | ("apparmor", "unconfined") => {}
        ("apparmor", profile) if !profile.is_empty() => {
            if !Path::new("/sys/kernel/security/apparmor").exists() {
                return Err(SyntaxError::new("this kernel runs without AppArmor").into());
            }
            isolation.apparmor = Some(profile.to_owned());
        }
        ("mask", list) if !list.is_empty() => isolation.mask.extend(paths(list)),
        ("unmask", list) if !list.is_empty() => isolation.unmask.extend(paths(list)),
        _ => {
            return Err(SyntaxError::new("it is not supported")
                .hinting(
                    "no-new-privileges, seccomp=unconfined, seccomp=FILE, apparmor=PROFILE, \
                     mask=PATHS and unmask=PATHS are; SELinux labels are not set",
                )
                .into());
        }
    }
    Ok(())
}

/// A seccomp profile is no longer than this many bytes.
const MAX_PROFILE: u64 = 4 << 20;

fn profile(path: &Path) -> Result<Seccomp> {
    let file = std::fs::File::open(path).map_err(Error::file("reading", path))?;
    let mut bytes = Vec::new();
    file.take(MAX_PROFILE + 1).read_to_end(&mut bytes).map_err(Error::file("reading", path))?;
    let flawed = |reason: String| Error::Seccomp { path: path.to_owned(), reason };
    if bytes.len() as u64 > MAX_PROFILE {
        return Err(flawed(format!("it has more than {MAX_PROFILE} bytes")));
    }
    let read = runtime::SeccompProfile::parse(&String::from_utf8_lossy(&bytes));
    let profile = read.map_err(|error| match error {
        runtime::Error::Invalid { reason, .. } => flawed(reason),
        other => flawed(other.to_string()),
    })?;
    Ok(Seccomp::Profile(Box::new(profile)))
}

/// `HOST[:CONTAINER][:rwm]`.
///
/// # Errors
/// [`Error::Syntax`], also for the name of a device of the Container Device Interface;
/// [`Error::File`]: it is not there.
pub fn device(text: &str) -> Result<Device> {
    if crate::is_device_name(text) {
        let why = "devices of the Container Device Interface are for new containers";
        return Err(SyntaxError::new(why).into());
    }
    let parts: Vec<&str> = text.split(':').collect();
    let is_access = |part: &str| !part.is_empty() && part.chars().all(|c| "rwm".contains(c));
    let (source, target, access) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, access] if is_access(access) => (source, source, access),
        [source, target] => (source, target, "rwm"),
        [source, target, access] if is_access(access) => (source, target, access),
        _ => return Err(SyntaxError::new("expected HOST[:CONTAINER][:rwm]").into()),
    };
    let stat = rustix::fs::stat(source)
        .map_err(|errno| Error::file("finding device", source)(errno.into()))?;
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    if !kind.is_char_device() && !kind.is_block_device() {
        return Err(SyntaxError::new("it is not a device").into());
    }
    Ok(Device {
        source: source.into(),
        target: target.into(),
        block: kind.is_block_device(),
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
        access: access.to_owned(),
    })
}

/// Devices by kind and number: `c 189:* rwm`.
///
/// # Errors
/// It is not of this form.
pub fn device_rule(text: &str) -> Result<DeviceRule, SyntaxError> {
    let refuse = || SyntaxError::new(format!("{text:?} is not such as `c 189:* rwm`"));
    let mut words = text.split_whitespace();
    let (kind, numbers) = (words.next(), words.next().and_then(|text| text.split_once(':')));
    let (major, minor) = numbers.ok_or_else(refuse)?;
    let access = words.next().unwrap_or("rwm");
    let block = match kind {
        Some("a") => None,
        Some("b") => Some(true),
        Some("c") => Some(false),
        _ => return Err(refuse()),
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| refuse()),
    };
    let letters = !access.is_empty() && access.chars().all(|letter| "rwm".contains(letter));
    if words.next().is_some() || !letters {
        return Err(refuse());
    }
    Ok(DeviceRule {
        block,
        major: number(major)?,
        minor: number(minor)?,
        access: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_the_sandbox_is_read_strictly() {
        let mut isolation = Isolation::default();
        for text in ["no-new-privileges", "seccomp=unconfined", "mask=/a:/b", "label=disable"] {
            security_option(text, &mut isolation).unwrap();
        }
        assert_eq!((isolation.no_new_privileges, isolation.mask.len()), (Some(true), 2));
        for text in ["", "mask=", "label=type:x", "no-new-privileges=maybe"] {
            let read = security_option(text, &mut isolation);
            assert!(matches!(read, Err(Error::Syntax(_))), "{text}");
        }
        let absent = security_option("seccomp=/nowhere", &mut isolation);
        assert!(matches!(absent, Err(Error::File { .. })));
        assert_eq!(device("/dev/null:/dev/x:r").unwrap().access, "r");
        for text in ["/dev", "vendor.com/class=name", "/dev/null:a:b:c"] {
            assert!(matches!(device(text), Err(Error::Syntax(_))), "{text}");
        }
        assert!(matches!(device("/dev/nowhere"), Err(Error::File { .. })));
        assert!(sandbox("moon").is_err() && namespace("proc/1").is_err());
    }

    #[test]
    fn rules_of_devices_and_namespaces_are_read_or_refused() {
        for text in ["c 189:* rwm", "b 7:0 r", "a *:* rwm"] {
            assert_eq!(device_rule(text).unwrap().to_string(), text);
        }
        assert_eq!(device_rule("c 1:3").unwrap().access, "rwm");
        for text in ["", "c", "x 1:3 r", "c 1 r", "c 1:x r", "c 1:3 q", "c 1:3 r w"] {
            assert!(device_rule(text).is_err(), "{text}");
        }
        let joins = |text: &str| matches!(namespace(text), Ok(Namespace::Join(_)));
        assert!(joins("container:web") && joins("ns:/proc/1/ns/pid"));
        assert_eq!(ipc_namespace("shareable").unwrap(), Namespace::Shareable);
        assert_eq!(ipc_namespace("none").unwrap(), Namespace::None);
        assert!(namespace("none").is_err() && ipc_namespace("web").is_err());
        for text in ["container:", "ns:x", "web", "none"] {
            assert!(namespace(text).is_err(), "{text}");
        }
        assert!(cgroup_namespace("container:web").is_err() && cgroup_namespace("host").is_ok());
    }
}
