//! `rcopy ratelimit`: how much may be asked of a registry.

use app::place::Access;
use app::{App, Runnable};
use clap::Args;
use options::Failure;
use options::ends::OneEnd;
use options::place::location;
use registry_client::Target;
use serde_json::json;
use task::Kind;
use transport::Location;

/// Show the remaining rate limit of a registry
#[derive(Debug, Args)]
pub struct RateLimit {
    /// An image on the registry; for Docker Hub ratelimitpreview/test
    image: String,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for RateLimit {
    /// Asks, in a way that does not count as a pull.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let at = location(&self.image, "docker://")?;
        let Location::Registry(name) = &at else {
            return Err(Failure::usage(format!("{at} is in no registry")));
        };
        let repo = Access::new(app, self.end.reach_at(&at)?).client()?.repo(&name.repository);
        let limit = app.wait(repo.rate_limit(&Target::from(name)))??.ok_or_else(|| {
            let what = format!("{} reports no limit", name.repository.registry());
            Failure::new(Kind::Refused, what)
        })?;
        outln!(
            "{:#}",
            json!({"limit": limit.limit, "remaining": limit.left, "windowSeconds": limit.window})
        );
        Ok(0)
    }
}
