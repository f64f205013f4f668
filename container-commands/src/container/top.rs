//! `rbuild top`.

use app::{App, Runnable};
use clap::Args;
use containers::TopView;
use options::environment::now;
use options::flags::wrong_use;
use options::{Dialect, Failure};

use super::choice::one;

/// Show the processes of a container
#[derive(Debug, Args)]
pub struct Top {
    /// Show the newest container
    #[arg(short, long)]
    latest: bool,
    /// The container, then options of ps: -o COLUMNS, -ef, aux, or the names of columns
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_names = ["CONTAINER", "OPTIONS"])]
    container_and_options: Vec<String>,
}

impl Runnable for Top {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let (name, options) = match (self.latest, self.container_and_options.split_first()) {
            (false, Some((name, options))) => (Some(name.as_str()), options),
            (_, _) => (None, &self.container_and_options[..]),
        };
        let processes = one(app, name, self.latest)?.processes()?;
        let wanted = TopView { now: now(), inside: Dialect::spoken() == Dialect::Podman };
        let table = containers::process_table(&processes, options, wanted).map_err(wrong_use)?;
        out!("{table}");
        Ok(0)
    }
}
