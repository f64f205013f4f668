//! What a bundle may ask for: a field that would not be honoured is refused by its name.

use oci_spec::runtime::{Hooks, Linux, LinuxNamespaceType, LinuxResources, Mount, Process, Spec};

use crate::{Error, Result};

/// Options of other runtimes, and of file systems we do not make ourselves.
const MOUNT_OPTIONS: [&str; 2] = ["remount", "mand"];

/// Refuses unsupported fields by name.
fn refuse(asked: &[(bool, &str)]) -> Result<()> {
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, name)) => Err(Error::invalid(*name, "it is not supported")),
        None => Ok(()),
    }
}

/// Checks a whole bundle.
///
/// # Errors
/// [`Error::Invalid`] with the name of the field.
pub(crate) fn bundle(spec: &Spec) -> Result<()> {
    version(spec.version())?;
    refuse(&[
        (spec.solaris().is_some(), "solaris"),
        (spec.windows().is_some(), "windows"),
        (spec.vm().is_some(), "vm"),
        (spec.zos().is_some(), "zos"),
        (spec.root().is_none(), "missing root"),
        (spec.linux().is_none(), "missing linux"),
    ])?;
    spec.mounts().iter().flatten().try_for_each(mount)?;
    spec.hooks().iter().try_for_each(hooks)?;
    spec.process().iter().try_for_each(process)?;
    spec.linux().iter().try_for_each(|linux| self::linux(linux, spec))
}

fn version(text: &str) -> Result<()> {
    let mut parts = text.split('.');
    if parts.next() == Some("1") && parts.next().is_some_and(|minor| minor.parse::<u32>().is_ok()) {
        return Ok(());
    }
    Err(Error::invalid("ociVersion", format!("{text:?} is not a version 1 of the runtime-spec")))
}

/// Checks what a process asks for, the first or a further one.
///
/// # Errors
/// As [`bundle`].
pub(crate) fn process(process: &Process) -> Result<()> {
    refuse(&[
        (process.command_line().is_some(), "process.commandLine"),
        (
            process.args().as_deref().unwrap_or_default().is_empty(),
            "process.args without a program",
        ),
    ])?;
    if !process.cwd().is_absolute() {
        return Err(Error::invalid("process.cwd", "it is not an absolute path"));
    }
    Ok(())
}

fn mount(mount: &Mount) -> Result<()> {
    let has = |name: &str| mount.options().iter().flatten().any(|option| option == name);
    let listed = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let kind = mount.typ().as_deref().unwrap_or_default();
    let bind = kind == "bind" || has("bind") || has("rbind");
    let mapped = has("idmap") || has("ridmap");
    let (uids, gids) = (listed(mount.uid_mappings()), listed(mount.gid_mappings()));
    let place = mount.destination().display();
    let wrong = |reason: String| Err(Error::invalid("mounts", reason));
    if let Some(option) = MOUNT_OPTIONS.iter().find(|option| has(option)) {
        return wrong(format!("option {option} of {place} is not supported"));
    }
    if (mapped || uids || gids) && !bind {
        return wrong(format!("{place} is no bind mount, so its ids cannot be mapped"));
    }
    if uids != gids {
        return wrong(format!("{place} maps only one of users and groups"));
    }
    if has("tmpcopyup") && kind != "tmpfs" {
        return wrong(format!("{place} is no tmpfs, so tmpcopyup means nothing"));
    }
    Ok(())
}

fn hooks(hooks: &Hooks) -> Result<()> {
    let lists = [
        hooks.create_runtime(),
        hooks.create_container(),
        hooks.start_container(),
        hooks.poststart(),
        hooks.poststop(),
    ];
    for hook in lists.into_iter().flatten().flatten() {
        if !hook.path().is_absolute() {
            return Err(Error::invalid("hooks", "the path of a hook is not absolute"));
        }
        if hook.timeout().is_some_and(|seconds| seconds <= 0) {
            return Err(Error::invalid("hooks", "the timeout of a hook is not above 0"));
        }
    }
    Ok(())
}

fn linux(linux: &Linux, spec: &Spec) -> Result<()> {
    let starts = spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_ref());
    let listens = linux.seccomp().as_ref().is_some_and(|one| one.listener_path().is_some());
    let spaces = linux.namespaces().as_deref().unwrap_or_default();
    let joined = |kind| spaces.iter().any(|one| one.typ() == kind && one.path().is_some());
    let made = |kind| spaces.iter().any(|one| one.typ() == kind);
    let devices = linux.net_devices().as_ref().is_some_and(|list| !list.is_empty());
    refuse(&[
        (
            devices && !made(LinuxNamespaceType::Network),
            "linux.netDevices without a network namespace",
        ),
        (
            devices && crate::in_user_namespace(),
            "linux.netDevices for an ordinary user, whose devices they are not,",
        ),
        (linux.intel_rdt().is_some(), "linux.intelRdt"),
        (
            joined(LinuxNamespaceType::User)
                && (linux.uid_mappings().is_some() || linux.gid_mappings().is_some()),
            "maps of ids together with a joined user namespace, which has its own,",
        ),
        (
            linux.time_offsets().is_some() && !made(LinuxNamespaceType::Time),
            "linux.timeOffsets without a time namespace",
        ),
        (
            listens && starts.is_some_and(|list| !list.is_empty()),
            "hooks.startContainer together with a seccomp listener",
        ),
    ])?;
    let nodes = linux.memory_policy().as_ref().and_then(|policy| policy.nodes().as_deref());
    if let Some(list) = nodes.filter(|list| crate::init::memory_nodes(list).is_none()) {
        return Err(Error::invalid("linux.memoryPolicy", format!("{list:?} is no list of nodes")));
    }
    if let Some(personality) = linux.personality()
        && personality.flags().as_ref().is_some_and(|flags| !flags.is_empty())
    {
        return Err(Error::invalid("linux.personality", "there are no flags"));
    }
    linux.sysctl().iter().flatten().try_for_each(|(key, _)| sysctl(key, &made))?;
    linux.resources().iter().try_for_each(resources)
}

