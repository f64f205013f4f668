//! What is done with containers that exist.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use runtime::{
    AttachOptions, AttachOutcome, ContainerSpec, Exec, ExitStatus, Limits, LogLine, LogOptions,
    Restart, Signal,
};
use rustix::mount::UnmountFlags;
use task::Task;

use crate::volume::Volumes;
use crate::{Container, Containers, Error, Phase, Result, ended};

/// How long a container gets to stop before it is killed (default).
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The state of a container that changed concurrently.
fn over(error: &runtime::Error) -> bool {
    matches!(
        error,
        runtime::Error::NotRunning { .. }
            | runtime::Error::NoContainer { .. }
            | runtime::Error::Lost { .. }
    )
}

impl Container {
    /// As it is now; nothing where it is gone.
    fn now(&self) -> Result<Option<Container>> {
        Containers::new(self.store.clone()).find(self.id())
    }

    /// Refuses what waits for an answer of its processes.
    fn answers(&self) -> Result<()> {
        match self.phase() {
            Phase::Paused => Err(Error::Paused { name: self.name().to_owned() }),
            _ if self.is_running() => Ok(()),
            _ => Err(self.not_running()),
        }
    }

    fn not_running(&self) -> Error {
        Error::NotRunning { name: self.name().to_owned(), phase: self.phase().as_str() }
    }

    /// Asks it to end, and kills it when it has not within `patience`. One that has ended, or ends
    /// meanwhile, has stopped. It is not started again by its restart policy.
    ///
    /// # Errors
    /// [`Error::Runtime`], also when the task is cancelled; [`Error::File`].
    pub fn stop(&self, patience: Option<Duration>, task: &Task) -> Result<()> {
        self.stop_by(None, patience, task)
    }

    /// As [`Container::stop`], asking with another signal than that of its specification.
    ///
    /// # Errors
    /// As there.
    pub fn stop_by(
        &self,
        signal: Option<Signal>,
        patience: Option<Duration>,
        task: &Task,
    ) -> Result<()> {
        let asked = self.record().spec.lifecycle.stop_timeout;
        let usual = asked.map_or(PATIENCE, |seconds| Duration::from_secs(seconds.into()));
        ended::note_stop(self.directory())?;
        if !self.again().is_ok_and(|now| now.is_running()) {
            return Ok(());
        }
        // Who is frozen hears no signal.
        self.thaw()?;
        let _shown = ended::show_stopping(self.directory());
        let signal = signal.unwrap_or_else(|| self.record().stop_signal());
        match runtime::stop(self.directory(), signal, patience.unwrap_or(usual), task) {
            Err(error) if !over(&error) => return Err(error.into()),
            _ => {}
        }
        self.note("stop", &[]);
        Ok(())
    }

