//! What containers are, use and can be.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use options::Failure;
use runtime::{ContainerSpec, Engine, Usage};
use serde_json::{Value, json};
use task::Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Print the state of a container, as the runtime-spec defines it
#[derive(Debug, Args)]
pub(super) struct State {
    /// Name of the container
    id: String,
}

impl State {
    pub(super) fn run(&self, engine: &Engine) -> Result<u8, Failure> {
        let state = engine.state(&self.id)?;
        outln!("{:#}", json!(state));
        Ok(0)
    }
}

/// List containers
#[derive(Debug, Args)]
pub(super) struct List {
    /// Print in this format: table or json
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

impl List {
    pub(super) fn run(&self, engine: &Engine) -> Result<u8, Failure> {
        let all = engine.list();
        if self.quiet {
            all.iter().for_each(|one| outln!("{}", one.id));
        } else if self.format == Format::Json {
            outln!("{}", json!(all));
        } else {
            outln!("{:<24} {:<10} {:<10} {:<30} BUNDLE", "ID", "PID", "STATUS", "CREATED");
            for one in &all {
                let bundle = one.bundle.display();
                outln!(
                    "{:<24} {:<10} {:<10} {:<30} {bundle}",
                    one.id,
                    one.pid,
                    one.status,
                    one.created
                );
            }
        }
        Ok(0)
    }
}

/// List the processes of a container
#[derive(Debug, Args)]
pub(super) struct Ps {
    /// Print in this format: table or json
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
    /// Name of the container
    id: String,
}

impl Ps {
    pub(super) fn run(&self, engine: &Engine) -> Result<u8, Failure> {
        let pids = engine.processes(&self.id)?;
        if self.format == Format::Json {
            outln!("{}", json!(pids));
            return Ok(0);
        }
        outln!("{:<10} COMMAND", "PID");
        for pid in pids {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> =
                line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            let command: String =
                words.join(" ").chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            outln!("{pid:<10} {}", command.trim_end());
        }
        Ok(0)
    }
}

/// Write a default config.json
#[derive(Debug, Args)]
pub(super) struct Spec {
    /// Directory of the bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
}

impl Spec {
    pub(super) fn run(&self) -> Result<u8, Failure> {
        let mut wanted = ContainerSpec::default();
        wanted.process.command = vec!["sh".to_owned()];
        wanted.process.terminal = true;
        wanted.isolation.user_namespace = runtime::in_user_namespace();
        let spec = runtime::spec(&image::ContainerConfig::default(), &wanted, &|_| Ok(None))?;
        let path = self.bundle.join("config.json");
        let text = serde_json::to_string_pretty(&spec)
            .map_err(|error| Failure::new(Kind::System, format!("writing a config: {error}")))?;
        let file = std::fs::File::options().write(true).create_new(true).open(&path);
        let written =
            file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
        written.map_err(|error| Failure::io(format!("writing {}", path.display()), &error))?;
        Ok(0)
    }
}

/// Print the resource usage of a container
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Print once and exit
    #[arg(long)]
    stats: bool,
    /// Print at this interval, such as 5s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = interval)]
    interval: Duration,
    /// Name of the container
    id: String,
}

fn interval(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|one| one.try_into().ok());
    parsed
        .filter(|one: &Duration| !one.is_zero())
        .ok_or_else(|| format!("{text:?} is not a duration such as 5s"))
}

impl Events {
    pub(super) fn run(&self, engine: &Engine) -> Result<u8, Failure> {
        loop {
            let state = engine.state(&self.id)?;
            if state.status == "stopped" && !self.stats {
                return Ok(0);
            }
            let data = statistics(engine.usage(&self.id)?);
            outln!("{}", json!({"type": "stats", "id": self.id, "data": data}));
            if self.stats {
                return Ok(0);
            }
            std::thread::sleep(self.interval);
        }
    }
}

/// The numbers as runc names them.
fn statistics(usage: Usage) -> Value {
    json!({
        "cpu": {"usage": {"total": usage.cpu.unwrap_or(0)}},
        "memory": {"usage": {"usage": usage.memory.unwrap_or(0), "limit": usage.memory_limit.unwrap_or(u64::MAX)}},
        "pids": {"current": usage.pids.unwrap_or(0), "limit": usage.pids_limit.unwrap_or(0)},
    })
}

/// Print the supported features of the runtime-spec
#[derive(Debug, Args)]
pub(super) struct Features {}

impl Features {
    pub(super) fn run(&self) -> Result<u8, Failure> {
        outln!("{:#}", runtime::features());
        Ok(0)
    }
}
