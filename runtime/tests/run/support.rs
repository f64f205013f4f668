//! A root file system, and containers in it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use runtime::{Bundle, Container, ContainerSpec, Error, ExitStatus, StartOptions, Stdio};
use task::{Event, Observer, Task};

/// Collects what containers write.
#[derive(Default)]
pub(crate) struct Output(Mutex<Vec<u8>>);

impl Observer for Output {
    fn event(&self, event: Event) {
        if let Event::Output { bytes, .. } = event {
            self.0.lock().unwrap().extend(bytes);
        }
    }
}

impl Output {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// A root file system of one static busybox.
pub(crate) struct Rootfs(pub(crate) tempfile::TempDir);

impl Rootfs {
    pub(crate) fn new() -> Rootfs {
        let dir = tempfile::tempdir().unwrap();
        let root = Rootfs(dir);
        for name in ["bin", "etc", "tmp", "proc", "dev", "sys", "root"] {
            fs::create_dir(root.path(name)).unwrap();
        }
        fs::copy("/bin/busybox", root.path("bin/busybox")).unwrap();
        let applets = "sh cat echo true false sleep id env ls stat touch mkdir ln rm mount umount grep \
            kill ps test hostname head dd wc readlink mknod tty stty ip sed cut tr sort chmod su nproc mv printf";
        for applet in applets.split_whitespace() {
            symlink("busybox", root.path("bin").join(applet)).unwrap();
        }
        root.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:7:8::/home/app:/bin/sh\n");
        root.write("etc/group", "root:x:0:\napps:x:8:\nextra:x:9:app\n");
        let dir = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(root.0.path(), dir).unwrap();
        root
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside)
    }

    pub(crate) fn write(&self, inside: &str, text: &str) {
        fs::write(self.path(inside), text).unwrap();
    }

    pub(crate) fn bundle(&self, spec: &ContainerSpec) -> Result<Bundle, Error> {
        let mut spec = spec.clone();
        spec.isolation.user_namespace = runtime::in_user_namespace();
        let read = |name: &str| Ok(fs::read_to_string(self.path(name)).ok());
        let spec = runtime::spec(&image::ContainerConfig::default(), &spec, &|file| match file {
            runtime::UserFile::Passwd => read("etc/passwd"),
            runtime::UserFile::Group => read("etc/group"),
        })?;
        Ok(Bundle { spec, rootfs: OwnedFd::from(fs::File::open(self.0.path()).unwrap()) })
    }

    /// Runs a container and gives its end and output.
    pub(crate) fn try_run(&self, spec: &ContainerSpec) -> Result<(ExitStatus, String), Error> {
        let output = Arc::new(Output::default());
        let task = Task::root("test", output.clone());
        let options = StartOptions { id: id(), init: spec.process.init, ..StartOptions::default() };
        let container = Container::start(self.bundle(spec)?, Stdio::Capture, &options)?;
        let status = container.wait(&task)?;
        Ok((status, output.text()))
    }

    /// Runs a shell line in a container and gives its output; it must succeed.
    pub(crate) fn shell(&self, line: &str, spec: &ContainerSpec) -> String {
        let (status, text) = self
            .try_run(&with_shell(line, spec))
            .unwrap_or_else(|error| panic!("{}", describe(&error)));
        assert!(status.success(), "{line}: {status:?}\n{text}");
        text
    }
}

/// The error with everything that caused it.
pub(crate) fn describe(error: &Error) -> String {
    task::chain(error).join(": ")
}

pub(crate) fn with_shell(line: &str, spec: &ContainerSpec) -> ContainerSpec {
    let mut spec = spec.clone();
    spec.process.command = command(&["sh", "-c", line]);
    spec
}

pub(crate) fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A unique name.
pub(crate) fn id() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("runtime-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Whether this is the real root of the machine.
pub(crate) fn real_root() -> bool {
    !runtime::in_user_namespace()
}

/// As [`real_root`]; the test is reported as ignored where it is not.
pub(crate) fn needs_real_root() -> bool {
    if !real_root() {
        requires::cannot("needs root outside of a user namespace");
    }
    real_root()
}

/// Whether a path exists, links not followed.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
