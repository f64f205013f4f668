//! Where the configuration and the data of a user are, and what the files say that no other crate
//! owns.
//!
//! Environment variables win over the user's files, those over the machine's. The variables come in
//! as an [`Environment`], so that nothing here reads the process. [`Paths`] finds files; the crates
//! that own a format (registries.conf, policy.json, registries.d, auth.json) read them. Here are
//! [`ContainersConf`] (containers.conf(5)) and the image directories of storage.conf(5).
//!
//! ```
//! use configuration::{Environment, Paths};
//!
//! let home = tempfile::tempdir()?;
//! let config = home.path().join(".config/containers");
//! std::fs::create_dir_all(&config)?;
//! std::fs::write(config.join("containers.conf"), "[engine]\nretry = 7\n")?;
//!
//! let variables = [("HOME".into(), home.path().into())];
//! let paths = Paths::new(Environment::new(variables, home.path()), true);
//! assert_eq!(paths.store(), home.path().join(".local/share/rbuild"));
//! assert_eq!(paths.containers_conf()?.engine.retry, Some(7));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod containers_conf;
mod environment;
mod error;
mod paths;
mod registries;
mod storage_conf;

pub use containers_conf::{ContainersConf, ContainersTable, EngineTable};
pub use environment::Environment;
pub use error::{Error, Result};
pub use paths::Paths;
pub use storage_conf::ContainersStorage;
