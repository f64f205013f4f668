//! `rbuild registry serve`.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;

use app::{App, Runnable};
use clap::Args;
use options::Failure;
use registry_server::{Auth, Log};

use super::place::Place;

/// Serve a directory or a bucket as a registry until stopped
///
/// Implements the distribution-spec 1.1 with referrers and deletion. A configuration file adds TLS,
/// passwords, tokens, access rules, pull-through caches, immutable tags and retention. Several
/// servers can share one bucket or directory. At SIGTERM the server finishes running requests. For
/// monitoring it has /metrics, /healthz and /readyz.
#[derive(Debug, Args)]
pub struct Serve {
    /// Listen on this address; port 0 takes a free port (default: 127.0.0.1:5000)
    #[arg(long, value_name = "ADDRESS:PORT", env = "RBUILD_REGISTRY_ADDRESS")]
    address: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Fetch what upstreams have from these servers first: HOST:PORT, or dns:NAME:PORT for all
    /// addresses of a name; the server finds itself among them
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    peers: Vec<String>,
    /// Write a line of JSON for each request to standard output
    #[arg(long)]
    access_log: bool,
    /// Write the port to a file when the server listens
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
}

impl Runnable for Serve {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let found = self.place.find()?;
        let mut options = found.options;
        let address = self.address.or(found.address).unwrap_or("127.0.0.1:5000".to_owned());
        let listening =
            |error: std::io::Error| Failure::io(format!("listening on {address}"), &error);
        let listener = TcpListener::bind(&address).map_err(listening)?;
        let local = listener.local_addr().map_err(listening)?;
        options.share(self.peers, local.port())?;
        if self.access_log || found.access_log == Some(true) {
            options.log = Some(Log::new(|line| {
                // The reader may be gone; that is no reason to stop serving.
                let _ = writeln!(std::io::stdout().lock(), "{line}");
            }));
        }
        if let Some(directory) = &options.directory {
            std::fs::create_dir_all(directory)
                .map_err(|error| Failure::io(format!("making {}", directory.display()), &error))?;
        }
        let place = match (&options.bucket, &options.directory) {
            (Some(bucket), _) => format!("the bucket {}", bucket.bucket),
            (None, Some(directory)) => directory.display().to_string(),
            (None, None) => "memory".to_owned(),
        };
        let open = matches!(options.auth, Auth::None) && !local.ip().is_loopback();
        if let Some(file) = &self.port_file {
            std::fs::write(file, local.port().to_string())
                .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?;
        }
        eprintln!("serving {place} as a registry on {local}");
        if open {
            eprintln!(
                "warning: anyone who can reach {local} can push and delete; see [auth] in --config"
            );
        }
        listener.set_nonblocking(true).map_err(listening)?;
        app.wait(async {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(listening)?;
            let signals = |error| Failure::io("waiting for signals", &error);
            use tokio::signal::unix::{SignalKind, signal};
            let mut term = signal(SignalKind::terminate()).map_err(signals)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
            let stop = async {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            Ok::<_, Failure>(registry_server::serve(listener, options, stop).await?)
        })??;
        Ok(0)
    }
}
