//! The flags that name another OCI runtime.

use clap::Args;
use runtime::OtherRuntime;

use crate::Failure;

/// The OCI runtime of the commands of builds and working containers.
#[derive(Debug, Clone, Default, Args)]
pub struct RuntimeFlags {
    /// Run commands by this OCI runtime, such as crun, runc or runsc; a program in $PATH or a path
    /// (default: the one built in). `run` takes it for working containers
    #[arg(long, value_name = "PROGRAM", help_heading = "Security")]
    runtime: Option<String>,
    /// Give the runtime this flag of its own, without the leading dashes
    #[arg(
        long,
        value_name = "FLAG",
        allow_hyphen_values = true,
        requires = "runtime",
        help_heading = "Security"
    )]
    runtime_flag: Vec<String>,
}

/// What a runtime sees of the environment.
const SEEN: [&str; 5] = ["PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"];

impl RuntimeFlags {
    /// The flag given, if one is.
    pub fn given(&self) -> bool {
        self.runtime.is_some()
    }

    /// The runtime. Its bundle has no place yet.
    ///
    /// # Errors
    /// There is no such program.
    pub fn other(&self) -> Result<Option<OtherRuntime>, Failure> {
        let Some(name) = &self.runtime else { return Ok(None) };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places: Vec<_> =
            std::env::split_paths(&path).map(|place| place.join(name)).collect();
        if name.contains('/') {
            places = vec![crate::environment::absolute(name.as_ref())?];
        }
        let found = places.into_iter().find(|place| place.is_file()).ok_or_else(|| {
            Failure::usage(format!("--runtime {name}: there is no such program")).hint(
                "name one in $PATH, or a path; without the flag commands run in the built-in one",
            )
        })?;
        let seen = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
        Ok(Some(OtherRuntime {
            program: found,
            flags: self.runtime_flag.iter().map(|flag| format!("--{flag}")).collect(),
            environment: SEEN.into_iter().filter_map(seen).collect(),
            ..OtherRuntime::default()
        }))
    }
}
