//! An ordinary user of this machine with subordinate ids, made for tests where he is missing.

use std::fs::File;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The name.
pub const NAME: &str = "rbuildtest";
const LOCK: &str = "/tmp/rbuildtest.lock";

/// The user; removed again when no test needs it, if it was made here.
pub struct User {
    /// His user id.
    pub uid: u32,
    /// His group's id.
    pub gid: u32,
    made: bool,
    lock: File,
}

static USER: Mutex<Weak<User>> = Mutex::new(Weak::new());

impl User {
    /// The user, shared by all tests of this process; `None` where this is not root.
    pub fn get() -> Option<Arc<User>> {
        if !crate::root() {
            return None;
        }
        let mut known = USER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(user) = known.upgrade() {
            return Some(user);
        }
        let user = Arc::new(User::find_or_make());
        *known = Arc::downgrade(&user);
        Some(user)
    }

    fn find_or_make() -> User {
        // Other processes may run the same tests.
        let lock = File::create(LOCK).expect("a lock file");
        lock.lock().expect("a lock");
        let made = ids().is_none();
        if made {
            let shell = ["--no-create-home", "--user-group", "--shell", "/bin/sh", NAME];
            crate::run(Command::new("useradd").args(shell)).ok();
        }
        for (file, flag) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
            let known = std::fs::read_to_string(file).unwrap_or_default();
            if !known.lines().any(|line| line.starts_with(&format!("{NAME}:"))) {
                crate::run(Command::new("usermod").args([flag, "700000-765535", NAME])).ok();
            }
        }
        let (uid, gid) = ids().expect("the user exists now");
        lock.lock_shared().expect("a lock");
        User { uid, gid, made, lock }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.made && self.lock.try_lock().is_ok() {
            let _ = Command::new("userdel").arg(NAME).status();
        }
    }
}

fn ids() -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("a user database");
    let line = passwd.lines().find_map(|line| line.strip_prefix(&format!("{NAME}:")))?;
    let fields: Vec<&str> = line.split(':').collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(2)?.parse().ok()?))
}
