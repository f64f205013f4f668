//! `policy explain`: which rule decides about an image, and what it says.

use app::place::Access;
use app::{App, Runnable, observed};
use clap::{Args, Subcommand};
use options::progress::Progress;
use options::registry::RegistryFlags;
use options::{Failure, environment};

use crate::sign::{by, image_location};

/// Query the signature policy
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Show which rule applies to an image, and whether it accepts the image
    Explain(Explain),
}

/// The question.
#[derive(Debug, Args)]
pub struct Explain {
    /// The image: NAME on a registry, or transport:…
    image: String,
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Runnable for PolicyCommand {
    /// Explains; the exit code says whether the image may be used.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let PolicyCommand::Explain(explain) = self;
        let Some(file) = app.conf.paths.policy(app.conf.globals.policy.as_deref()) else {
            outln!("policy: none, every image may be used");
            return Ok(0);
        };
        let policy = sign::Policy::open(&environment::absolute(&file)?)?;
        let location = image_location(&explain.image)?;
        let (gate, verified) = (app.policy_gate()?, std::sync::OnceLock::new());
        let checked = observed("explain", Progress::Auto, |task| {
            let source = Access::new(app, explain.registry.reach()?).source(&location)?;
            app.wait(async {
                let image = source.resolve().await.map_err(Failure::of)?;
                let place = source.location();
                let (scope, requirements) = policy.explain(place.as_ref());
                outln!("policy: {}", file.display());
                outln!("image: {} {}", explain.image, image.digest);
                outln!("rule: {scope}");
                requirements.iter().for_each(|line| outln!("  requires {line}"));
                if let Some(gate) = &gate {
                    let good = gate.verify(&*source, &image, task).await;
                    let _ = verified.set(good.map_err(Failure::of)?);
                }
                Ok::<_, Failure>(())
            })?
        });
        checked?;
        for good in verified.get().into_iter().flatten() {
            let name = good.name().unwrap_or("(no name)");
            outln!("  signed as {name} {}", by(good.signer()));
        }
        outln!("verdict: it may be used");
        Ok(0)
    }
}
