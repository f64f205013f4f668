//! containers.conf: what the administrator and the user say of all containers, where no flag does.
//!
//! The file of the distribution (`/usr/share/containers/containers.conf`) is not read: it has the
//! defaults of podman, not what someone wants on this machine.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::paths::Paths;

/// The parts that mean something here.
#[derive(Debug, Default, Deserialize)]
pub struct ContainersConf {
    /// `[containers]`
    #[serde(default)]
    pub containers: ContainersTable,
    /// `[engine]`
    #[serde(default)]
    pub engine: EngineTable,
}

/// What every container gets.
#[derive(Debug, Default, Deserialize)]
pub struct ContainersTable {
    /// `NAME=SOFT[:HARD]`
    pub default_ulimits: Option<Vec<String>>,
    /// The whole set, without `CAP_` or with it.
    pub default_capabilities: Option<Vec<String>>,
    /// `NAME=VALUE`
    pub default_sysctls: Option<Vec<String>>,
    /// `HOST[:CONTAINER][:rwm]`
    pub devices: Option<Vec<String>>,
    /// Name servers.
    pub dns_servers: Option<Vec<String>>,
    /// Search domains.
    pub dns_searches: Option<Vec<String>>,
    /// Options of the resolver.
    pub dns_options: Option<Vec<String>>,
    /// Whether proxy variables are passed.
    pub http_proxy: Option<bool>,
    /// The most processes.
    pub pids_limit: Option<i64>,
    /// The size of /dev/shm.
    pub shm_size: Option<String>,
    /// Namespaces, as the flags name them: `host` or `private`. Of processes.
    pub pidns: Option<String>,
    /// Of ipc.
    pub ipcns: Option<String>,
    /// Of the host name.
    pub utsns: Option<String>,
    /// Of cgroups.
    pub cgroupns: Option<String>,
    /// The network: `host`, `private`, `none` or a name.
    pub netns: Option<String>,
}

/// How images are moved.
#[derive(Debug, Default, Deserialize)]
pub struct EngineTable {
    /// How often a request is tried again.
    pub retry: Option<u32>,
    /// The first pause before that.
    pub retry_delay: Option<String>,
    /// How `push` compresses layers.
    pub compression_format: Option<String>,
    /// And how hard.
    pub compression_level: Option<i32>,
}

impl ContainersConf {
    /// Puts a later file over this one.
    fn with(&mut self, later: ContainersConf) {
        macro_rules! take {
            ($part:ident: $($field:ident)*) => {
                $(if later.$part.$field.is_some() { self.$part.$field = later.$part.$field; })*
            };
        }
        take!(containers: default_ulimits default_capabilities default_sysctls devices dns_servers);
        take!(containers: dns_searches dns_options http_proxy pids_limit shm_size);
        take!(containers: pidns ipcns utsns cgroupns netns);
        take!(engine: retry retry_delay compression_format compression_level);
    }
}

impl Paths {
    /// What the files say: `$CONTAINERS_CONF` alone, else the machine's and then the user's, each
    /// with the files in the directory beside it, and `$CONTAINERS_CONF_OVERRIDE` last.
    ///
    /// # Errors
    /// A file is malformed, or one that a variable names is not there.
    pub fn containers_conf(&self) -> Result<ContainersConf> {
        let mut conf = ContainersConf::default();
        for file in self.containers_conf_files() {
            let text = std::fs::read_to_string(&file)
                .map_err(|source| Error::Read { path: file.clone(), source })?;
            conf.with(parse(&text, &file)?);
        }
        Ok(conf)
    }

    fn containers_conf_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        match self.environment.path("CONTAINERS_CONF") {
            Some(file) => files.push(file),
            None => {
                let machine = PathBuf::from("/etc/containers/containers.conf");
                for file in [machine, self.config().join("containers/containers.conf")] {
                    let mut more: Vec<PathBuf> = std::fs::read_dir(file.with_extension("conf.d"))
                        .map(|all| all.flatten().map(|entry| entry.path()).collect())
                        .unwrap_or_default();
                    more.retain(|file| file.extension().is_some_and(|end| end == "conf"));
                    more.sort();
                    files.extend(file.is_file().then_some(file));
                    files.extend(more);
                }
            }
        }
        files.extend(self.environment.path("CONTAINERS_CONF_OVERRIDE"));
        files
    }
}

fn parse(text: &str, file: &Path) -> Result<ContainersConf> {
    toml::from_str(text).map_err(|error| {
        let (path, reason) = (file.to_owned(), error.message().to_owned());
        Error::Malformed { path, reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_files_change_what_they_name() {
        let file = Path::new("containers.conf");
        let mut conf =
            parse("[containers]\nshm_size = '1m'\npids_limit = 5\n[network]\nx = 1\n", file)
                .unwrap();
        conf.with(parse("[containers]\nshm_size = '2m'\n[engine]\nretry = 7\n", file).unwrap());
        assert_eq!(conf.containers.shm_size.as_deref(), Some("2m"));
        assert_eq!((conf.containers.pids_limit, conf.engine.retry), (Some(5), Some(7)));
        assert!(parse("[containers]\nshm_size = 5\n", file).is_err());
    }
}
