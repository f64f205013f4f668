//! What a container may use of this machine, as docker's `inspect` has it: `HostConfig`.

use runtime::{
    BlockLimits, ContainerSpec, Ids, Isolation, Join, Limits, Mount, Namespace, Rate, Restart,
    Seccomp,
};
use serde_json::{Map, Value, json};

use crate::Container;
use crate::container_filter::policy;

impl Container {
    /// What it may use of this machine: docker's `HostConfig`.
    pub fn host_config_document(&self) -> Value {
        let spec = &self.record().spec;
        let parts = [
            life(self),
            isolation(&spec.isolation),
            limits(&spec.limits),
            block(&spec.limits.block),
            network(self, spec),
            files(self, spec),
        ];
        let mut all = Map::new();
        for part in parts {
            if let Value::Object(fields) = part {
                all.extend(fields);
            }
        }
        Value::Object(all)
    }
}

fn restart(wanted: Restart) -> Value {
    let times = match wanted {
        Restart::OnFailure(times) => times,
        _ => 0,
    };
    json!({ "Name": policy(wanted), "MaximumRetryCount": times })
}

fn life(container: &Container) -> Value {
    let record = container.record();
    let (process, life) = (&record.spec.process, &record.spec.lifecycle);
    let mut options = Map::new();
    options.extend(life.log.max_size.map(|size| ("max-size".to_owned(), json!(size.to_string()))));
    options
        .extend(life.log.max_files.map(|count| ("max-file".to_owned(), json!(count.to_string()))));
    json!({
        "RestartPolicy": restart(life.restart), "AutoRemove": life.remove,
        "Init": process.init, "GroupAdd": process.groups,
        "LogConfig": {
            "Type": if life.log.off { "none" } else { "json-file" }, "Config": options,
            "Path": if life.log.off { None } else { Some(container.directory().join("log")) },
            "Size": life.log.max_size.map_or("0B".to_owned(), |size| format!("{size}B")),
        },
        "Runtime": "rbuild", "Isolation": "default",
    })
}

/// docker's word for whose namespace it is in.
fn mode(namespace: Option<&Namespace>, private: &str) -> String {
    match namespace {
        Some(Namespace::Host) => "host".to_owned(),
        Some(Namespace::Join(Join::Container(name))) => format!("container:{name}"),
        Some(Namespace::Join(Join::Path(path))) => format!("ns:{}", path.display()),
        Some(Namespace::Shareable) => "shareable".to_owned(),
        Some(Namespace::None) => "none".to_owned(),
        Some(Namespace::Private) | None => private.to_owned(),
    }
}

fn user_namespace(ids: Option<&Ids>) -> String {
    match ids {
        None => "host".to_owned(),
        Some(Ids::Join(join)) => mode(Some(&Namespace::Join(join.clone())), ""),
        Some(Ids::Auto(_) | Ids::Maps(_)) => "private".to_owned(),
    }
}

fn isolation(isolation: &Isolation) -> Value {
    let mut security = Vec::new();
    if isolation.no_new_privileges == Some(true) {
        security.push("no-new-privileges".to_owned());
    }
    match &isolation.seccomp {
        Some(Seccomp::Unconfined) => security.push("seccomp=unconfined".to_owned()),
        Some(Seccomp::Profile(_)) => security.push("seccomp=profile".to_owned()),
        Some(Seccomp::Default) | None => {}
    }
    security.extend(isolation.apparmor.iter().map(|profile| format!("apparmor={profile}")));
    security.extend(isolation.mask.iter().map(|path| format!("mask={path}")));
    security.extend(isolation.unmask.iter().map(|path| format!("unmask={path}")));
    let devices = isolation.devices.iter().map(|device| {
        json!({
            "PathOnHost": device.source, "PathInContainer": device.target,
            "CgroupPermissions": device.access,
        })
    });
    let rules = isolation.device_rules.iter().map(ToString::to_string);
    json!({
        "Privileged": isolation.privileged, "CapAdd": isolation.cap_add,
        "CapDrop": isolation.cap_drop, "SecurityOpt": security,
        "UsernsMode": user_namespace(isolation.ids.as_ref()),
        "PidMode": mode(isolation.pid.as_ref(), ""), "IpcMode": mode(isolation.ipc.as_ref(), "private"),
        "UTSMode": mode(isolation.uts.as_ref(), ""), "CgroupnsMode": mode(isolation.cgroup.as_ref(), "private"),
        "CgroupMode": mode(isolation.cgroup.as_ref(), "private"),
        "Devices": devices.collect::<Vec<_>>(), "DeviceCgroupRules": rules.collect::<Vec<_>>(),
        "Sysctls": isolation.sysctls, "Annotations": isolation.annotations,
    })
}

