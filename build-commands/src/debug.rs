//! `rbuild debug`: what failing steps left.

use std::io::IsTerminal;

use app::format::ago;
use app::values::{agent, secret};
use app::{App, Runnable, format, observed};
use builder::RunOptions;
use builder::debug::{Inspection, KeptFailure};
use clap::{Args, Subcommand};
use options::progress::Progress;
use options::{Failure, Reach, environment};
use serde_json::{Value, json};

use crate::bud::{kept as kept_run, network, own_terminal, wants_proxy};

/// Inspect failed steps that `bud --on-failure=keep` kept
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the help of each command says it")]
pub enum Debug {
    #[command(alias = "list")]
    Ls(Ls),
    Shell(Shell),
    #[command(alias = "remove")]
    Rm(Rm),
}

impl Runnable for Debug {
    fn run(self, app: &App) -> Result<u8, Failure> {
        match self {
            Debug::Ls(ls) => ls.run(app),
            Debug::Shell(shell) => shell.run(app),
            Debug::Rm(rm) => rm.run(app),
        }
    }
}

/// List kept failures
#[derive(Debug, Args)]
pub struct Ls {
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// Format each failed step with a Go template, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Ls {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let kept = KeptFailure::all(app.store()?)?;
        let time = |kept: &KeptFailure| {
            let seconds = i64::try_from(kept.failed.time).unwrap_or_default();
            jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
        };
        let value = |kept: &KeptFailure| {
            json!({
                "ID": kept.id(), "Name": kept.name(), "Place": kept.failed.place,
                "Instruction": kept.failed.instruction, "Status": kept.failed.status,
                "CreatedAt": time(kept),
            })
        };
        match self.format.as_deref() {
            Some("json") => outln!("{:#}", kept.iter().map(value).collect::<Value>()),
            Some(template) => {
                for kept in &kept {
                    outln!("{}", format::template(template, &value(kept))?);
                }
            }
            None if self.quiet => kept.iter().for_each(|kept| outln!("{}", kept.name())),
            None => {
                let rows = kept.iter().map(|kept| {
                    vec![
                        kept.name().to_owned(),
                        kept.failed.place.clone(),
                        ago(&time(kept)),
                        kept.failed.status.clone(),
                        format::cut(&kept.failed.instruction, 48),
                    ]
                });
                let header = ["ID", "PLACE", "CREATED", "STATUS", "INSTRUCTION"];
                out!("{}", format::table(&header, &rows.collect::<Vec<_>>()));
            }
        }
        Ok(0)
    }
}

/// Open a shell or run a command with the files, mounts, variables and user of a failed step
#[derive(Debug, Args)]
pub struct Shell {
    /// Provide a secret of the step again: id=NAME,src=FILE or id=NAME,env=VARIABLE
    #[arg(long, value_name = "id=…")]
    secret: Vec<String>,
    /// Provide an agent of the step again: default ($SSH_AUTH_SOCK), or ID=SOCKET
    #[arg(long, value_name = "default|ID=SOCKET")]
    ssh: Vec<String>,
    /// The kept failure, then a command and its arguments (default: the step's shell)
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["ID", "COMMAND"])]
    id_and_command: Vec<String>,
}

impl Shell {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let (id, command) = match self.id_and_command.split_first() {
            Some((id, command)) => (id, command),
            None => return Err(Failure::usage("there is no id")),
        };
        let kept = KeptFailure::require(app.store()?, id)?;
        let base = kept_run(&kept.failed)
            .map_err(|failure| failure.context("using the options of the build"))?;
        let proxies = if wants_proxy(&base) { environment::proxies() } else { Vec::new() };
        let with = Inspection {
            network: network(&base),
            run: RunOptions { base, ..RunOptions::default() },
            proxy: proxies.into_iter().collect(),
            secrets: self.secret.iter().map(|text| secret(text)).collect::<Result<_, _>>()?,
            ssh: self.ssh.iter().map(|text| agent(text)).collect::<Result<_, _>>()?,
            command: command.strip_prefix(&["--".to_owned()]).unwrap_or(command).to_vec(),
        };
        let both = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let terminal = both.then(own_terminal).transpose()?;
        let status = observed("debug", Progress::Plain, |task| {
            let env = app.env(&Reach::default())?;
            Ok(kept.enter(with, terminal.as_ref(), &env, task)?)
        })?;
        Ok(status.code())
    }
}

/// Remove kept failures
#[derive(Debug, Args)]
pub struct Rm {
    /// Remove all
    #[arg(short, long, conflicts_with = "ids")]
    all: bool,
    /// The kept failures
    #[arg(required_unless_present = "all")]
    ids: Vec<String>,
}

impl Rm {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        let mut found = Vec::new();
        for id in &self.ids {
            found.push(KeptFailure::require(store, id)?);
        }
        if self.all {
            found = KeptFailure::all(store)?;
        }
        for kept in found {
            let name = kept.name().to_owned();
            kept.remove()?;
            outln!("{name}");
        }
        Ok(0)
    }
}
