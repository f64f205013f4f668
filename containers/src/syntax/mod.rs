//! The texts in which users describe parts of a container, as docker and podman have them: mounts
//! (`/srv:/srv:ro`, `type=tmpfs,target=/x`), networks, limits, devices, security options, health
//! checks.
//!
//! A text is read as a program got it. What is not understood is [`Error::Syntax`]; what names a
//! file or device that is not there is another error.
//!
//! ```
//! use containers::syntax;
//!
//! let mut container = runtime::ContainerSpec::default();
//! let here = std::path::Path::new("/project");
//! syntax::volume("/tmp:/data:ro", here, &mut container.files)?;
//! syntax::mount("type=tmpfs,target=/scratch,tmpfs-size=1m", here, &mut container.files)?;
//! container.limits.ulimits.push(syntax::ulimit("nofile=1024:2048")?);
//! assert_eq!(container.files.mounts.len(), 2);
//! # Ok::<(), containers::Error>(())
//! ```
//!
//! [`Error::Syntax`]: crate::Error::Syntax

mod ids;
mod lifecycle;
mod limit;
mod mount;
mod network;
mod process;
mod security;

pub use ids::{UserNamespace, id_range, ids, user_namespace};
pub use lifecycle::{
    health_interval, health_test, image_volumes, log_driver, log_option, notify, on_failure,
    restart,
};
pub use limit::{block_rate, cpus, memory, octal, size, size_or_unlimited, ulimit};
pub use mount::{fields, mount, mount_of, time_zone, tmpfs, volume};
pub use network::{NetworkChoice, dns, extra_host, find_cni, mac_address, networks};
pub use process::{detach_keys, entrypoint, environment, environment_files, label_files, pair};
pub use security::{
    Sandbox, cgroup_namespace, device, device_rule, ipc_namespace, namespace, sandbox,
    security_option,
};
pub use task::SyntaxError;
