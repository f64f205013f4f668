//! `rbuild registry`: a registry in the box.

mod care;
mod place;
mod serve;

use clap::Subcommand;
use options::Failure;

use crate::app::App;
use crate::commands::Runnable;

/// Serve a registry and maintain its storage
#[derive(Debug, Subcommand)]
pub(crate) enum Registry {
    Serve(serve::Serve),
    Gc(care::Gc),
    Scrub(care::Scrub),
    Retention(care::Retention),
    CheckConfig(care::CheckConfig),
}

impl Runnable for Registry {
    fn run(self, app: &App) -> Result<u8, Failure> {
        match self {
            Registry::Serve(serve) => serve.run(app),
            Registry::Gc(gc) => gc.run(app),
            Registry::Scrub(scrub) => scrub.run(app),
            Registry::Retention(retention) => retention.run(app),
            Registry::CheckConfig(check) => check.run(),
        }
    }
}
