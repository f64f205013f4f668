//! Running a bundle: namespaces, mounts, cgroups, credentials, seccomp.
//!
//! A container is started by this very program, executed afresh from a read-only view of itself:
//! [`init`], the first line of `main`, recognises the stage and becomes it. The stage is
//! single-threaded, so nothing unsafe ever happens between a fork and an exec of a program with
//! threads.
//!
//! What a container will be can be looked at without starting it:
//!
//! ```
//! let config = image::ContainerConfig::default();
//! let mut container = runtime::ContainerSpec::default();
//! container.process.command = vec!["/bin/true".to_owned()];
//! let spec = runtime::spec(&config, &container, &|_| Ok(None))?;
//! let process = spec.process().as_ref().expect("a process");
//! assert_eq!(process.args().as_deref(), Some(&["/bin/true".to_owned()][..]));
//! # Ok::<(), runtime::Error>(())
//! ```

mod cgroup;
mod container;
mod descriptors;
mod detached;
mod engine;
mod error;
mod ids;
mod init;
mod mount_options;
mod others;
mod program;
mod seccomp;
mod signal;
mod spec;
mod stage;
mod streams;
mod sys;
mod terminal;
mod userns;

pub use container::{Bundle, Container, StartOptions, Stdio};
pub use descriptors::{check_inherited, close_on_exec};
pub use detached::{
    AttachOptions, AttachOutcome, Health, HealthStatus, LogLine, LogOptions, Probe, RESTART_MARK,
    State, Status, Streams, Streams3, attach, attach_streams, check_health, exec, exec_streams,
    health, launch, logs, signal, state, stop, update, wait,
};
pub use engine::{
    Connections, Engine, NewContainer, OciState, ProcessChanges, StartedProcess, Usage, adopt,
    features, wait_adopted, with_terminal,
};
pub use error::{Error, Result};
pub use ids::{IdMaps, IdRange, Ids, making_files_of};
pub use init::{Hooks, MoveDevice, init, init_with, is_stage};
pub use mount_options::is_mount_attribute;
/// The runtime-spec's documents.
pub use oci_spec::runtime as oci;
pub use others::OthersMount;
pub use program::{Exec, ExitStatus, OtherRuntime};
pub use seccomp::SeccompProfile;
pub use signal::Signal;
pub use spec::users::{User, resolve_owner, resolve_user};
pub use spec::{
    BlockLimits, ContainerSpec, Device, DeviceNumber, DeviceRule, Dns, Files, HealthCheck,
    HealthSpec, ImageMount, ImageVolumes, Isolation, Join, Lifecycle, Limits, LogLimits,
    MachineFiles, Membership, Mount, Namespace, Network, NetworkFiles, NetworkSpec, Notify,
    OnFailure, Overlay, ProcessSpec, Propagation, Rate, Restart, RootDirectory, Seccomp, Ulimit,
    UserFile, VolumeMount, arguments, join_network, owner, spec,
};
pub use stage::MonitorOptions;
pub use streams::SharedInput;
pub use userns::{
    Identity, become_root, entered_namespace, in_user_namespace, mapped_ids, outer_root, single_id,
    subordinate_ids,
};