/// A kernel parameter must belong to a namespace of the container: else it is the machine's.
fn sysctl(key: &str, made: &dyn Fn(LinuxNamespaceType) -> bool) -> Result<()> {
    let shape = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte));
    let key = key.replace('/', ".");
    let own = match key.as_str() {
        "kernel.hostname" | "kernel.domainname" => made(LinuxNamespaceType::Uts),
        name if crate::spec::is_ipc_parameter(name) => made(LinuxNamespaceType::Ipc),
        name if name.starts_with("net.") => made(LinuxNamespaceType::Network),
        _ => false,
    };
    if shape && own && !key.split('.').any(str::is_empty) {
        return Ok(());
    }
    let reason = format!("{key:?} does not belong to a namespace of the container");
    Err(Error::invalid("linux.sysctl", reason))
}

/// Checks limits.
///
/// # Errors
/// As [`bundle`].
pub(crate) fn resources(resources: &LinuxResources) -> Result<()> {
    let memory = resources.memory();
    let memory = memory.as_ref();
    // The kernel counts its own memory with that of the programs: a limit that is not lower holds.
    let kernel = memory.is_some_and(|memory| {
        let all = memory.limit().filter(|limit| *limit > 0).unwrap_or(i64::MAX);
        memory.kernel().is_some_and(|limit| limit > 0 && limit < all)
    });
    refuse(&[(kernel, "linux.resources.memory.kernel below memory.limit")])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(change: &str) -> Result<()> {
        let mut spec = serde_json::json!({
            "ociVersion": "1.2.0", "root": {"path": "rootfs"},
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["x"], "cwd": "/"},
            "linux": {"namespaces": [{"type": "mount"}]},
        });
        let change: serde_json::Value = serde_json::from_str(change).unwrap();
        lay(&mut spec, change);
        bundle(&serde_json::from_value(spec).unwrap())
    }

    fn lay(to: &mut serde_json::Value, from: serde_json::Value) {
        match (to, from) {
            (serde_json::Value::Object(to), serde_json::Value::Object(from)) => {
                for (key, value) in from {
                    lay(to.entry(key).or_insert(serde_json::Value::Null), value);
                }
            }
            (to, from) => *to = from,
        }
    }

    #[test]
    fn what_would_not_be_honoured_is_refused_by_name() {
        checked("{}").unwrap();
        checked(r#"{"hooks": {"poststop": [{"path": "/bin/true", "timeout": 1}]}}"#).unwrap();
        for (change, name) in [
            (r#"{"ociVersion": "2.0.0"}"#, "ociVersion"),
            (r#"{"process": {"cwd": "relative"}}"#, "process.cwd"),
            (r#"{"process": {"args": []}}"#, "process.args"),
            (r#"{"process": {"commandLine": "x"}}"#, "process.commandLine"),
            (r#"{"hooks": {"poststop": [{"path": "true"}]}}"#, "hooks"),
            (r#"{"hooks": {"poststop": [{"path": "/bin/true", "timeout": -1}]}}"#, "hooks"),
            (
                r#"{"linux": {"namespaces": [{"type": "user", "path": "/x"}], "uidMappings": []}}"#,
                "maps of ids",
            ),
            (r#"{"linux": {"sysctl": {"kernel.core_pattern": "x"}}}"#, "linux.sysctl"),
            (r#"{"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}"#, "linux.sysctl"),
            (r#"{"linux": {"intelRdt": {}}}"#, "linux.intelRdt"),
            (r#"{"linux": {"netDevices": {"eth0": {}}}}"#, "linux.netDevices without"),
            (
                r#"{"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "2-1"}}}"#,
                "linux.memoryPolicy",
            ),
            (r#"{"linux": {"timeOffsets": {"boottime": {"secs": 1}}}}"#, "linux.timeOffsets"),
            (r#"{"linux": {"resources": {"memory": {"kernel": 1}}}}"#, "memory.kernel"),
            (
                r#"{"mounts": [{"destination": "/x", "type": "bind", "options": ["tmpcopyup"]}]}"#,
                "tmpcopyup",
            ),
            (
                r#"{"mounts": [{"destination": "/x", "type": "tmpfs", "options": ["idmap"]}]}"#,
                "no bind mount",
            ),
            (
                r#"{"mounts": [{"destination": "/x", "type": "bind", "uidMappings": [{"hostID": 1, "containerID": 0, "size": 1}]}]}"#,
                "only one of users and groups",
            ),
        ] {
            let error = checked(change).unwrap_err().to_string();
            assert!(error.contains(name), "{change}: {error}");
        }
    }
}
