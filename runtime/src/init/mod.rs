//! Inside a stage: from the supervisor's first instruction to the user's program.

mod borders;
mod credentials;
mod devices;
mod exec;
mod filesystem;
mod mounts;
mod namespaces;
mod owners;
mod reaper;
mod supervisor;
mod tree;

pub(crate) use borders::{scopes, shares_processes};
pub(crate) use credentials::CAPABILITIES;
pub(crate) use devices::terminal;
pub(crate) use exec::{
    Never, Program, die_with_parent, fail, join_keyring, run_program, streams, take_terminal,
};
pub(crate) use mounts::KNOWN as MOUNT_OPTIONS;
pub(crate) use namespaces::{listed as listed_namespaces, makes_user as makes_user_namespace};
pub(crate) use supervisor::{Running, begin, ended, follow, read_status, wait_ready};

use std::os::fd::AsFd;

use crate::stage::{self, Answer, Role};

/// Becomes a container's first process, its supervisor or a program joining it, if this process
/// was started as one; never returns then. Must be the first line of `main`.
pub fn init() {
    init_with(|_| {});
}

/// As [`init`]; the monitor of a container calls `ended` with the container's directory when the
/// container has ended, its state is written, and all attached clients know it. The monitor then
/// holds nothing of the container any more.
pub fn init_with(ended: fn(&std::path::Path)) {
    let is_stage = std::env::args_os().next().is_some_and(|name| name == stage::MARK);
    if is_stage {
        std::process::exit(enter(ended));
    }
}

fn enter(after: fn(&std::path::Path)) -> i32 {
    let Ok(given) = stage::receive() else { return 125 };
    let Ok(line) = given.line.try_clone() else { return 125 };
    let result = match given.config.role {
        Role::Supervise => supervisor::supervise(given),
        Role::Monitor { .. } => crate::detached::monitor(given, after),
        Role::Join { .. } => crate::detached::join(given),
        Role::Create(_) => crate::engine::create(given),
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
