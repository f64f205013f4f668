//! What tests require of the machine.
//!
//! A test that cannot run here asks one of these functions and returns. It is then reported as
//! ignored, with the reason: on standard error, whether or not the output of tests is captured, and
//! in the file that [`RECORD`] names. `./test` reads that file and fails if this machine could have
//! run the test.
//!
//! ```
//! fn copies_keep_owners() {
//!     if !requires::root() {
//!         return;
//!     }
//!     // ...
//! }
//! # copies_keep_owners();
//! ```

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The environment variable that names the file to which ignored tests are appended: a line each
/// with three fields separated by TABs, what is missing (`root`, `program NAME` or `machine`), the
/// name of the test, and the reason.
pub const RECORD: &str = "IGNORED_TESTS";

static IGNORED: AtomicUsize = AtomicUsize::new(0);

/// Whether this test runs as root. If not, it is reported as ignored.
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        ignore("root", "needs root");
    }
    root
}

/// Where an installed program is. If it is missing, the test is reported as ignored.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file());
    if found.is_none() {
        ignore(&format!("program {name}"), &format!("needs {name}"));
    }
    found
}

/// Reports the test as ignored because this machine cannot run it, whatever is installed: a feature
/// of the kernel, a file system, an emulator.
pub fn cannot(reason: &str) {
    ignore("machine", reason);
}

/// How many times something was missing in this process.
pub fn ignored() -> usize {
    IGNORED.load(Ordering::Relaxed)
}

fn ignore(missing: &str, reason: &str) {
    IGNORED.fetch_add(1, Ordering::Relaxed);
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("unnamed");
    // The print macros would be captured. A closed standard error is ignored.
    let _ = writeln!(std::io::stderr(), "test {test} ... ignored, {reason}");
    if let Some(record) = std::env::var_os(RECORD) {
        let line = format!("{missing}\t{test}\t{reason}\n");
        let file = OpenOptions::new().create(true).append(true).open(&record);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        // A test that runs as another user may not be able to; the line above is there all the same.
        if let Err(error) = written {
            let _ = writeln!(std::io::stderr(), "writing {}: {error}", record.display());
        }
    }
}
