//! `rcopy diff`: what is different between two images, down to files.

use app::place::Access;
use app::{App, Runnable, observed};
use clap::{Args, ValueEnum};
use explorer::Difference;
use image::{Image, Platform};
use options::Failure;
use options::ends::OneEnd;
use options::place::location;
use options::progress::Progress;
use transport::{Source, Trees};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Show the differences between two images: config, layers, files
#[derive(Debug, Args)]
pub struct Diff {
    /// The first image: a name on a registry, or transport:…
    a: String,
    /// The second image
    b: String,
    /// Choose the image of this platform in an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print the result in this format
    #[arg(long, value_enum, default_value = "text")]
    format: Output,
    /// Compare modification times too
    #[arg(long)]
    times: bool,
    /// Compare the documents only, not the layers
    #[arg(long)]
    no_files: bool,
    /// Exit with 1 if the images differ, as diff does
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Diff {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let (at_a, at_b) = (location(&self.a, "docker://")?, location(&self.b, "docker://")?);
        let platform = self.platform.clone().unwrap_or_else(|| app.conf.settings.platform());
        let (a, b, trees) = observed("diff", Progress::Auto, |task| {
            let open = |at| -> Result<(Box<dyn Source>, Image), Failure> {
                let source = Access::new(app, self.end.reach_at(at)?).source(at)?;
                let (_, image) = app.wait(transport::open(&*source, &platform))??;
                Ok((source, image))
            };
            let (a, b) = (open(&at_a)?, open(&at_b)?);
            let same = a.1.config().rootfs.diff_ids == b.1.config().rootfs.diff_ids;
            let trees = match self.no_files || same {
                true => None,
                false => {
                    let trees = Trees { digests: true };
                    let both = trees.of_both((&*a.0, &a.1), (&*b.0, &b.1), task);
                    Some(app.wait(both)??)
                }
            };
            Ok((a.1, b.1, trees))
        })?;
        let trees = trees.as_ref().map(|(one, other)| (one, other));
        let difference = Difference::new(&a, &b, trees, self.times);
        match self.format {
            Output::Json => outln!("{:#}", difference.json()),
            Output::Text => out!("{}", difference.text()),
        }
        Ok(u8::from(self.exit_code && difference.is_any()))
    }
}
