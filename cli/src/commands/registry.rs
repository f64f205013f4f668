//! `rbuild registry`: a registry in the box.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::app::App;
use crate::config;
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
    fn run(self, app: &App) -> Result<u8, Failure> {
        let listening =
            |error: std::io::Error| Failure::io(format!("listening on {}", self.address), &error);
        let listener = TcpListener::bind(self.address).map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        std::fs::create_dir_all(&self.directory)
            .map_err(|error| Failure::io(format!("making {}", self.directory.display()), &error))?;
        let options = registry_server::Options {
            directory: Some(config::absolute(&self.directory)?),
            ..registry_server::Options::default()
        };
        if let Some(file) = &self.port_file {
            std::fs::write(file, address.port().to_string())
                .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?;
        }
        eprintln!("serving {} as a registry on {address}", self.directory.display());
        listener.set_nonblocking(true).map_err(listening)?;
        app.wait(async {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(listening)?;
            Ok::<_, Failure>(registry_server::serve(listener, options).await?)
        })??;
        Ok(0)
    }
}
