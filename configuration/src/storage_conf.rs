//! Where other tools keep images on this machine.

use std::path::PathBuf;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::paths::Paths;

/// The part of storage.conf that says where images are.
#[derive(Default, Deserialize)]
struct StorageConf {
    #[serde(default)]
    storage: Storage,
}

#[derive(Default, Deserialize)]
struct Storage {
    driver: Option<String>,
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

/// How podman and buildah of this user keep images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainersStorage {
    /// The driver that new layers are written with, if it is set.
    pub driver: Option<String>,
    /// Where images are; the first place is the one that is written.
    pub places: Vec<PathBuf>,
}

impl Paths {
    /// Where podman and buildah of this user keep images, by storage.conf, `$STORAGE_DRIVER` or
    /// as they do without them.
    ///
    /// # Errors
    /// storage.conf is malformed.
    pub fn containers_storage(&self) -> Result<ContainersStorage> {
        let user = self.config().join("containers/storage.conf");
        let machine = ["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"];
        let mut files = vec![user];
        files.extend(machine.map(PathBuf::from));
        let named = self.environment.path("CONTAINERS_STORAGE_CONF");
        let file = named.or(files.into_iter().find(|f| f.is_file()));
        let conf = match file {
            None => StorageConf::default(),
            Some(file) => {
                let text = std::fs::read_to_string(&file)
                    .map_err(|source| Error::Read { path: file.clone(), source })?;
                toml::from_str(&text).map_err(|error| {
                    let reason = error.message().to_owned();
                    Error::Malformed { path: file, reason }
                })?
            }
        };
        let usual = match self.rootless {
            true => self.data().join("containers/storage"),
            false => PathBuf::from("/var/lib/containers/storage"),
        };
        let Storage { driver, graphroot, rootless_storage_path, options } = conf.storage;
        let rootless = rootless_storage_path.filter(|_| self.rootless).map(|text| {
            let home = self.home.display().to_string();
            PathBuf::from(text.replace("$HOME", &home))
        });
        let mut places = vec![rootless.or(graphroot).unwrap_or(usual)];
        places.extend(options.additionalimagestores);
        let named = self.environment.variable("STORAGE_DRIVER");
        let named = named.map(|driver| driver.to_string_lossy().into_owned());
        let driver = named.or(driver).filter(|driver| !driver.is_empty());
        Ok(ContainersStorage { driver, places })
    }
}

impl Paths {
    /// Whether Docker's client speaks TLS (`$DOCKER_TLS_VERIFY`), and the directory of its
    /// certificates: `$DOCKER_CERT_PATH`, or Docker's own where it has some.
    pub fn docker_tls(&self) -> (bool, Option<PathBuf>) {
        let asked = self.environment.variable("DOCKER_TLS_VERIFY").is_some();
        let usual = || Some(self.docker()).filter(|docker| asked && docker.join("ca.pem").exists());
        let named = self.environment.path("DOCKER_CERT_PATH");
        let named = named.map(|directory| self.environment.absolute(&directory));
        (asked || named.is_some(), named.or_else(usual))
    }

    /// The Docker daemon's socket: `$DOCKER_HOST`, or the usual one.
    pub fn docker_host(&self) -> String {
        let given = self.environment.variable("DOCKER_HOST").and_then(|host| host.to_str());
        given.unwrap_or("unix:///var/run/docker.sock").to_owned()
    }

    /// Where large files are put for a while: `$TMPDIR`, or `/var/tmp` as podman does.
    pub fn scratch(&self) -> PathBuf {
        self.environment.path("TMPDIR").unwrap_or_else(|| PathBuf::from("/var/tmp"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Environment;

    #[test]
    fn a_user_without_storage_conf_has_the_usual_storage() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("storage.conf");
        std::fs::write(
            &file,
            "[storage]\ndriver = 'vfs'\nrootless_storage_path = '$HOME/mine'\n[storage.options]\nadditionalimagestores = ['/more']\n",
        )
        .unwrap();
        let variables = [
            ("HOME".into(), home.path().into()),
            ("CONTAINERS_STORAGE_CONF".into(), file.clone().into()),
        ];
        let paths = Paths::new(Environment::new(variables, home.path()), true);
        let found = paths.containers_storage().unwrap();
        assert_eq!(found.places, [home.path().join("mine"), PathBuf::from("/more")]);
        assert_eq!(found.driver.as_deref(), Some("vfs"));
        std::fs::write(&file, "[storage").unwrap();
        assert!(paths.containers_storage().is_err());
        assert_eq!(paths.docker_tls(), (false, None));
    }
}
