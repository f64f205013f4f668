//! The values of the flags of containers.

use std::net::IpAddr;
use std::path::Path;

use runtime::{Isolation, Namespace, Network, Seccomp};
use task::Kind;

use crate::commands::tags::read_bounded;
use crate::report::Failure;

/// What stands between a container and this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolated {
    /// Everything there is.
    Sandbox,
    /// Mounts and privileges alone.
    Chroot,
}

pub(super) fn isolation(text: &str) -> Result<Isolated, String> {
    match text {
        "" | "default" | "oci" | "rootless" | "sandbox" => Ok(Isolated::Sandbox),
        "chroot" => Ok(Isolated::Chroot),
        other => Err(format!("{other:?} is not known: there are oci, rootless and chroot")),
    }
}

pub(super) fn namespace(text: &str) -> Result<Namespace, String> {
    match text {
        "" | "private" | "container" => Ok(Namespace::Private),
        "host" => Ok(Namespace::Host),
        other => Err(format!("{other:?} is neither private nor host; a path cannot be joined")),
    }
}

pub(super) fn user_namespace(text: &str) -> Result<Namespace, String> {
    match text {
        "" | "host" => Ok(Namespace::Host),
        other => Err(format!(
            "{other:?} is not supported: containers have the ids of this program; run it as an \
             ordinary user to have them in a user namespace"
        )),
    }
}

pub(super) fn octal(text: &str) -> Result<u32, String> {
    let value = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    value.ok_or_else(|| format!("{text:?} is not an octal mode up to 0777"))
}

pub(super) fn cpus(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0 && *n < 1e6);
    value.ok_or_else(|| format!("{text:?} is not a number of CPUs such as 1.5"))
}

/// `NAME:ADDRESS`; `host-gateway` is this machine: loopback on the host network, else the address
/// of the uplink.
pub(super) fn host_line(text: &str, mode: Option<Network>) -> Result<(String, IpAddr), Failure> {
    let refuse = || Failure::usage(format!("--add-host {text:?}: expected NAME:ADDRESS"));
    let (name, address) = text.split_once([':', '=']).ok_or_else(refuse)?;
    if address == "host-gateway" {
        let machine = match mode {
            Some(Network::Host) => [127, 0, 0, 1].into(),
            _ => network::Uplink::MACHINE,
        };
        return Ok((name.to_owned(), machine));
    }
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Ok((name.to_owned(), address.parse().map_err(|_| refuse())?))
}

/// What the values of `--security-opt` ask for.
///
/// # Errors
/// An option we do not have; a profile that cannot be read.
pub(super) fn security(options: &[String], isolation: &mut Isolation) -> Result<(), Failure> {
    let paths = |text: &str| text.split(':').map(str::to_owned).collect::<Vec<_>>();
    for option in options {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => isolation.no_new_privileges = Some(true),
            ("no-new-privileges", "false") => isolation.no_new_privileges = Some(false),
            ("seccomp", "unconfined") => isolation.seccomp = Some(Seccomp::Unconfined),
            ("seccomp", file) if !file.is_empty() => isolation.seccomp = Some(profile(file)?),
            // Nothing to turn off: no security module labels processes of ours.
            ("label", "disable") | ("apparmor", "unconfined") => {}
            ("apparmor", profile) if !profile.is_empty() => {
                if !Path::new("/sys/kernel/security/apparmor").exists() {
                    return Err(Failure::usage(format!("--security-opt {option:?}"))
                        .hint("this kernel runs without AppArmor"));
                }
                isolation.apparmor = Some(profile.to_owned());
            }
            ("mask", list) if !list.is_empty() => isolation.mask.extend(paths(list)),
            ("unmask", list) if !list.is_empty() => isolation.unmask.extend(paths(list)),
            _ => {
                let what = format!("--security-opt {option:?} is not supported");
                return Err(Failure::usage(what).hint(
                    "no-new-privileges, seccomp=unconfined, seccomp=FILE, apparmor=PROFILE, \
                     mask=PATHS and unmask=PATHS are; SELinux labels are not set",
                ));
            }
        }
    }
    Ok(())
}

/// Seccomp profiles are smaller than this many bytes.
const MAX_PROFILE: u64 = 4 << 20;

/// A seccomp profile.
///
/// # Errors
/// It cannot be read.
fn profile(file: &str) -> Result<Seccomp, Failure> {
    let bytes = read_bounded(Path::new(file), MAX_PROFILE)
        .map_err(|failure| failure.context("reading the seccomp profile"))?;
    let text = String::from_utf8_lossy(&bytes);
    let profile = runtime::SeccompProfile::parse(&text).map_err(|error| {
        let reason = match error {
            runtime::Error::Invalid { reason, .. } => reason,
            other => other.to_string(),
        };
        Failure::new(Kind::Invalid, format!("reading seccomp profile {file}: {reason}"))
    })?;
    Ok(Seccomp::Profile(Box::new(profile)))
}

/// `HOST[:CONTAINER][:rwm]`.
///
/// # Errors
/// It is not a device of this machine.
pub(super) fn device(text: &str) -> Result<runtime::Device, Failure> {
    let refuse = |why: &str| Failure::usage(format!("--device {text:?}: {why}"));
    if containers::is_device_name(text) {
        return Err(refuse("devices of the Container Device Interface are for new containers"));
    }
    let parts: Vec<&str> = text.split(':').collect();
    let is_access = |part: &str| !part.is_empty() && part.chars().all(|c| "rwm".contains(c));
    let (source, target, access) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, access] if is_access(access) => (source, source, access),
        [source, target] => (source, target, "rwm"),
        [source, target, access] if is_access(access) => (source, target, access),
        _ => return Err(refuse("expected HOST[:CONTAINER][:rwm]")),
    };
    let stat = rustix::fs::stat(source).map_err(|error| {
        Failure::io(format!("finding device {source}"), &std::io::Error::from(error))
    })?;
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    if !kind.is_char_device() && !kind.is_block_device() {
        return Err(refuse("it is not a device"));
    }
    Ok(runtime::Device {
        source: source.into(),
        target: target.into(),
        block: kind.is_block_device(),
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
        access: access.to_owned(),
    })
}
