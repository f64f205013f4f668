//! What is known of the machine.

use serde_json::{Value, json};

/// The machine, in our words and in those of buildah and podman.
pub fn host_document() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let there = |path: &str| std::path::Path::new(path).exists();
    let (unified, hybrid) =
        (there("/sys/fs/cgroup/cgroup.controllers"), there("/sys/fs/cgroup/unified"));
    let cgroups = match (unified, hybrid) {
        (true, _) => "v2",
        (false, true) => "hybrid (v1 controllers, v2 hierarchy)",
        (false, false) => "v1",
    };
    let memory = read("/proc/meminfo");
    let bytes = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.map_or(0, |kilobytes| kilobytes * 1024)
    };
    let release = read("/etc/os-release");
    let of_release = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let uptime = read("/proc/uptime");
    let uptime = uptime.split('.').next().and_then(|text| text.parse::<u64>().ok());
    let platform = image::Platform::host();
    json!({
        "platform": platform.to_string(),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpus": std::thread::available_parallelism().map_or(1, usize::from),
        "cgroups": cgroups,
        "rootless": runtime::in_user_namespace(),
        "singleId": runtime::single_id(),
        "arch": platform.architecture,
        "os": platform.os,
        "variant": platform.variant.unwrap_or_default(),
        "hostname": read("/proc/sys/kernel/hostname"),
        "uptime": format!("{}s", uptime.unwrap_or(0)),
        "MemTotal": bytes("MemTotal"),
        "MemFree": bytes("MemAvailable"),
        "SwapTotal": bytes("SwapTotal"),
        "SwapFree": bytes("SwapFree"),
        "CgroupVersion": if unified { "v2" } else { "v1" },
        "OCIRuntime": "rbuild",
        "Distribution": {"distribution": of_release("ID"), "version": of_release("VERSION_ID")},
    })
}

/// With the names that templates for `podman info` and `docker info` have for the same.
pub fn info_of_engines(mut value: Value, version: &str) -> Value {
    let (host, store) = (value["host"].clone(), value["store"].clone());
    value["Host"] = json!({
        "Arch": host["arch"], "OS": host["os"], "CPUs": host["cpus"], "Kernel": host["kernel"],
        "Hostname": host["hostname"], "MemTotal": host["MemTotal"], "MemFree": host["MemFree"],
        "SwapTotal": host["SwapTotal"], "SwapFree": host["SwapFree"], "Uptime": host["uptime"],
        "CgroupsVersion": host["CgroupVersion"], "CgroupManager": "cgroupfs",
        "OCIRuntime": {"Name": host["OCIRuntime"]}, "Security": {"Rootless": host["rootless"]},
        "Distribution": {"Distribution": host["Distribution"]["distribution"],
            "Version": host["Distribution"]["version"]},
    });
    value["Store"] = json!({
        "GraphRoot": store["GraphRoot"], "GraphDriverName": store["GraphDriverName"],
        "RunRoot": store["RunRoot"], "VolumePath": store["VolumePath"],
        "ImageStore": {"Number": store["images"]},
        "ContainerStore": {"Number": store["containers"]},
    });
    value["Version"] = json!({"Version": version, "OsArch": host["platform"]});
    for (docker, known) in [
        ("Architecture", "arch"),
        ("OSType", "os"),
        ("NCPU", "cpus"),
        ("MemTotal", "MemTotal"),
        ("Name", "hostname"),
        ("KernelVersion", "kernel"),
    ] {
        value[docker] = host[known].clone();
    }
    value["ServerVersion"] = version.into();
    value["Driver"] = store["GraphDriverName"].clone();
    value["DockerRootDir"] = store["GraphRoot"].clone();
    value["Images"] = store["images"].clone();
    value["Containers"] = store["containers"].clone();
    value
}
