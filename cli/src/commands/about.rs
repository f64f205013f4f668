//! `version`, `info`, `completion`.

use clap::Args;
use serde_json::{Value, json};

use crate::app::App;
use crate::format;
use options::Failure;

/// Show the version
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Format the output with a Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print JSON as buildah does
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl Version {
    /// Shows.
    ///
    /// # Errors
    /// A bad template.
    pub(crate) fn run(self, program: &str) -> Result<u8, Failure> {
        let value = json!({
            "Program": program, "Version": env!("CARGO_PKG_VERSION"),
            "OsArch": image::Platform::host().to_string(),
            "Client": part(program), "Server": part(program),
        });
        if self.json {
            outln!(
                "{:#}",
                json!({
                    "version": env!("CARGO_PKG_VERSION"), "osArch": value["OsArch"],
                    "imageSpec": "1.1.1", "runtimeSpec": "1.2.1",
                })
            );
            return Ok(0);
        }
        match self.format.as_deref() {
            None => outln!("{program} {} {}", env!("CARGO_PKG_VERSION"), image::Platform::host()),
            Some("json") => outln!("{value:#}"),
            Some(template) => outln!("{}", format::template(template, &value)?),
        }
        Ok(0)
    }
}

/// One side of `docker version`: client and server are this program.
fn part(program: &str) -> Value {
    let host = image::Platform::host();
    json!({
        "Name": program, "Version": env!("CARGO_PKG_VERSION"),
        "Os": host.os, "Arch": host.architecture,
    })
}

/// Show what rbuild detects on this machine
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Format the output with a Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Info {
    /// Shows.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let value = self.gather(app)?;
        match self.format.as_deref() {
            Some("json") => outln!("{value:#}"),
            Some(template) => outln!("{}", format::template(template, &in_go(value))?),
            None => {
                for (section, fields) in value.as_object().into_iter().flatten() {
                    outln!("{section}:");
                    for (name, value) in fields.as_object().into_iter().flatten() {
                        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                        outln!("  {name:<18} {text}");
                    }
                }
            }
        }
        Ok(0)
    }

    fn gather(&self, app: &App) -> Result<Value, Failure> {
        let store = app.store()?;
        let authentication = app.paths.auth_files(app.globals.authfile.as_deref());
        let policy = app.paths.policy(app.globals.policy.as_deref());
        let root = store.path();
        let (images, containers) = (store.published()?.len(), store.containers()?.len());
        Ok(json!({
            "host": host(),
            "store": {
                "root": root,
                "images": images,
                "containers": containers,
                "GraphDriverName": "overlay",
                "GraphOptions": [],
                "GraphRoot": root,
                "GraphStatus": {},
                "RunRoot": root,
                "VolumePath": root.join("volumes"),
                "ImageStore": {"number": images},
                "ContainerStore": {"number": containers},
            },
            "configuration": {
                "credentials": authentication,
                "policy": policy,
            },
        }))
    }
}

/// The machine, in our words and in those of buildah and podman.
fn host() -> Value {
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
        "OCIRuntime": "built-in",
        "Distribution": {"distribution": of_release("ID"), "version": of_release("VERSION_ID")},
    })
}

/// With the names that templates for `podman info` and `docker info` have for the same.
fn in_go(mut value: Value) -> Value {
    let (host, store) = (value["host"].clone(), value["store"].clone());
    let version = env!("CARGO_PKG_VERSION");
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
