use std::path::{Path, PathBuf};

use crate::environment::Environment;

/// Where things are for this user on this machine.
#[derive(Debug, Clone)]
pub struct Paths {
    pub(crate) environment: Environment,
    pub(crate) home: PathBuf,
    /// Where choices of short names are kept, if not in the usual place.
    pub chosen_names: Option<PathBuf>,
    /// Whether this is an ordinary user's process, made root of its own user namespace.
    pub rootless: bool,
}

impl Paths {
    /// The paths of the user whose environment this is. Without `$HOME` the home is `/root`.
    pub fn new(environment: Environment, rootless: bool) -> Paths {
        let home = environment.path("HOME").unwrap_or_else(|| PathBuf::from("/root"));
        Paths { environment, home, chosen_names: None, rootless }
    }

    /// The image store: `$RBUILD_ROOT`, or the machine's for root, or the user's.
    pub fn store(&self) -> PathBuf {
        let default = || match self.rootless {
            false => PathBuf::from("/var/lib/rbuild"),
            true => self.data().join("rbuild"),
        };
        self.environment.path("RBUILD_ROOT").unwrap_or_else(default)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.environment.path("XDG_DATA_HOME").unwrap_or_else(|| self.home.join(".local/share"))
    }

    /// Where Docker's client keeps what is its user's.
    pub(crate) fn docker(&self) -> PathBuf {
        self.environment.path("DOCKER_CONFIG").unwrap_or_else(|| self.home.join(".docker"))
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.environment.path("XDG_CONFIG_HOME").unwrap_or_else(|| self.home.join(".config"))
    }

    /// Where programs keep what can be made again: `$XDG_CACHE_HOME`.
    pub fn cache(&self) -> PathBuf {
        self.environment.path("XDG_CACHE_HOME").unwrap_or_else(|| self.home.join(".cache"))
    }

    /// Where programs keep what they remember: `$XDG_STATE_HOME`.
    pub fn state(&self) -> PathBuf {
        self.environment.path("XDG_STATE_HOME").unwrap_or_else(|| self.home.join(".local/state"))
    }

    /// Credential files in their order of precedence: Podman's, then Docker's. `file`, or
    /// `$REGISTRY_AUTH_FILE`, is the only one.
    pub fn auth_files(&self, file: Option<&Path>) -> Vec<PathBuf> {
        if let Some(file) =
            file.map(Path::to_owned).or_else(|| self.environment.path("REGISTRY_AUTH_FILE"))
        {
            return vec![file];
        }
        let runtime =
            self.environment.path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
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
    pub fn login_file(&self, file: Option<&Path>) -> PathBuf {
        let files = self.auth_files(file);
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
    pub fn helper_directories(&self) -> Vec<PathBuf> {
        let list = self.environment.variable("PATH").cloned().unwrap_or_default();
        std::env::split_paths(&list).filter(|dir| dir.is_absolute()).collect()
    }

    /// Where `trust` stores the trusted root.
    pub fn trust(&self) -> PathBuf {
        self.data().join("rbuild-trust")
    }

    /// The signature policy, if there is one. One that is there and cannot be read counts, so that
    /// nothing is let through by a policy that was not meant.
    pub fn policy(&self, file: Option<&Path>) -> Option<PathBuf> {
        let user = self.config().join("containers/policy.json");
        let machine = PathBuf::from("/etc/containers/policy.json");
        match file {
            Some(file) => Some(file.to_owned()),
            None => [user, machine].into_iter().find(|file| is_meant(file)),
        }
    }

    /// Certificate directories per registry, the user's first.
    pub fn certificate_directories(&self) -> Vec<PathBuf> {
        vec![
            self.config().join("containers/certs.d"),
            PathBuf::from("/etc/containers/certs.d"),
            PathBuf::from("/etc/docker/certs.d"),
        ]
    }
}

/// Whether there is a file at this path, even an unreadable one or a dangling link.
pub(crate) fn is_meant(path: &Path) -> bool {
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
