//! The flags of a container written down again, for the provenance of a build.

use std::path::Path;

use runtime::{Namespace, Ulimit};

use super::shared::SharedFlags;
use super::values::Isolated;
use crate::config;
use crate::report::Failure;

impl SharedFlags {
    /// The same as arguments, wherever it is called; what is as usual is left out.
    ///
    /// # Errors
    /// The current directory cannot be found.
    pub(crate) fn arguments(&self) -> Result<Vec<String>, Failure> {
        let mut all = Vec::new();
        for (flag, values) in self.lists()? {
            all.extend(values.iter().map(|value| format!("--{flag}={value}")));
        }
        for (flag, value) in self.single() {
            all.extend(value.map(|value| format!("--{flag}={value}")));
        }
        all.extend(self.no_hosts.then(|| "--no-hosts".to_owned()));
        all.extend(self.no_hostname.then(|| "--no-hostname".to_owned()));
        Ok(all)
    }

    fn lists(&self) -> Result<[(&'static str, Vec<String>); 12], Failure> {
        let volumes = self.volume.iter().map(|text| placed(text, "", ":"));
        let security = self.security_opt.iter().map(|option| match option.as_str() {
            "seccomp=unconfined" => Ok(option.clone()),
            other => placed(other, "seccomp=", "\0"),
        });
        let limit = |limit: &Ulimit| format!("{}={}:{}", limit.name, limit.soft, limit.hard);
        Ok([
            ("add-host", self.add_host.clone()),
            ("dns", self.dns.clone()),
            ("dns-search", self.dns_search.clone()),
            ("dns-option", self.dns_option.clone()),
            ("volume", volumes.collect::<Result<_, _>>()?),
            ("device", self.device.clone()),
            ("ulimit", self.limits.ulimit.iter().map(limit).collect()),
            ("cap-add", self.cap_add.clone()),
            ("cap-drop", self.cap_drop.clone()),
            ("security-opt", security.collect::<Result<_, _>>()?),
            ("group-add", self.group_add.clone()),
            ("sysctl", self.sysctl.clone()),
        ])
    }

    fn single(&self) -> [(&'static str, Option<String>); 21] {
        let network = self.network.clone().filter(|name| !name.is_empty() && name != "default");
        let chroot = self.isolation == Some(Isolated::Chroot);
        [
            ("network", network),
            ("http-proxy", (self.http_proxy == Some(false)).then(|| "false".to_owned())),
            ("shm-size", text(self.limits.shm_size)),
            ("memory", text(self.limits.memory)),
            ("memory-swap", text(self.limits.memory_swap)),
            ("memory-reservation", text(self.limits.memory_reservation)),
            ("cpus", text(self.limits.cpus)),
            ("cpu-quota", text(self.limits.cpu_quota)),
            ("cpu-period", text(self.limits.cpu_period)),
            ("cpu-shares", text(self.limits.cpu_shares)),
            ("cpuset-cpus", self.limits.cpuset_cpus.clone()),
            ("cpuset-mems", self.limits.cpuset_mems.clone()),
            ("pids-limit", text(self.limits.pids_limit)),
            ("oom-score-adj", text(self.limits.oom_score_adj)),
            ("cgroup-parent", self.limits.cgroup_parent.clone()),
            ("pid", space(self.pid)),
            ("ipc", space(self.ipc)),
            ("uts", space(self.uts)),
            ("cgroupns", space(self.cgroupns)),
            ("userns", space(self.userns)),
            ("isolation", chroot.then(|| "chroot".to_owned())),
        ]
    }
}

fn text<T: ToString>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn space(namespace: Option<Namespace>) -> Option<String> {
    let word = |namespace| match namespace {
        Namespace::Private => "private",
        Namespace::Host => "host",
    };
    namespace.map(|namespace| word(namespace).to_owned())
}

/// The path after `prefix` and before `end` made absolute.
fn placed(text: &str, prefix: &str, end: &str) -> Result<String, Failure> {
    let Some(rest) = text.strip_prefix(prefix) else { return Ok(text.to_owned()) };
    let path = rest.split(end).next().unwrap_or_default();
    let whole = config::absolute(Path::new(path))?;
    Ok(format!("{prefix}{}{}", whole.display(), &rest[path.len()..]))
}
