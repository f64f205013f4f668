use app::place::Access;
use app::{App, Runnable, observed};
use clap::Args;
use image::{Digest, Platform};
use options::Failure;
use options::ends::OneEnd;
use options::place::location;
use options::progress::Progress;
use task::{Kind, Task};

use transport::{BASE_DIGEST, BASE_NAME};

/// Check whether the base of an image is still what its name points at
#[derive(Debug, Args)]
pub struct CheckBase {
    /// The image
    image: String,
    /// The base (default: from the image's annotations)
    #[arg(long, value_name = "IMAGE")]
    base: Option<String>,
    /// The digest the base had (default: from the annotations; without one layers are compared)
    #[arg(long, value_name = "DIGEST")]
    digest: Option<Digest>,
    /// Choose the image of this platform in an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print nothing; the exit code tells
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for CheckBase {
    /// Ends with 0 if the base is the same, with 1 if there is another one.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let progress = Progress::Auto.unless(self.quiet);
        let (base, same, now) = observed("check-base", progress, |task| self.check(app, task))?;
        if !self.quiet {
            let word = if same { "is unchanged" } else { "has changed" };
            outln!("{base} {word}: {now}");
        }
        Ok(u8::from(!same))
    }
}

impl CheckBase {
    /// The name of the base, whether it is the same, and its digest.
    fn check(&self, app: &App, task: &Task) -> Result<(String, bool, Digest), Failure> {
        let from = location(&self.image, "docker://")?;
        let platform = self.platform.clone().unwrap_or_else(|| app.conf.settings.platform());
        let image = super::open(app, &self.end, &from, &platform, task)?.image;
        let annotations = &image.manifest().annotations;
        let base = self.base.as_ref().or_else(|| annotations.get(BASE_NAME)).ok_or_else(|| {
            Failure::new(Kind::Invalid, format!("{from} does not say what its base is"))
                .hint("name the base: --base IMAGE")
        })?;
        // The digest in the annotations is that of the base they name.
        let noted = annotations.get(BASE_DIGEST).filter(|_| self.base.is_none());
        let expected = match (self.digest, noted) {
            (Some(digest), _) => Some(digest),
            (None, noted) => noted.map(|text| text.parse::<Digest>()).transpose()?,
        };
        let at = location(base, "docker://")?;
        let source = Access::new(app, self.end.reach_at(&at)?).source(&at)?;
        let (same, now) =
            app.wait(transport::check_base(&image, &*source, expected, &platform))??;
        Ok((base.clone(), same, now))
    }
}
