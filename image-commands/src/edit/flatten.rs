use app::{App, Runnable, observed};
use clap::{Args, ValueEnum};
use image::{Encoding, History, Platform};
use layers::Compression;
use options::Failure;
use options::ends::OneEnd;
use options::place::{ToFlags, location};
use options::progress::Progress;
use transport::Draft;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CompressionName {
    Gzip,
    Zstd,
    None,
}

/// Merge all layers of an image into one
#[derive(Debug, Args)]
pub struct Flatten {
    /// The image
    image: String,
    /// Choose the image of this platform in an index (default: change all and the index)
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Compress the layer with this algorithm
    #[arg(long, value_enum, default_value = "gzip")]
    compression: CompressionName,
    #[command(flatten)]
    to: ToFlags,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Flatten {
    /// Makes and writes the image; without a destination beside the original, by its digest.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let from = location(&self.image, "docker://")?;
        let to = self.to.location()?;
        let encoding = match self.compression {
            CompressionName::Gzip => Encoding::Gzip,
            CompressionName::Zstd => Encoding::Zstd,
            CompressionName::None => Encoding::Plain,
        };
        let (to, root) = observed(&format!("flatten {from}"), Progress::Auto, |task| {
            let ends = (&from, to.as_ref());
            let (source, originals) =
                super::open_all(app, &self.end, ends, self.platform.as_ref(), task)?;
            let flat = |image| {
                let mut draft = Draft::new(&*source, image, app.conf.settings.room());
                let layers = draft.layers().len();
                app.wait(draft.flatten(Compression { encoding, level: None }, task))??;
                draft.config.history = vec![History {
                    created: draft.config.created.clone(),
                    created_by: Some("rcopy flatten".to_owned()),
                    comment: Some(format!("{layers} layers of {}", image.descriptor().digest)),
                    ..History::default()
                }];
                Ok(draft.finish())
            };
            let made = originals.images().map(flat).collect::<Result<Vec<_>, Failure>>()?;
            let made = originals.join(&*source, made)?;
            let root = made.root().clone();
            let to = to.map_or_else(|| options::place::beside(&from, &root), Ok)?;
            let root = super::publish(app, &self.end, &made, &to, task)?;
            Ok((to, root))
        })?;
        outln!("{}", options::place::told(&to, &root));
        Ok(0)
    }
}
