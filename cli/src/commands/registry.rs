//! `rbuild registry`: a registry in the box.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::app::App;
use crate::report::Failure;

/// Serve images to other programs
#[derive(Debug, Subcommand)]
pub(crate) enum Registry {
    Serve(Serve),
}

/// Serve a directory as a registry until stopped
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    address: SocketAddr,
    /// Where images are kept
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Write the port to a file once it listens
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
}

impl Registry {
    /// Serves.
    ///
    /// # Errors
    /// The address is taken; the directory cannot be written.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let Registry::Serve(serve) = self;
        serve.run(app)
    }
}

impl Serve {
    fn run(self, _app: &App) -> Result<u8, Failure> {
        Err(Failure::usage(format!(
            "serving {} on {} is not supported yet",
            self.directory.display(),
            self.address
        )))
    }
}
