//! `rbuild registry`: a registry in the box.

mod care;
mod place;
mod serve;

use app::{App, Runnable};
use clap::Subcommand;
use options::Failure;

/// Serve a registry and maintain its storage
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the help of each command says it")]
pub enum Registry {
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