    /// Sends a signal to its first process; SIGKILL ends all of them.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Runtime`].
    pub fn kill(&self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            return Err(self.not_running());
        }
        if signal == Signal::KILL || signal == self.record().stop_signal() {
            ended::note_stop(self.directory())?;
        }
        match runtime::signal(self.directory(), signal) {
            Err(error) if over(&error) => return Err(self.not_running()),
            sent => sent?,
        }
        if signal == Signal::KILL {
            self.thaw()?;
        }
        self.note("kill", &[("signal", signal.0.to_string())]);
        Ok(())
    }

    /// Whether it should run after boot: by its policy, and if the policy requires it, because no
    /// command stopped it.
    pub fn wants_start(&self) -> bool {
        let stopped = || ended::is_stopped(self.directory());
        match self.record().spec.lifecycle.restart {
            Restart::No | Restart::OnFailure(_) => false,
            Restart::Always => true,
            Restart::UnlessStopped => !stopped(),
        }
    }

    /// Waits for its end; at once for one that has ended.
    ///
    /// # Errors
    /// [`Error::Runtime`]: the process that watched it was killed, or it was never started.
    pub fn wait(&self, task: &Task) -> Result<ExitStatus> {
        Ok(runtime::wait(self.directory(), task)?)
    }

    /// Removes it with its changes. A running container is killed if `force` is set, else an error.
    /// A container that was removed concurrently is not an error.
    ///
    /// # Errors
    /// [`Error::Running`], [`Error::Store`].
    pub fn remove(&self, force: bool, task: &Task) -> Result<()> {
        let Some(now) = self.now()? else { return Ok(()) };
        if now.is_running() || now.phase() == Phase::Restarting {
            if !force {
                return Err(Error::Running { name: self.name().to_owned() });
            }
            self.stop(Some(Duration::ZERO), task)?;
        }
        self.unmount()?;
        crate::uplink::sweep(&self.store);
        if self.store.remove_container(self.id())? {
            self.note("destroy", &[]);
        }
        if self.record().spec.lifecycle.remove {
            self.discard_volumes();
        }
        Ok(())
    }

    /// Removes its anonymous volumes.
    pub fn discard_volumes(&self) {
        Volumes::new(self.store.clone()).discard(&self.record().volumes);
    }

    /// Takes away where its files are shown, if they are.
    fn unmount(&self) -> Result<()> {
        let merged = self.directory().join("merged");
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        while mounted(&merged) {
            rustix::mount::unmount(&merged, flags)
                .map_err(|errno| Error::file("unmounting", &merged)(errno.into()))?;
        }
        Ok(())
    }

    /// Waits until the container is gone, which its monitor sees to; at most this long.
    pub fn wait_gone(&self, patience: Duration) {
        let start = Instant::now();
        while self.directory().exists() && start.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs its health check now; whether it ended well.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; [`Error::Runtime`] where it has no check.
    pub fn check_health(&self, task: &Task) -> Result<bool> {
        self.answers()?;
        Ok(runtime::check_health(self.directory(), task)?.success())
    }

    /// Reads its log, oldest first.
    ///
    /// # Errors
    /// [`Error::Unsupported`]: it keeps none; [`Error::Runtime`].
    pub fn logs(
        &self,
        options: &LogOptions,
        task: &Task,
        each: &mut dyn FnMut(LogLine),
    ) -> Result<()> {
        if self.record().spec.lifecycle.log.off {
            return Err(Error::Unsupported {
                what: "reading the log",
                reason: format!("container {} keeps none: its log driver is none", self.name()),
            });
        }
        if self.state().is_none() {
            return Ok(());
        }
        Ok(runtime::logs(self.directory(), options, task, each)?)
    }

    /// Connects our standard streams with those of the container until it ends or the user
    /// detaches.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Runtime`].
    pub fn attach(&self, options: &AttachOptions, task: &Task) -> Result<AttachOutcome> {
        Ok(runtime::attach(self.directory(), options, task)?)
    }

    /// As [`Container::attach`], with only some of standard output and error shown.
    ///
    /// # Errors
    /// As there; [`Error::File`].
    pub fn attach_some(
        &self,
        shown: [bool; 2],
        options: &AttachOptions,
        task: &Task,
    ) -> Result<AttachOutcome> {
        let null = std::path::Path::new("/dev/null");
        let null = std::fs::File::options()
            .write(true)
            .open(null)
            .map_err(Error::file("opening", null))?;
        let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let streams = [
            input.as_fd(),
            if shown[0] { output.as_fd() } else { null.as_fd() },
            if shown[1] { error.as_fd() } else { null.as_fd() },
        ];
        Ok(runtime::attach_streams(self.directory(), options, streams, task)?)
    }

    /// Runs a further program in the container, with our standard streams.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Runtime`].
    pub fn exec(&self, exec: &Exec, options: &AttachOptions, task: &Task) -> Result<AttachOutcome> {
        self.answers()?;
        Ok(runtime::exec(self.directory(), exec, options, task)?)
    }

    /// Lays limits and a restart policy over what was asked for. A running container gets the limits
    /// at once.
    ///
    /// # Errors
    /// [`Error::Running`] for limits that hold from the start, while it runs; [`Error::Runtime`] where
    /// the machine does not take them; [`Error::File`].
    pub fn update(&self, limits: Limits, restart: Option<Restart>) -> Result<()> {
        let Some(now) = self.now()? else {
            return Err(Error::NoContainer { name: self.name().to_owned() });
        };
        if now.is_running() && limits.needs_start() {
            return Err(Error::Running { name: self.name().to_owned() });
        }
        let mut record = now.record().clone();
        if now.is_running() && limits != Limits::default() {
            runtime::update(self.directory(), &limits)?;
        }
        let change = ContainerSpec { limits, ..ContainerSpec::default() };
        record.spec = record.spec.merge(change);
        if let Some(restart) = restart {
            record.spec.lifecycle.restart = restart;
        }
        record.write(self.directory())?;
        self.note("update", &[]);
        Ok(())
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// [`Error::Store`] where the name is taken.
    pub fn rename(&self, name: &str) -> Result<()> {
        self.store.rename_container(self.id(), name)?;
        let on_networks = !self.record().spec.network.networks.is_empty();
        if on_networks && self.is_running() {
            // Without the process that holds its network it has none, until it starts again.
            if let Err(error) = network::rename(self.directory(), name) {
                tracing::warn!(%error, "the networks of the container know its old name");
            }
        }
        self.note("rename", &[("newName", name.to_owned())]);
        Ok(())
    }
}

pub(crate) fn mounted(path: &std::path::Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
