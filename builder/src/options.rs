//! What the commands of `RUN` get beyond what the Dockerfile says.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use runtime::Overrides;

/// The name commands see of the machine.
const HOSTNAME: &str = "rbuild";

/// How every command of `RUN` runs. Of all this only names decide what a command gives: those of
/// other machines and that of the container are part of its key, privileges and limits are not.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Capabilities, devices, limits, mounts and namespaces. Program, user, environment,
    /// directory and network are the Dockerfile's.
    pub base: Overrides,
    /// Directories of this machine that commands may write to without changing them.
    pub overlays: Vec<Overlay>,
    /// Names for `/etc/hosts`.
    pub hosts: Vec<(String, IpAddr)>,
    /// The image's own `/etc/hosts` is left alone.
    pub no_hosts: bool,
    /// The image's own `/etc/hostname` is left alone.
    pub no_hostname: bool,
    /// What stands in `/etc/resolv.conf`.
    pub dns: Dns,
    /// Whether commands read the standard input of this process.
    pub stdin: bool,
    /// All of this as whoever asked wrote it: kept with what a failing command leaves, and told by
    /// the provenance.
    pub flags: Vec<String>,
}

/// A directory of this machine under a layer that is thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Absolute path on this machine.
    pub source: PathBuf,
    /// Absolute path for the command.
    pub target: PathBuf,
}

/// What `/etc/resolv.conf` says instead of the machine's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// The image's own file is left alone.
    pub none: bool,
    /// `nameserver` lines.
    pub servers: Vec<IpAddr>,
    /// `search` domains; a lone `.` means none.
    pub search: Vec<String>,
    /// `options`.
    pub options: Vec<String>,
}

impl Dns {
    /// The file, made of the machine's; `None` where the image's is left alone.
    pub(crate) fn file(&self, machine: &[u8]) -> Option<Vec<u8>> {
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
        if !own.is_empty() && !file.is_empty() && !file.ends_with(b"\n") {
            file.push(b'\n');
        }
        file.extend_from_slice(own.as_bytes());
        Some(file)
    }
}

impl RunOptions {
    /// `/etc/hosts`; `None` where the image's is left alone.
    pub(crate) fn hosts_file(&self) -> Option<String> {
        if self.no_hosts {
            return None;
        }
        let mut hosts =
            String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        for (name, address) in &self.hosts {
            let _ = writeln!(hosts, "{address}\t{name}");
        }
        Some(hosts)
    }

    /// What commands call the machine.
    pub(crate) fn hostname(&self) -> &str {
        self.base.hostname.as_deref().unwrap_or(HOSTNAME)
    }

    /// The names that decide what commands give; empty as long as they are the usual ones.
    pub(crate) fn names(&self) -> String {
        let mut names = String::new();
        if self.no_hosts {
            names.push_str("\0nohosts");
        } else if !self.hosts.is_empty() {
            let _ = write!(names, "\0hosts{:?}", self.hosts);
        }
        if self.hostname() != HOSTNAME {
            let _ = write!(names, "\0hostname{:?}", self.hostname());
        }
        names
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
    fn names_decide_keys_and_privileges_do_not() {
        let mut options = RunOptions::default();
        options.base.cap_add.push("ALL".to_owned());
        options.dns.servers.push("9.9.9.9".parse().unwrap());
        assert_eq!(options.names(), "");
        options.hosts.push(("db".to_owned(), "10.0.0.2".parse().unwrap()));
        let one = options.names();
        options.base.hostname = Some("here".to_owned());
        let two = options.names();
        options.no_hosts = true;
        let three = options.names();
        assert!(!one.is_empty() && one != two && two != three);
        assert_eq!(options.hosts_file(), None);
    }
}
