//! What commands get of this machine beyond the sandbox of a build.

use std::fmt;
use std::path::PathBuf;

use network::Uplink;
use runtime::{
    ContainerSpec, Files, Isolation, Join, Limits, Mount, Namespace, NetworkSpec, Seccomp,
};

use crate::Network;

/// One thing that commands of `RUN` get beyond the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Everything the machine has.
    Privileged,
    /// A capability, with or without `CAP_`, or `ALL`.
    Capability(String),
    /// Another filter of system calls than the default.
    SystemCalls,
    /// This AppArmor profile instead of the default.
    AppArmor(String),
    /// A path below `/proc` or `/sys` that is usually hidden or read-only, or `ALL`.
    Unmask(String),
    /// A namespace of the machine: `pid`, `ipc`, `uts` or `cgroup`.
    Namespace(&'static str),
    /// No namespaces of their own.
    Chroot,
    /// A kernel parameter.
    Sysctl(String),
    /// A device, by its path on the machine.
    Device(PathBuf),
    /// An annotation for the runtime.
    RuntimeAnnotation(String),
    /// A place among the control groups of the machine.
    CgroupParent(String),
    /// A score that lets the kernel kill others first.
    OomScore(i32),
    /// A file or directory of the machine.
    Mount {
        /// The path on the machine.
        source: PathBuf,
        /// The path in the container.
        target: PathBuf,
        /// Whether writing is refused.
        read_only: bool,
    },
    /// A directory of the machine, to which nothing is written.
    Overlay {
        /// The path on the machine.
        source: PathBuf,
        /// The path in the container.
        target: PathBuf,
    },
    /// A volume, by its path in the container.
    Volume(PathBuf),
    /// The owner of this path of the machine changes.
    Owner(PathBuf),
    /// The network of the machine.
    HostNetwork,
    /// The network of another container, or the namespace at a path.
    JoinedNetwork(String),
    /// A named network, with the containers on it.
    NamedNetwork(String),
    /// The services on the loopback device of the machine, under this name.
    Loopback(String),
    /// A port of the machine.
    Port(String),
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grant::Privileged => f.write_str("all privileges"),
            Grant::Capability(name) => write!(f, "the capability {name}"),
            Grant::SystemCalls => f.write_str("another filter of system calls"),
            Grant::AppArmor(profile) => write!(f, "the AppArmor profile {profile}"),
            Grant::Unmask(path) => write!(f, "the protected path {path}"),
            Grant::Namespace(name) => write!(f, "the {name} namespace of the machine"),
            Grant::Chroot => f.write_str("no namespaces of their own"),
            Grant::Sysctl(name) => write!(f, "the kernel parameter {name}"),
            Grant::Device(path) => write!(f, "the device {}", path.display()),
            Grant::RuntimeAnnotation(key) => write!(f, "the runtime annotation {key}"),
            Grant::CgroupParent(path) => write!(f, "the control group {path}"),
            Grant::OomScore(score) => write!(f, "the out-of-memory score {score}"),
            Grant::Mount { source, target, .. } | Grant::Overlay { source, target } => {
                write!(f, "{} at {}", source.display(), target.display())
            }
            Grant::Volume(target) => write!(f, "a volume at {}", target.display()),
            Grant::Owner(path) => write!(f, "the ownership of {}", path.display()),
            Grant::HostNetwork => f.write_str("the network of the machine"),
            Grant::JoinedNetwork(whose) => write!(f, "the network of {whose}"),
            Grant::NamedNetwork(name) => write!(f, "the network {name}"),
            Grant::Loopback(name) => write!(f, "the loopback services of the machine as {name}"),
            Grant::Port(port) => write!(f, "the port {port} of the machine"),
        }
    }
}

