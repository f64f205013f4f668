//! Inside a stage: from the supervisor's first instruction to the user's program.

mod borders;
mod copy_up;
mod credentials;
mod devices;
mod exec;
mod filesystem;
mod memory;
mod mounts;
mod namespaces;
mod orphans;
mod other;
mod owners;
mod reaper;
mod supervisor;
mod tree;

pub(crate) use borders::{adopt, close, end_adopted, scopes, shares_processes};
pub(crate) use credentials::CAPABILITIES;
pub(crate) use devices::terminal;
pub(crate) use exec::{
    Program, die_with_parent, fail, join_keyring, run_program, streams, take_terminal,
};
pub(crate) use memory::{nodes as memory_nodes, policy as memory_policy};
pub(crate) use namespaces::{
    give_streams, has_own_mounts, listed as listed_namespaces, makes_user as makes_user_namespace,
};
pub(crate) use orphans::Orphans;
pub(crate) use supervisor::{
    ContainerInputs, RunningContainer, begin_for_engine, begin_with, ended, follow, lost, outcome,
    prepare, read_status, release, wait_ready,
};

use std::os::fd::AsFd;

use crate::detached::HealthStatus;
use crate::stage::{self, Answer, Role};

/// What a monitor calls, each with the container's directory.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// The container has ended, its state is written, and everybody attached was told. The monitor
    /// holds nothing of the container any more.
    pub ended: fn(&std::path::Path),
    /// Its health has changed. Called in a process of its own.
    pub health: fn(&std::path::Path, HealthStatus),
    /// Moves a device of this machine into the network namespace at a path, under a new name if there is one.
    pub device: MoveDevice,
}

/// See [`Hooks::device`]; the error says what failed.
pub type MoveDevice = fn(&str, Option<&str>, &std::path::Path) -> std::result::Result<(), String>;

/// Becomes a container's first process, its supervisor or a program joining it, if this process
/// was started as one; never returns then. Must be the first line of `main`.
pub fn init() {
    let device: MoveDevice = |_, _, _| Err("this program does not move devices".to_owned());
    init_with(Hooks { ended: |_| {}, health: |_, _| {}, device });
}

/// As [`init`], with what monitors call.
pub fn init_with(hooks: Hooks) {
    if is_stage() {
        std::process::exit(enter(hooks));
    }
}

/// Whether this process was started as a stage. Then `STAGE_LOG` has the level of the log of its
/// starter; without a log there is no such variable.
pub fn is_stage() -> bool {
    std::env::args_os().next().is_some_and(|name| name == stage::MARK)
}

fn enter(hooks: Hooks) -> i32 {
    let Ok(given) = stage::receive() else { return 125 };
    let Ok(line) = given.line.try_clone() else { return 125 };
    let result = match given.config.role {
        Role::Supervise => supervisor::supervise(given),
        Role::Monitor { .. } => crate::detached::monitor(given, hooks),
        Role::Join { .. } => crate::detached::join(given),
        Role::Create(_) => crate::engine::create(given, hooks.device),
        Role::Exec { .. } => crate::engine::join(given),
    };
    match result {
        Ok(()) => 0,
        Err(failure) => {
            // The starter may be gone; then no report is needed.
            let _ = stage::answer(line.as_fd(), &Answer::Failed(failure), None);
            125
        }
    }
}