fn limits(limits: &Limits) -> Value {
    let ulimits = limits.ulimits.iter().map(|limit| {
        let number = |value: u64| i64::try_from(value).unwrap_or(-1);
        json!({"Name": limit.name, "Soft": number(limit.soft), "Hard": number(limit.hard)})
    });
    let (period, time) = limits.cpu_realtime;
    json!({
        "Memory": limits.memory.unwrap_or(0), "MemorySwap": limits.memory_swap.unwrap_or(0),
        "MemoryReservation": limits.memory_reservation.unwrap_or(0),
        "MemorySwappiness": limits.memory_swappiness, "OomKillDisable": limits.oom_kill_disable,
        "OomScoreAdj": limits.oom_score_adj.unwrap_or(0),
        "NanoCpus": limits.cpus.map_or(0, |cpus| (cpus * 1e9).round() as u64),
        "CpuShares": limits.cpu_shares.unwrap_or(0), "CpuPeriod": limits.cpu_period.unwrap_or(0),
        "CpuQuota": limits.cpu_quota.unwrap_or(0), "CpuRealtimePeriod": period.unwrap_or(0),
        "CpuRealtimeRuntime": time.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or_default(),
        "PidsLimit": limits.pids_limit, "Ulimits": ulimits.collect::<Vec<_>>(),
        "ShmSize": limits.shm_size.unwrap_or(64 << 20),
        "CgroupParent": limits.cgroup_parent.as_deref().unwrap_or_default(),
        "CgroupConf": limits.unified,
    })
}

fn block(limits: &BlockLimits) -> Value {
    let all = |rates: &[Rate], name: &str| {
        let one = |rate: &Rate| {
            let path = format!("{}:{}", rate.device.major, rate.device.minor);
            json!({"Path": path, name: rate.rate})
        };
        rates.iter().map(one).collect::<Vec<_>>()
    };
    json!({
        "BlkioWeight": limits.weight.unwrap_or(0),
        "BlkioWeightDevice": all(&limits.weights, "Weight"),
        "BlkioDeviceReadBps": all(&limits.read_bytes, "Rate"),
        "BlkioDeviceWriteBps": all(&limits.write_bytes, "Rate"),
        "BlkioDeviceReadIOps": all(&limits.reads, "Rate"),
        "BlkioDeviceWriteIOps": all(&limits.writes, "Rate"),
    })
}

fn network(container: &Container, spec: &ContainerSpec) -> Value {
    let wanted = &spec.network;
    let mut ports = Map::new();
    for port in wanted.publish.iter().filter_map(|text| network::ports(text).ok()).flatten() {
        let key = format!("{}/{}", port.container, port.protocol.as_str());
        let place = json!({
            "HostIp": port.address.map(|address| address.to_string()).unwrap_or_default(),
            "HostPort": match port.machine {
                (0, _) => String::new(),
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}-{last}"),
            },
        });
        if let Value::Array(list) = ports.entry(key).or_insert_with(|| json!([])) {
            list.push(place);
        }
    }
    let hosts = wanted.hosts.iter().map(|(name, address)| format!("{name}:{address}"));
    json!({
        "NetworkMode": container.network_names().first(), "PortBindings": ports,
        "PublishAllPorts": wanted.publish_all, "ExtraHosts": hosts.collect::<Vec<_>>(),
        "Dns": wanted.dns.servers, "DnsOptions": wanted.dns.options,
        "DnsSearch": wanted.dns.search, "Links": [],
    })
}

fn files(container: &Container, spec: &ContainerSpec) -> Value {
    let mut binds = Vec::new();
    let mut memory = Map::new();
    for mounted in &container.record().volumes {
        let place = mounted.target.display();
        let mode = if mounted.read_only { ":ro" } else { "" };
        binds.push(format!("{}:{place}{mode}", mounted.volume));
    }
    for mount in &spec.files.mounts {
        match mount {
            Mount::Bind { source, target, read_only, .. } => {
                let mode = if *read_only { ":ro" } else { "" };
                binds.push(format!("{}:{}{mode}", source.display(), target.display()));
            }
            Mount::Tmpfs { target, options } => {
                memory.insert(target.display().to_string(), options.join(",").into());
            }
            Mount::Devpts { .. } => {}
        }
    }
    json!({
        "ReadonlyRootfs": spec.files.read_only, "Binds": binds, "Tmpfs": memory,
        "VolumeDriver": "", "VolumesFrom": [],
    })
}
