//! `rbuild port`.

use clap::Args;
use options::Failure;
use task::Kind;

use super::require;
use crate::app::App;
use crate::commands::Runnable;

/// Show the published ports of a container
#[derive(Debug, Args)]
pub(crate) struct Port {
    /// The container
    container: String,
    /// Show this port of the container only
    #[arg(value_name = "PORT[/udp]")]
    port: Option<String>,
}

impl Runnable for Port {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let published = require(app, &self.container)?.published();
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
            let message = format!("port {text} of container {} is not published", self.container);
            return Err(Failure::new(Kind::NotFound, message));
        }
        for port in here {
            outln!("{}", port.machine);
        }
        Ok(0)
    }
}
