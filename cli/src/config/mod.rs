//! Finds configuration: flags win over environment variables, those over the user's files, those
//! over the machine's. The crates that own a format parse it; this module only knows where it is.

pub(crate) use self::lookaside::Servers;
pub(crate) use self::machine::{docker_host, scratch};
pub(crate) use self::registries::{RegistriesFlags, meanings};

mod containers;
mod lookaside;
mod machine;
mod registries;

use std::env;
use std::path::{Path, PathBuf};

use crate::report::Failure;

/// Where things are for this user on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    home: PathBuf,
    /// Where choices of short names are kept, if not in the usual place.
    pub chosen: Option<PathBuf>,
    /// Whether this is an ordinary user's process, made root of its own user namespace.
    pub rootless: bool,
}

impl Places {
    /// Reads the environment.
    pub(crate) fn find(rootless: bool) -> Places {
        let home = path("HOME").unwrap_or_else(|| PathBuf::from("/root"));
        Places { home, chosen: None, rootless }
    }

    /// The image store: `$RBUILD_ROOT`, or the machine's for root, or the user's.
    pub(crate) fn store(&self) -> PathBuf {
        let default = || match self.rootless {
            false => PathBuf::from("/var/lib/rbuild"),
            true => self.data().join("rbuild"),
        };
        path("RBUILD_ROOT").unwrap_or_else(default)
    }

    fn data(&self) -> PathBuf {
        path("XDG_DATA_HOME").unwrap_or_else(|| self.home.join(".local/share"))
    }

    /// Where Docker's client keeps what is its user's.
    fn docker(&self) -> PathBuf {
        path("DOCKER_CONFIG").unwrap_or_else(|| self.home.join(".docker"))
    }

    fn config(&self) -> PathBuf {
        path("XDG_CONFIG_HOME").unwrap_or_else(|| self.home.join(".config"))
    }

    /// Where programs keep what they remember: `$XDG_STATE_HOME`.
    pub(crate) fn state(&self) -> PathBuf {
        path("XDG_STATE_HOME").unwrap_or_else(|| self.home.join(".local/state"))
    }

    /// Credential files in their order of precedence: Podman's, then Docker's.
    pub(crate) fn auth_files(&self, flag: Option<&Path>) -> Vec<PathBuf> {
        if let Some(file) = flag.map(Path::to_owned).or_else(|| path("REGISTRY_AUTH_FILE")) {
            return vec![file];
        }
        let runtime = path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
        let mut files: Vec<PathBuf> = runtime.into_iter().collect();
        if !self.rootless {
            files.push(PathBuf::from("/run/containers/0/auth.json"));
        }
        files.push(self.config().join("containers/auth.json"));
        files.push(self.docker().join("config.json"));
        files.push(self.home.join(".dockercfg"));
        files
    }

    /// Where `login` writes: the file named, else the first that exists, else Docker's place,
    /// which survives a restart of the machine.
    pub(crate) fn login_file(&self, flag: Option<&Path>) -> PathBuf {
        let files = self.auth_files(flag);
        let oldest = self.home.join(".dockercfg");
        let mut files = files.into_iter().filter(|file| *file != oldest).peekable();
        let mut last = files.peek().cloned().unwrap_or_default();
        for file in files {
            if file.exists() {
                return file;
            }
            last = file;
        }
        last
    }

    /// Directories in which credential helpers are looked for: `$PATH`, absolute entries only.
    pub(crate) fn helper_directories(&self) -> Vec<PathBuf> {
        let list = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&list).filter(|dir| dir.is_absolute()).collect()
    }

    /// Where `trust` stores the trusted root.
    pub(crate) fn trust(&self) -> PathBuf {
        self.data().join("rbuild-trust")
    }

    /// The signature policy, if there is one. One that is there and cannot be read counts, so that
    /// nothing is let through by a policy that was not meant.
    pub(crate) fn policy(&self, flag: Option<&Path>) -> Option<PathBuf> {
        let user = self.config().join("containers/policy.json");
        let machine = PathBuf::from("/etc/containers/policy.json");
        match flag {
            Some(file) => Some(file.to_owned()),
            None => [user, machine].into_iter().find(|file| is_meant(file)),
        }
    }

    /// Certificate directories per registry, the user's first.
    pub(crate) fn certificate_directories(&self) -> Vec<PathBuf> {
        vec![
            self.config().join("containers/certs.d"),
            PathBuf::from("/etc/containers/certs.d"),
            PathBuf::from("/etc/docker/certs.d"),
        ]
    }
}

/// Whether there is a file at this path, even an unreadable one or a dangling link.
fn is_meant(path: &Path) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    for part in path.ancestors() {
        match part.symlink_metadata() {
            Ok(found) if part != path => return found.is_symlink() && !part.exists(),
            Ok(_) => return true,
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {}
            Err(_) => return true,
        }
    }
    false
}

fn path(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A path made absolute against the current directory.
///
/// # Errors
/// The current directory is gone.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::io(format!("making {} absolute", path.display()), &error))
}

/// The socket of the service manager that waits for what this process starts.
pub(crate) fn notify_socket() -> Option<String> {
    env::var("NOTIFY_SOCKET").ok().filter(|address| !address.is_empty())
}

/// All variables of this process, as `NAME=value` lines.
pub(crate) fn environment() -> Vec<String> {
    let texts = env::vars_os()
        .map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.flatten().map(|(name, value)| format!("{name}={value}")).collect()
}

/// The proxy variables that reach RUN steps and downloads, as the environment has them.
pub(crate) fn proxies() -> Vec<(String, String)> {
    const NAMES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];
    let spelled = NAMES.iter().flat_map(|name| [name.to_uppercase(), (*name).to_owned()]);
    spelled.filter_map(|name| env::var(&name).ok().map(|value| (name, value))).collect()
}

/// How much the store may take, from `RBUILD_STORE_LIMIT`.
///
/// # Errors
/// It is not a size.
pub(crate) fn store_limit() -> Result<Option<u64>, Failure> {
    match std::env::var("RBUILD_STORE_LIMIT") {
        Ok(text) if !text.is_empty() => crate::flags::size(&text)
            .map(Some)
            .map_err(|why| Failure::usage(format!("RBUILD_STORE_LIMIT: {why}"))),
        _ => Ok(None),
    }
}
