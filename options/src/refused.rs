//! Flags of `docker run` and `podman run` that there are not, each with the reason and what comes
//! nearest.

/// Flags and what to say of them.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["--link"],
        "put both containers on a network by --network; they find each other by name there",
    ),
    (&["--link-local-ip"], "--ip and --ip6 give an address of a named network"),
    (&["--volume-driver"], "volumes are directories of the store"),
    (
        &[
            "--health-startup-cmd",
            "--health-startup-interval",
            "--health-startup-retries",
            "--health-startup-success",
            "--health-startup-timeout",
        ],
        "use --health-start-period and --health-start-interval",
    ),
    (
        &["--health-log-destination", "--health-max-log-count", "--health-max-log-size"],
        "the last five checks are kept with the container; `rbuild inspect` shows them",
    ),
    (&["--systemd"], "mount what an init needs: --tmpfs /run --tmpfs /tmp"),
    (
        &["--pod", "--pod-id-file", "--infra-name", "--init-ctr"],
        "there are no pods; share namespaces by --network",
    ),
    (&["--secret"], "secrets are for `rbuild bud`; mount a file read-only"),
    (&["--kernel-memory"], "the kernel no longer has this limit; use --memory and --memory-swap"),
    (&["--cgroups"], "limits are set by their own flags, such as --memory"),
    (&["--disable-content-trust"], "policy.json decides which images are trusted"),
    (&["--cpu-count", "--cpu-percent", "--io-maxbandwidth", "--io-maxiops"], "it is for Windows"),
    (&["--chrootdirs"], "add what the program needs with --volume"),
    (&["--decryption-key"], "layers are not decrypted; decrypt the image with skopeo"),
    (&["--group-entry", "--passwd-entry", "--passwd"], "the user databases are the image's"),
    (&["--hostuser"], "run as a number with --user"),
    (&["--init-path"], "--init has its own init"),
    (&["--rdt-class"], "cache allocation is not supported; use --cpuset-cpus"),
    (&["--retry", "--retry-delay"], "a pull is tried again three times; pull first to try longer"),
    (&["--seccomp-policy"], "name the profile: --security-opt seccomp=FILE"),
    (&["--shm-size-systemd"], "use --shm-size"),
    (&["--use-api-socket"], "mount the socket with --volume"),
];

/// Commands of buildah, docker and podman that there are not.
const COMMANDS: &[(&str, &str)] = &[
    ("artifact", "`rcopy artifact` pushes, pulls and lists artifacts"),
    ("auto-update", "pull the image again, then replace the container"),
    ("checkpoint", "containers are not frozen to disk; `pause` freezes one in memory"),
    ("cleanup", "what a container leaves is removed when it ends"),
    ("clone", "run the image again; `commit` makes an image of the container's files"),
    ("compose", "`rbuild bake -f compose.yaml` builds its images; run each service by itself"),
    ("connection", "there is no daemon to connect to"),
    ("context", "there is no daemon to connect to"),
    ("farm", "`rbuild bud --platform` builds for other machines on this one"),
    ("generate", "`rbuild system generator` makes units of Quadlet files"),
    ("init", "`start` makes ready and starts in one step"),
    ("kube", "run each container with `rbuild run`, in one network"),
    ("machine", "commands run on this machine; there is no virtual machine"),
    ("migrate", "newer programs read older stores as they are"),
    ("mkcw", "images for confidential machines are not made"),
    ("mount", "`rbuild cp` and `rbuild export` read the files of containers"),
    ("node", "there is no swarm"),
    ("play", "run each container with `rbuild run`, in one network"),
    ("plugin", "there are no plugins"),
    ("pod", "there are no pods; share namespaces by --network"),
    ("reload", "`restart` connects a container again"),
    ("renumber", "there are no lock numbers"),
    ("reset", "`rbuild rm -fa` and `rbuild rmi -fa` empty the store"),
    ("restore", "containers are not frozen to disk; `unpause` wakes a paused one"),
    ("rpc", "each command works by itself"),
    ("runlabel", "read the label with `inspect`, and run what it says"),
    ("scan", "`rbuild sbom` lists what an image contains"),
    ("scout", "`rbuild sbom` lists what an image contains"),
    ("scp", "`rbuild save` and `rbuild load` with ssh between them"),
    ("search", "`rcopy catalog` and `rcopy list-tags` show what a registry has"),
    ("secret", "secrets are for `rbuild bud`; mount a file read-only"),
    ("service", "there is no daemon: each command works by itself"),
    ("source", "`rcopy artifact push` and `pull` move source archives to and from registries"),
    ("stack", "there is no swarm"),
    ("swarm", "there is no swarm"),
    ("tree", "`rbuild history` shows the layers of an image"),
    ("umount", "nothing is mounted for it"),
    ("unmount", "nothing is mounted for it"),
];

/// Why a command is refused, and the nearest alternative; `None` for an unknown command.
pub fn command(name: &str) -> Option<&'static str> {
    COMMANDS.iter().find(|(known, _)| *known == name).map(|(_, why)| *why)
}

/// Why a flag is refused, and the nearest alternative; `None` for an unknown flag.
pub fn reason(flag: &str) -> Option<&'static str> {
    let flag = flag.split('=').next().unwrap_or(flag);
    let found = REFUSED.iter().find(|(flags, _)| flags.contains(&flag));
    found.map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_in_order_and_each_once() {
        let names: Vec<&str> = COMMANDS.iter().map(|(name, _)| *name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }

    #[test]
    fn no_flag_is_refused_twice() {
        let all: Vec<&str> = REFUSED.iter().flat_map(|(flags, _)| flags.iter().copied()).collect();
        let mut once = all.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), all.len());
        assert!(reason("--link=a").is_some() && reason("--rm").is_none());
    }
}
