//! `rcopy validate`: whether every part of an image is what it is named.

use std::path::PathBuf;

use app::place::Access;
use app::{App, Runnable, observed};
use clap::Args;
use options::ends::OneEnd;
use options::place::location;
use options::progress::Progress;
use options::{Failure, environment};
use serde_json::json;
use transport::{Finding, ImageSelector, Location};

/// Check every digest, size and diffID of an image, and that its documents are consistent
#[derive(Debug, Args)]
pub struct Validate {
    /// The image: a name on a registry, or transport:…
    #[arg(required_unless_present_any = ["remote", "tarball"], conflicts_with_all = ["remote", "tarball"])]
    image: Option<String>,
    /// Check an image on a registry
    #[arg(long, value_name = "NAME", conflicts_with = "tarball")]
    remote: Option<String>,
    /// Check an image in a tarball of `docker save`
    #[arg(long, value_name = "FILE")]
    tarball: Option<PathBuf>,
    /// Check the documents only, not the layers
    #[arg(long)]
    fast: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Validate {
    /// Checks every image there is; ends with 1 if one has a fault.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let location = match (&self.image, &self.remote, &self.tarball) {
            (Some(image), ..) => location(image, "docker://")?,
            (None, Some(name), _) => location(name, "docker://")?,
            (None, None, Some(file)) => {
                Location::DockerArchive(environment::absolute(file)?, ImageSelector::Only)
            }
            (None, None, None) => return Err(Failure::usage("there is no image to validate")),
        };
        let found = observed(&format!("validate {location}"), Progress::Auto, |task| {
            let source = Access::new(app, self.end.reach_at(&location)?).source(&location)?;
            Ok(app.wait(transport::validate(&*source, self.fast, task))??)
        })?;
        let bad = found.iter().any(|one| !one.problems.is_empty());
        if self.json {
            let one = |one: &Finding| {
                json!({"digest": one.descriptor.digest, "what": one.summary,
                    "ok": one.problems.is_empty(), "problems": one.problems})
            };
            let list: Vec<_> = found.iter().map(one).collect();
            outln!("{:#}", json!({"image": location.to_string(), "ok": !bad, "parts": list}));
        } else {
            for one in &found {
                let word = if one.problems.is_empty() { "ok" } else { "BAD" };
                outln!("{word} {} {}", one.descriptor.digest, one.summary);
                one.problems.iter().for_each(|problem| outln!("  {problem}"));
            }
            outln!("{}: {location}", if bad { "FAIL" } else { "PASS" });
        }
        Ok(u8::from(bad))
    }
}
