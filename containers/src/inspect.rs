//! What a container is made of, as docker's `inspect` has it.

use std::collections::BTreeMap;

use image::{ContainerConfig, Platform};
use runtime::{Mount, Restart};
use serde_json::{Value, json};

use crate::volume::Volumes;
use crate::{Container, Result};

impl Container {
    /// The program and its surroundings: docker's `Config`. `image` is the name to show.
    pub fn config_document(&self, image: &str) -> Value {
        config(self, image)
    }

    /// What it may use of this machine: docker's `HostConfig`.
    pub fn host_config_document(&self) -> Value {
        host_config(self)
    }

    /// Its mounts: docker's `Mounts`.
    ///
    /// # Errors
    /// A volume cannot be read.
    pub fn mount_documents(&self) -> Result<Vec<Value>> {
        mounts(self)
    }
}

/// What its image says; nothing where the image is gone.
fn of_image(container: &Container) -> ContainerConfig {
    let descriptor = container.row().image.as_ref();
    let image = descriptor.and_then(|one| container.store().image(one, &Platform::host()).ok());
    image.map(|image| image.config().config.clone()).unwrap_or_default()
}

/// The program and its surroundings, the image's and those asked for together.
fn config(container: &Container, image: &str) -> Value {
    let (record, base) = (container.record(), of_image(container));
    let process = &record.spec.process;
    let named = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let kept = base
        .env
        .iter()
        .filter(|line| !process.unset_all && !process.unset_env.contains(&named(line)));
    let mut env: BTreeMap<String, &String> = kept.map(|line| (named(line), line)).collect();
    env.extend(process.env.iter().map(|line| (named(line), line)));
    let mut labels = base.labels.clone();
    labels.extend(record.spec.lifecycle.labels.clone());
    let command = match (&process.entrypoint, &process.command[..]) {
        (None, []) => base.cmd.clone(),
        (Some(_), []) => None,
        (_, given) => Some(given.to_vec()),
    };
    json!({
        "Image": image, "Cmd": command,
        "Entrypoint": process.entrypoint.as_ref().or(base.entrypoint.as_ref()),
        "Env": env.into_values().collect::<Vec<_>>(),
        "User": process.user.as_ref().unwrap_or(&base.user),
        "WorkingDir": process.working_dir.as_ref().unwrap_or(&base.working_dir),
        "Labels": labels, "Tty": process.terminal, "OpenStdin": process.interactive,
        "ExposedPorts": base.exposed_ports, "Volumes": base.volumes,
        "Hostname": record.spec.network.hostname.as_deref().unwrap_or(&container.id()[..12]),
        "StopSignal": record.stop_signal().0, "StopTimeout": record.spec.lifecycle.stop_timeout,
    })
}

fn restart(policy: Restart) -> Value {
    let (name, times) = match policy {
        Restart::No => ("no", 0),
        Restart::OnFailure(times) => ("on-failure", times),
        Restart::Always => ("always", 0),
        Restart::UnlessStopped => ("unless-stopped", 0),
    };
    json!({ "Name": name, "MaximumRetryCount": times })
}

/// What it may use of this machine.
fn host_config(container: &Container) -> Value {
    let spec = &container.record().spec;
    let (limits, isolation) = (&spec.limits, &spec.isolation);
    json!({
        "NetworkMode": container.network_names().first(),
        "RestartPolicy": restart(spec.lifecycle.restart), "AutoRemove": spec.lifecycle.remove,
        "UsernsMode": if isolation.ids.is_some() { "private" } else { "host" },
        "Privileged": isolation.privileged, "ReadonlyRootfs": spec.files.read_only,
        "CapAdd": isolation.cap_add, "CapDrop": isolation.cap_drop, "Init": spec.process.init,
        "Memory": limits.memory.unwrap_or(0), "MemorySwap": limits.memory_swap.unwrap_or(0),
        "NanoCpus": limits.cpus.map_or(0, |cpus| (cpus * 1e9).round() as u64),
        "CpuShares": limits.cpu_shares.unwrap_or(0), "CpusetCpus": limits.cpuset_cpus,
        "PidsLimit": limits.pids_limit, "ShmSize": limits.shm_size.unwrap_or(64 << 20),
        "OomScoreAdj": limits.oom_score_adj.unwrap_or(0), "CgroupParent": limits.cgroup_parent,
        "ExtraHosts": spec.network.hosts.iter().map(|(name, at)| format!("{name}:{at}")).collect::<Vec<_>>(),
        "Dns": spec.network.dns.servers, "PublishAllPorts": spec.network.publish_all,
    })
}

fn mounts(container: &Container) -> Result<Vec<Value>> {
    let volumes = Volumes::new(container.store().clone());
    let mut all = Vec::new();
    for mounted in &container.record().volumes {
        let source = volumes.find(&mounted.volume)?.map(|volume| volume.path);
        all.push(json!({
            "Type": "volume", "Name": mounted.volume, "Source": source, "Driver": "local",
            "Destination": mounted.target, "RW": !mounted.read_only,
        }));
    }
    for mount in &container.record().spec.files.mounts {
        all.push(match mount {
            Mount::Bind { source, target, read_only, .. } => json!({
                "Type": "bind", "Source": source, "Destination": target, "RW": !read_only,
            }),
            Mount::Devpts { target, .. } => json!({
                "Type": "devpts", "Destination": target, "RW": true,
            }),
            Mount::Tmpfs { target, options } => json!({
                "Type": "tmpfs", "Destination": target, "Mode": options.join(","), "RW": true,
            }),
        });
    }
    let files = &container.record().spec.files;
    all.extend(files.overlays.iter().map(|overlay| {
        json!({
            "Type": "overlay", "Source": overlay.source, "Destination": overlay.target, "RW": true,
        })
    }));
    all.extend(files.images.iter().map(|mount| json!({
        "Type": "image", "Source": mount.image, "Destination": mount.target, "RW": mount.writable,
    })));
    Ok(all)
}
