//! Flags of `docker run` and `podman run` that there are not, each with the reason and what comes
//! nearest.

/// Flags and what to say of them.
const REFUSED: &[(&[&str], &str)] = &[
    (&["--gpus"], "CDI device names are not supported; pass each device with --device"),
    (
        &["--link"],
        "put both containers on a network by --network; they find each other by name there",
    ),
    (&["--link-local-ip"], "--ip and --ip6 give an address of a named network"),
    (
        &["--log-driver", "--log-opt"],
        "the output of a container is stored as lines of JSON; `rbuild logs` reads it",
    ),
    (&["--volume-driver"], "volumes are directories of the store"),
    (&["--storage-opt"], "a container has no quota; limit the file system of the store"),
    (
        &[
            "--health-cmd",
            "--health-interval",
            "--health-retries",
            "--health-start-period",
            "--health-start-interval",
            "--health-timeout",
            "--health-on-failure",
            "--healthcheck-command",
        ],
        "health checks are not run; `rbuild exec` in a timer does the same",
    ),
    (&["--sdnotify"], "readiness is not reported to systemd; start the container in a unit"),
    (&["--systemd"], "mount what an init needs: --tmpfs /run --tmpfs /tmp"),
    (&["--pod", "--pod-id-file"], "there are no pods; share namespaces by --network"),
    (&["--secret"], "secrets are for `rbuild bud`; mount a file read-only"),
    (&["--rootfs"], "make an image of it: `rbuild bud` with COPY"),
    (
        &["--uidmap", "--gidmap", "--subuidname", "--subgidname"],
        "ids are those of this program; run it as an ordinary user to have them mapped",
    ),
    (&["--device-cgroup-rule"], "pass each device with --device"),
    (
        &[
            "--blkio-weight",
            "--blkio-weight-device",
            "--device-read-bps",
            "--device-write-bps",
            "--device-read-iops",
            "--device-write-iops",
        ],
        "rates of block devices are not limited",
    ),
    (
        &["--kernel-memory", "--memory-swappiness", "--oom-kill-disable"],
        "the kernel no longer has this limit; use --memory and --memory-swap",
    ),
    (
        &["--cpu-rt-period", "--cpu-rt-runtime"],
        "real-time scheduling is not supported; use --cpus and --cpu-shares",
    ),
    (&["--cgroup-conf", "--cgroups"], "limits are set by their own flags, such as --memory"),
    (&["--label-file"], "pass each label with --label"),
    (&["--attach", "-a"], "output is shown unless --detach is given, input by --interactive"),
    (&["--sig-proxy"], "signals are always forwarded; use --detach to prevent that"),
    (&["--domainname"], "put the domain into --hostname"),
    (&["--disable-content-trust"], "policy.json decides which images are trusted"),
    (&["--cpu-count", "--cpu-percent", "--io-maxbandwidth", "--io-maxiops"], "it is for Windows"),
];

/// Why a flag is refused, and the nearest alternative; `None` for an unknown flag.
pub(crate) fn reason(flag: &str) -> Option<&'static str> {
    let flag = flag.split('=').next().unwrap_or(flag);
    let found = REFUSED.iter().find(|(flags, _)| flags.contains(&flag));
    found.map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_is_refused_twice() {
        let all: Vec<&str> = REFUSED.iter().flat_map(|(flags, _)| flags.iter().copied()).collect();
        let mut once = all.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), all.len());
        assert!(reason("--gpus=all").is_some() && reason("--rm").is_none());
    }
}
