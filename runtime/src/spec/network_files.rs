//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`: written in one place for every container.

use std::fmt::Write;

use super::container_spec::{Dns, NetworkSpec};

/// What the machine has, as far as the container is to see it.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineFiles<'a> {
    /// The machine's `/etc/hosts`; without it the container's names only itself.
    pub hosts: &'a str,
    /// The machine's `/etc/resolv.conf`.
    pub resolv_conf: &'a [u8],
}

/// The files of one container. What is `None` stays the image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkFiles {
    /// `/etc/hosts`
    pub hosts: Option<String>,
    /// `/etc/hostname`
    pub hostname: Option<String>,
    /// `/etc/resolv.conf`
    pub resolv_conf: Option<Vec<u8>>,
}

impl NetworkSpec {
    /// The files of a container on this machine. It finds itself by `own` names in `hosts`, and
    /// goes by the host name.
    pub fn files(
        &self,
        machine: MachineFiles<'_>,
        hostname: &str,
        own: &[(&str, std::net::IpAddr)],
    ) -> NetworkFiles {
        NetworkFiles {
            hosts: (!self.no_hosts).then(|| self.hosts_file(machine.hosts, own)),
            hostname: (!self.no_hostname).then(|| format!("{hostname}\n")),
            resolv_conf: self.dns.file(machine.resolv_conf),
        }
    }

    fn hosts_file(&self, machine: &str, own: &[(&str, std::net::IpAddr)]) -> String {
        let mut hosts = match machine {
            "" => "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned(),
            machine => machine.to_owned(),
        };
        if !hosts.ends_with('\n') {
            hosts.push('\n');
        }
        let asked = self.hosts.iter().map(|(name, address)| (name.as_str(), *address));
        for (name, address) in own.iter().copied().chain(asked) {
            let _ = writeln!(hosts, "{address}\t{name}");
        }
        hosts
    }
}

impl Dns {
    /// The file, made from the machine's; `None` if the image's stays.
    fn file(&self, machine: &[u8]) -> Option<Vec<u8>> {
        if self.none {
            return None;
        }
        let replaced = [
            ("nameserver", !self.servers.is_empty()),
            ("search", !self.search.is_empty()),
            ("domain", !self.search.is_empty()),
            ("options", !self.options.is_empty()),
        ];
        let kept = |line: &&[u8]| {
            let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
            !replaced.iter().any(|(name, replaced)| *replaced && word == name.as_bytes())
        };
        let mut file = Vec::with_capacity(machine.len());
        for line in machine.split_inclusive(|byte| *byte == b'\n').filter(kept) {
            file.extend_from_slice(line);
        }
        let own = self.lines();
        if !own.is_empty() && !file.is_empty() && !file.ends_with(b"\n") {
            file.push(b'\n');
        }
        file.extend_from_slice(own.as_bytes());
        Some(file)
    }

    fn lines(&self) -> String {
        let mut own = String::new();
        for server in &self.servers {
            let _ = writeln!(own, "nameserver {server}");
        }
        if !self.search.is_empty() && self.search != ["."] {
            let _ = writeln!(own, "search {}", self.search.join(" "));
        }
        if !self.options.is_empty() {
            let _ = writeln!(own, "options {}", self.options.join(" "));
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_the_machines_with_what_was_asked_for() {
        let machine = b"# mine\nnameserver 10.0.0.1\nsearch a.example\noptions rotate";
        let text = |dns: Dns| dns.file(machine).map(|file| String::from_utf8(file).unwrap());
        assert_eq!(text(Dns::default()).unwrap().as_bytes(), machine);
        let servers = vec!["9.9.9.9".parse().unwrap()];
        assert_eq!(
            text(Dns { servers, ..Dns::default() }).unwrap(),
            "# mine\nsearch a.example\noptions rotate\nnameserver 9.9.9.9\n"
        );
        let search = vec![".".to_owned()];
        let options = vec!["ndots:2".to_owned(), "timeout:1".to_owned()];
        assert_eq!(
            text(Dns { search, options, ..Dns::default() }).unwrap(),
            "# mine\nnameserver 10.0.0.1\noptions ndots:2 timeout:1\n"
        );
        assert_eq!(text(Dns { none: true, ..Dns::default() }), None);
    }

    #[test]
    fn hosts_begin_with_the_machines_and_name_the_container() {
        let spec = NetworkSpec {
            hosts: vec![("db".to_owned(), [10, 0, 0, 2].into())],
            no_hostname: true,
            ..NetworkSpec::default()
        };
        let machine = MachineFiles { hosts: "10.0.0.9\tmachine", resolv_conf: b"" };
        let files = spec.files(machine, "me", &[("me", [127, 0, 0, 1].into())]);
        let hosts = files.hosts.unwrap();
        assert_eq!(hosts, "10.0.0.9\tmachine\n127.0.0.1\tme\n10.0.0.2\tdb\n");
        assert_eq!(files.hostname, None);
        let spec = NetworkSpec { no_hosts: true, ..NetworkSpec::default() };
        let files = spec.files(MachineFiles::default(), "me", &[]);
        assert_eq!((files.hosts, files.hostname), (None, Some("me\n".to_owned())));
    }
}
