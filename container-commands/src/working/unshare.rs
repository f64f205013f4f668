//! `rbuild unshare`: a user namespace to mount working containers in.

use std::process::Command;

use app::{App, Runnable, observed};
use builder::working::WorkingContainer;
use clap::Args;
use options::Failure;
use options::progress::Progress;
use task::Kind;

use super::locked;

/// Run a command in a user namespace, where ordinary users can mount containers
#[derive(Debug, Args)]
pub struct Unshare {
    /// Mount this container; VARIABLE (or NAME itself) contains the path
    #[arg(short, long, value_name = "[VARIABLE=]NAME", value_delimiter = ',')]
    mount: Vec<String>,
    /// The command and its arguments (default: $SHELL)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Runnable for Unshare {
    /// Runs it; gives back its exit code.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let mut words = self.command.iter().map(String::as_str);
        let shell = std::env::var("SHELL").ok().filter(|shell| !shell.is_empty());
        let program = words.next().or(shell.as_deref()).unwrap_or("/bin/sh");
        let mut command = Command::new(program);
        command.args(words);
        let mut mounted: Vec<WorkingContainer> = Vec::new();
        for text in &self.mount {
            let (variable, name) = text.split_once('=').unwrap_or((text, text));
            let (working, path) = observed("mount", Progress::Quiet, |task| {
                let working = locked(app.store()?, name, task)?;
                let path = working.attach()?;
                Ok((working, path))
            })?;
            command.env(variable, path);
            // The command may work on the container itself: it is not locked meanwhile.
            mounted.extend(WorkingContainer::find(app.store()?, working.id())?);
        }
        let ended = command.status();
        for working in mounted {
            working.detach()?;
        }
        use std::os::unix::process::ExitStatusExt;
        match ended {
            Ok(status) => {
                let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
                Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
            }
            Err(error) => {
                let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
                let failure = Failure::io(format!("starting {program}"), &error);
                Err(Failure { code: Some(code), kind: Kind::NotFound, ..failure })
            }
        }
    }
}
