//! Where other tools keep images on this machine.

use std::path::PathBuf;

use serde::Deserialize;
use task::Kind;
use transport::at::DaemonTls;

use super::{Places, absolute, path};
use crate::app::Reach;
use crate::report::Failure;

/// The part of storage.conf that says where images are.
#[derive(Default, Deserialize)]
struct StorageConf {
    #[serde(default)]
    storage: Storage,
}

#[derive(Default, Deserialize)]
struct Storage {
    graphroot: Option<PathBuf>,
    rootless_storage_path: Option<String>,
    #[serde(default)]
    options: StorageOptions,
}

#[derive(Default, Deserialize)]
struct StorageOptions {
    #[serde(default)]
    additionalimagestores: Vec<PathBuf>,
}

impl Places {
    /// Where podman and buildah of this user keep images, by storage.conf or as they do without
    /// it.
    ///
    /// # Errors
    /// storage.conf is malformed.
    pub(crate) fn containers_storage(&self) -> Result<Vec<PathBuf>, Failure> {
        let user = self.config().join("containers/storage.conf");
        let machine = ["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"];
        let mut files = vec![user];
        files.extend(machine.map(PathBuf::from));
        let file = path("CONTAINERS_STORAGE_CONF").or(files.into_iter().find(|f| f.is_file()));
        let conf = match file {
            None => StorageConf::default(),
            Some(file) => {
                let text = std::fs::read_to_string(&file)
                    .map_err(|error| Failure::io(format!("reading {}", file.display()), &error))?;
                toml::from_str(&text).map_err(|error| {
                    let reason = format!("reading {}: {}", file.display(), error.message());
                    Failure::new(Kind::Invalid, reason)
                })?
            }
        };
        let usual = match self.rootless {
            true => self.data().join("containers/storage"),
            false => PathBuf::from("/var/lib/containers/storage"),
        };
        let Storage { graphroot, rootless_storage_path, options } = conf.storage;
        let rootless = rootless_storage_path.filter(|_| self.rootless).map(|text| {
            let home = self.home.display().to_string();
            PathBuf::from(text.replace("$HOME", &home))
        });
        let mut places = vec![rootless.or(graphroot).unwrap_or(usual)];
        places.extend(options.additionalimagestores);
        Ok(places)
    }
}

impl Places {
    /// How TLS is spoken with the Docker daemon: as Docker's client does by `$DOCKER_TLS_VERIFY` and
    /// `$DOCKER_CERT_PATH`, or with the certificates that a flag names. What the daemon shows is
    /// always verified, but where a flag says otherwise.
    ///
    /// # Errors
    /// The current directory is not known.
    pub(crate) fn daemon_tls(&self, reach: &Reach) -> Result<DaemonTls, Failure> {
        let asked = std::env::var("DOCKER_TLS_VERIFY").is_ok_and(|text| !text.is_empty());
        let given = reach.cert_dir.clone().filter(|_| reach.daemon_certs);
        let given = given.or_else(|| path("DOCKER_CERT_PATH"));
        let tcp = asked || given.is_some();
        let usual = || Some(self.docker()).filter(|docker| asked && docker.join("ca.pem").exists());
        let certificates = given.or_else(usual).map(|dir| absolute(&dir)).transpose()?;
        let unverified = reach.daemon_certs && reach.tls_verify == Some(false);
        Ok(DaemonTls { tcp, certificates, unverified })
    }
}

/// The Docker daemon's socket: `$DOCKER_HOST`, or the usual one.
pub(crate) fn docker_host() -> String {
    let given = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    given.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned())
}

/// Where large files are put for a while: `$TMPDIR`, or `/var/tmp` as podman does.
pub(crate) fn scratch() -> PathBuf {
    path("TMPDIR").unwrap_or_else(|| PathBuf::from("/var/tmp"))
}
