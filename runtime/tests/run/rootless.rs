//! The same containers as an ordinary user: this program again, with other ids.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// An account that every machine has.
const NOBODY: u32 = 65_534;

/// Runs the whole program again as an ordinary user, if this one is root. Gives whether all is well.
pub(crate) fn again(subordinate: bool) -> bool {
    let name = if subordinate { "with subordinate ids" } else { "with a single id" };
    if subordinate && requires::program("newuidmap").is_none() {
        return true;
    }
    println!("\nas an ordinary user {name}:");
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("run");
    fs::copy("/proc/self/exe", &program).unwrap();
    let open: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory.path(), open.clone()).unwrap();
    fs::set_permissions(&program, open).unwrap();
    let file = directory.path().join("subid");
    let text = if subordinate { format!("{NOBODY}:200000:65536\n") } else { String::new() };
    fs::write(&file, text).unwrap();
    let mut command = Command::new(&program);
    command.args(std::env::args_os().skip(1)).env("AS_USER", "1").current_dir("/");
    let prepare = move || {
        use rustix::mount::{MountPropagationFlags as Flags, mount_bind, mount_change};
        // SAFETY: takes a flag word; this process is about to become another program.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        mount_change("/", Flags::PRIVATE | Flags::REC)?;
        for place in ["/etc/subuid", "/etc/subgid"] {
            mount_bind(&file, place)?;
        }
        // SAFETY: plain system calls with numbers; no groups are read.
        let done = unsafe {
            libc::setgroups(0, std::ptr::null()) == 0
                && libc::setresgid(NOBODY, NOBODY, NOBODY) == 0
                && libc::setresuid(NOBODY, NOBODY, NOBODY) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec only system calls are made; the paths were made before.
    unsafe { command.pre_exec(prepare) };
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            requires::cannot(&format!("becoming an ordinary user: {error}"));
            true
        }
    }
}
