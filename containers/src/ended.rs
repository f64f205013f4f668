//! What the monitor of a container does after its end: it removes it, or starts it again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use runtime::{HealthStatus, Restart};
use rustix::fs::FlockOperation;
use store::Store;
use task::Task;

use crate::record::Record;
use crate::{Container, Containers, Error, Result, StartOptions};

/// There when the user wants it to stay as it is.
const STOPPED: &str = "stopped";
/// Locked by who stops it, as long as it has not ended.
const STOPPING: &str = "stopping";
/// Locked by who is about to start it again; holds how often it was.
const RESTART: &str = "restart";

/// The first delay before a restart; it doubles up to the last.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_secs(60);
/// Who ran this long starts with the first delay again.
const STEADY: f64 = 10.0;
/// How long to sleep between two looks at whether it is still wanted.
const NAP: Duration = Duration::from_millis(100);

/// Becomes a container's first process, its monitor or a program joining it, if this process was
/// started as one; never returns then. Must be the first line of `main` of every program that
/// starts containers.
pub fn init() {
    runtime::init_with(runtime::Hooks { ended, health, device });
    network::init();
}

/// What a store must know of the world outside; what reading and writing it brings along stops with
/// `task`.
pub fn store_options(task: &Task) -> store::Options {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    store::Options {
        user_xattr: runtime::in_user_namespace(),
        boot_id: boot_id.trim().to_owned(),
        clock,
        task: Arc::new(task.hidden()),
    }
}

/// The wall clock: a monitor is a process of its own and cannot receive the time from a caller.
fn clock() -> SystemTime {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
    SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(time.tv_nsec.unsigned_abs())
}

/// Seconds since 1970, in parts.
pub(crate) fn now() -> f64 {
    clock().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Seconds since 1970.
pub(crate) fn seconds() -> u64 {
    clock().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Notes that the user wants it to stay stopped.
pub(crate) fn note_stop(directory: &Path) -> Result<()> {
    let path = directory.join(STOPPED);
    match std::fs::write(&path, b"") {
        // Removed meanwhile, which is as good.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        written => written.map_err(Error::file("writing", &path)),
    }
}

/// It is wanted again.
pub(crate) fn forget_stop(directory: &Path) {
    let _ = std::fs::remove_file(directory.join(STOPPED));
}

/// Whether the user wants it to stay stopped.
pub(crate) fn is_stopped(directory: &Path) -> bool {
    directory.join(STOPPED).exists()
}

/// Shows that it is being stopped, as long as the result lives.
pub(crate) fn show_stopping(directory: &Path) -> Option<File> {
    let file = File::create(directory.join(STOPPING)).ok()?;
    // Who looks holds it for a moment. Who else stops it shows the same.
    let locked = (0..100).any(|_| {
        let held = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !held {
            std::thread::yield_now();
        }
        held
    });
    locked.then_some(file)
}

/// Whether it is being stopped.
pub(crate) fn is_stopping(directory: &Path) -> bool {
    is_locked(&directory.join(STOPPING))
}

/// Whether another start is pending.
pub(crate) fn restarting(directory: &Path) -> bool {
    is_locked(&directory.join(RESTART))
}

fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

/// How often it was started again by its policy.
pub(crate) fn restarts(directory: &Path) -> u32 {
    let text = std::fs::read_to_string(directory.join(RESTART)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// The store of a container's directory.
fn store_of(directory: &Path) -> Option<PathBuf> {
    Some(directory.parent()?.parent()?.to_owned())
}

/// A change of the health of a container, in a process of its monitor's.
fn health(directory: &Path, status: HealthStatus) {
    let told = || -> Result<()> {
        let Some(container) = of(directory)? else { return Ok(()) };
        container.note(&format!("health_status: {}", status.as_str()), &[]);
        if status == HealthStatus::Healthy {
            crate::notify::healthy(&container);
        }
        Ok(())
    };
    if let Err(error) = told() {
        tracing::debug!(%error, "a change of health is not written down");
    }
}

/// Gives a container of an engine a device of this machine.
fn device(name: &str, inside: Option<&str>, namespace: &Path) -> std::result::Result<(), String> {
    network::move_device(name, inside, namespace).map_err(|error| task::chain(&error).join(": "))
}

/// The container of a directory, if it is still there.
fn of(directory: &Path) -> Result<Option<Container>> {
    let (Some(root), Some(id)) = (store_of(directory), directory.file_name()) else {
        return Ok(None);
    };
    let store = Store::open(&root, store_options(&of_monitor()))?;
    Containers::new(store).find(&id.to_string_lossy())
}

/// The end of a container, in its monitor.
fn ended(directory: &Path) {
    if let Err(error) = settle(directory) {
        tracing::debug!(%error, "a container that ended stays as it is");
    }
}

/// The work of a monitor: no user waits for it, and it ends with the monitor.
fn of_monitor() -> Task {
    Task::root("container", Arc::new(task::Silent))
}

fn settle(directory: &Path) -> Result<()> {
    let lifecycle = Record::read(directory)?.spec.lifecycle;
    let Some(container) = of(directory)? else { return Ok(()) };
    let code = container.exit().map_or(0, runtime::ExitStatus::code);
    container.note("die", &[("exitCode", code.to_string())]);
    crate::pause::forget(directory);
    crate::uplink::sweep(&container.store);
    if lifecycle.remove {
        return container.remove(false, &of_monitor());
    }
    container.clear_mount_points()?;
    let unhealthy = std::fs::remove_file(directory.join(runtime::RESTART_MARK)).is_ok();
    if unhealthy && !is_stopped(directory) {
        return container.start(&StartOptions::default(), &of_monitor()).map(drop);
    }
    again(&container, lifecycle.restart)
}

/// Starts it again as its policy says, after a while.
fn again(container: &Container, policy: Restart) -> Result<()> {
    let directory = container.directory();
    let path = directory.join(RESTART);
    let mut count = restarts(directory);
    let state = container.state();
    let ran = state.map_or(0.0, |state| state.finished.unwrap_or(state.started) - state.started);
    let mut delay = FIRST_DELAY;
    if ran >= STEADY {
        count = 0;
    } else {
        delay = FIRST_DELAY.saturating_mul(1 << count.min(16)).min(LAST_DELAY);
    }
    let failed = !container.exit().is_some_and(runtime::ExitStatus::success);
    let wanted = match policy {
        Restart::No => false,
        Restart::OnFailure(0) => failed,
        Restart::OnFailure(most) => failed && count < most,
        Restart::Always | Restart::UnlessStopped => true,
    };
    if !wanted || directory.join(STOPPED).exists() {
        return Ok(());
    }
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(Error::file("opening", &path))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)
        .map_err(|errno| Error::file("locking", &path)(errno.into()))?;
    while !delay.is_zero() {
        let nap = delay.min(NAP);
        std::thread::sleep(nap);
        delay -= nap;
        if directory.join(STOPPED).exists() || !directory.exists() {
            return Ok(());
        }
    }
    std::fs::write(&path, (count + 1).to_string()).map_err(Error::file("writing", &path))?;
    let started = container.start(&StartOptions::default(), &of_monitor()).map(drop);
    // Until it runs, it is about to be started again.
    drop(file);
    started
}