/// What these options give commands beyond the sandbox. Limits, names and everything that takes
/// something away give nothing.
pub fn grants(run: &ContainerSpec, network: Network) -> Vec<Grant> {
    // The process is the Dockerfile's, and the life of the container is the build's.
    let ContainerSpec { process: _, isolation, limits, files, network: names, lifecycle: _ } = run;
    let mut grants = isolated(isolation);
    grants.extend(limited(limits));
    grants.extend(seen(files));
    if network == Network::Host {
        grants.push(Grant::HostNetwork);
    }
    grants.extend(reached(names));
    grants
}

fn isolated(isolation: &Isolation) -> Vec<Grant> {
    let Isolation {
        privileged,
        cap_add,
        cap_drop: _,
        no_new_privileges: _,
        seccomp,
        apparmor,
        mask: _,
        unmask,
        pid,
        ipc,
        uts,
        ids: _,
        user: _,
        cgroup,
        chroot,
        sysctls,
        devices,
        device_rules,
        personality: _,
        annotations,
        user_namespace: _,
    } = isolation;
    let mut grants = Vec::new();
    grants.extend(privileged.then_some(Grant::Privileged));
    grants.extend(cap_add.iter().cloned().map(Grant::Capability));
    let usual = matches!(seccomp, None | Some(Seccomp::Default));
    grants.extend((!usual).then_some(Grant::SystemCalls));
    grants.extend(apparmor.iter().cloned().map(Grant::AppArmor));
    grants.extend(unmask.iter().cloned().map(Grant::Unmask));
    for (name, namespace) in [("pid", pid), ("ipc", ipc), ("uts", uts), ("cgroup", cgroup)] {
        grants.extend(
            matches!(namespace, Some(Namespace::Host | Namespace::Join(_)))
                .then_some(Grant::Namespace(name)),
        );
    }
    grants.extend(chroot.then_some(Grant::Chroot));
    grants.extend(sysctls.keys().cloned().map(Grant::Sysctl));
    grants.extend(devices.iter().map(|device| Grant::Device(device.source.clone())));
    grants.extend(device_rules.iter().map(|rule| Grant::Device(rule.to_string().into())));
    grants.extend(annotations.keys().cloned().map(Grant::RuntimeAnnotation));
    grants
}

fn limited(limits: &Limits) -> Vec<Grant> {
    let Limits {
        memory: _,
        memory_swap: _,
        memory_reservation: _,
        cpus: _,
        cpu_quota: _,
        cpu_period: _,
        cpu_shares: _,
        cpuset_cpus: _,
        cpuset_mems: _,
        pids_limit: _,
        ulimits: _,
        oom_score_adj,
        shm_size: _,
        cgroup_parent,
        block: _,
        memory_swappiness: _,
        oom_kill_disable: _,
        cpu_realtime: _,
        unified: _,
    } = limits;
    let score = oom_score_adj.filter(|score| *score < 0).map(Grant::OomScore);
    score.into_iter().chain(cgroup_parent.clone().map(Grant::CgroupParent)).collect()
}

fn seen(files: &Files) -> Vec<Grant> {
    // No Dockerfile and no flag of a build names images to mount whole.
    let Files {
        read_only: _,
        mounts,
        volumes,
        overlays,
        images: _,
        given,
        rootfs: _,
        image_volumes: _,
    } = files;
    let mount = |mount: &Mount| match mount {
        Mount::Bind { source, target, read_only, .. } => Some(Grant::Mount {
            source: source.clone(),
            target: target.clone(),
            read_only: *read_only,
        }),
        Mount::Tmpfs { .. } | Mount::Devpts { .. } => None,
    };
    let mut grants: Vec<Grant> = mounts.iter().filter_map(mount).collect();
    grants.extend(volumes.iter().map(|volume| Grant::Volume(volume.target.clone())));
    grants.extend(overlays.iter().map(|overlay| Grant::Overlay {
        source: overlay.source.clone(),
        target: overlay.target.clone(),
    }));
    grants.extend(given.iter().cloned().map(Grant::Owner));
    grants
}

