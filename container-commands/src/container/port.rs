//! `rbuild port`.

use app::{App, Runnable};
use clap::Args;
use options::Failure;
use task::Kind;

use super::choice::one;
use super::containers;

/// Show the published ports of a container
#[derive(Debug, Args)]
pub struct Port {
    /// Show the ports of all running containers
    #[arg(short, long, conflicts_with_all = ["container", "latest"])]
    all: bool,
    /// Show the ports of the newest container
    #[arg(short, long)]
    latest: bool,
    /// The container
    container: Option<String>,
    /// Show this port of the container only
    #[arg(value_name = "PORT[/udp]")]
    port: Option<String>,
}

impl Runnable for Port {
    fn run(self, app: &App) -> Result<u8, Failure> {
        if self.all {
            for container in containers(app)?.list()? {
                for port in container.published() {
                    let (inside, protocol) = (port.container, port.protocol.as_str());
                    outln!("{} {inside}/{protocol} -> {}", &container.id()[..12], port.machine);
                }
            }
            return Ok(0);
        }
        let container = one(app, self.container.as_deref(), self.latest)?;
        let published = container.published();
        let Some(text) = self.port else {
            for port in &published {
                let (inside, protocol) = (port.container, port.protocol.as_str());
                outln!("{inside}/{protocol} -> {}", port.machine);
            }
            return Ok(0);
        };
        let wanted = network::exposed(&text)?;
        let here = published.iter().filter(|p| wanted.contains(&(p.container, p.protocol)));
        let here: Vec<_> = here.collect();
        if here.is_empty() {
            let message = format!("port {text} of container {} is not published", container.name());
            return Err(Failure::new(Kind::NotFound, message));
        }
        for port in here {
            outln!("{}", port.machine);
        }
        Ok(0)
    }
}
