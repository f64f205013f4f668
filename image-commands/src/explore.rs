//! `rcopy explore`: what is in an image, layer by layer and file by file.

use std::path::PathBuf;

use app::place::Access;
use app::place::open_layer;
use app::{App, Runnable, observed};
use clap::Args;
use explorer::ExploredImage;
use image::{Layer, Platform};
use options::Failure;
use options::ends::OneEnd;
use options::place::location;
use options::progress::Progress;
use task::Kind;

/// Explore an image: its layers, which step wrote each file, and wasted bytes
///
/// On a terminal this opens a browser; press ? for its keys. Without a terminal, or with --json or
/// --html, it writes a report. Layers are read as they arrive and not unpacked.
#[derive(Debug, Args)]
pub struct Explore {
    /// The image: transport:…; a bare name is an image in the store
    image: String,
    /// Choose the image of this platform in an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Write the report as one self-contained HTML file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print layers and wasted bytes as JSON
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// Print the summary on a terminal too
    #[arg(long, conflicts_with_all = ["html", "json"])]
    summary: bool,
    /// Fail if more than this percentage of the layer bytes is wasted
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    max_wasted: Option<u8>,
    #[command(flatten)]
    registry: OneEnd,
}

impl Runnable for Explore {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let location = location(&self.image, "store:")?;
        let explored = observed("explore", Progress::Auto, |task| {
            let access = Access::new(app, self.registry.reach_at(&location)?);
            let source = access.source(&location)?;
            let platform = self.platform.clone().unwrap_or_else(Platform::host);
            let (_, image) = app.wait(transport::open(&*source, &platform))??;
            let mut open = |layer: &Layer<'_>| open_layer(app, &*source, layer);
            Ok(explorer::explore(&location.to_string(), &image, &mut open, task)?)
        })?;
        if let Some(file) = &self.html {
            let page = explorer::html(&explored);
            std::fs::write(file, page)
                .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?;
            eprintln!("wrote {}", file.display());
        } else if self.json {
            outln!("{:#}", explorer::json(&explored));
        } else if !self.summary && shown(&explored)? {
            // The user has seen it on the screen.
        } else {
            out!("{}", explorer::summary(&explored));
        }
        match self.max_wasted {
            Some(limit) => allowed(&explored, limit),
            None => Ok(0),
        }
    }
}

/// Shows it on the screen, if there is a terminal and the feature.
#[cfg(feature = "explore")]
fn shown(explored: &ExploredImage) -> Result<bool, Failure> {
    use std::io::IsTerminal as _;

    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if terminal {
        explorer::show(explored)?;
    }
    Ok(terminal)
}

#[cfg(not(feature = "explore"))]
fn shown(_explored: &ExploredImage) -> Result<bool, Failure> {
    Ok(false)
}

fn allowed(explored: &ExploredImage, limit: u8) -> Result<u8, Failure> {
    if !explored.wastes_more_than(limit) {
        return Ok(0);
    }
    let (carried, wasted) = explored.carried_and_wasted();
    let what = format!(
        "{wasted} of {carried} bytes in the layers of {} are wasted, more than {limit} percent",
        explored.name
    );
    Err(Failure::new(Kind::Refused, what)
        .hint("remove files in the step that makes them, or build with --squash"))
}