fn reached(network: &NetworkSpec) -> Vec<Grant> {
    let NetworkSpec {
        mode: _,
        join,
        networks,
        hostname: _,
        domainname: _,
        publish,
        publish_all,
        expose: _,
        hosts,
        no_hosts: _,
        hosts_file,
        no_hostname: _,
        dns: _,
        http_proxy: _,
    } = network;
    let mut grants = Vec::new();
    grants.extend(join.as_ref().map(|join| match join {
        Join::Container(name) => Grant::JoinedNetwork(name.clone()),
        Join::Path(path) => Grant::JoinedNetwork(path.display().to_string()),
    }));
    grants.extend(networks.iter().map(|one| Grant::NamedNetwork(one.network.clone())));
    let machine = hosts.iter().filter(|(_, address)| *address == Uplink::MACHINE);
    grants.extend(machine.map(|(name, _)| Grant::Loopback(name.clone())));
    let file = hosts_file.iter().filter(|path| *path != std::path::Path::new("none"));
    grants.extend(file.map(|path| Grant::Mount {
        source: path.clone(),
        target: "/etc/hosts".into(),
        read_only: true,
    }));
    grants.extend(publish.iter().cloned().map(Grant::Port));
    grants.extend(publish_all.then(|| Grant::Port("of any number".to_owned())));
    grants
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(spec: serde_json::Value) -> Vec<Grant> {
        let spec: ContainerSpec = serde_json::from_value(spec).expect("a specification");
        grants(&spec, Network::Default)
    }

    #[test]
    fn limits_names_and_restrictions_open_nothing() {
        for harmless in [
            json!({}),
            json!({"limits": {"memory": 1, "pids_limit": 5, "oom_score_adj": 5, "shm_size": 9}}),
            json!({"isolation": {"cap_drop": ["ALL"], "no_new_privileges": true, "mask": ["/x"]}}),
            json!({"isolation": {"pid": "private", "uts": "private"}}),
            json!({"network": {"hosts": [["db", "10.0.0.1"]], "no_hosts": true, "http_proxy": false}}),
            json!({"process": {"groups": ["7"]}}),
        ] {
            assert_eq!(of(harmless.clone()), [], "{harmless}");
        }
    }

    #[test]
    fn what_opens_the_sandbox_is_named() {
        let mount = json!({"bind": {"source": "/", "target": "/host", "read_only": true,
            "recursive": true, "propagation": "private"}});
        let device = json!({"source": "/dev/sda", "target": "/dev/sda", "block": true, "major": 8,
            "minor": 0, "access": "rwm"});
        for (spec, named) in [
            (json!({"isolation": {"privileged": true}}), "all privileges"),
            (json!({"isolation": {"cap_add": ["ALL"]}}), "the capability ALL"),
            (json!({"isolation": {"seccomp": "unconfined"}}), "another filter of system calls"),
            (json!({"isolation": {"unmask": ["ALL"]}}), "the protected path ALL"),
            (json!({"isolation": {"pid": "host"}}), "the pid namespace of the machine"),
            (json!({"isolation": {"chroot": true}}), "no namespaces of their own"),
            (json!({"isolation": {"devices": [device]}}), "the device /dev/sda"),
            (json!({"limits": {"cgroup_parent": "/"}}), "the control group /"),
            (json!({"limits": {"oom_score_adj": -1}}), "the out-of-memory score -1"),
            (json!({"files": {"mounts": [mount]}}), "/ at /host"),
            (json!({"network": {"join": {"container": "db"}}}), "the network of db"),
            (
                json!({"network": {"hosts": [["me", Uplink::MACHINE]]}}),
                "the loopback services of the machine as me",
            ),
        ] {
            let grants = of(spec.clone());
            let texts: Vec<_> = grants.iter().map(ToString::to_string).collect();
            assert_eq!(texts, [named], "{spec}");
        }
        let network = grants(&ContainerSpec::default(), Network::Host);
        assert_eq!(network, [Grant::HostNetwork]);
    }
}
