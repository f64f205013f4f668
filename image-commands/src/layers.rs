//! `rcopy layers`: an image's layers as files.

use std::path::PathBuf;

use app::{App, Runnable, observed};
use clap::Args;
use image::{Digest, Platform};
use options::Failure;
use options::ends::OneEnd;
use options::place::location;
use options::progress::Progress;

/// Fetch the layers of an image unchanged, each into a file named by its digest
#[derive(Debug, Args)]
pub struct Layers {
    /// The image
    image: String,
    /// Fetch these layers only
    digests: Vec<Digest>,
    /// Write the files to this directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Choose the image of this platform in an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Layers {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let from = location(&self.image, "docker://")?;
        let platform = self.platform.clone().unwrap_or_else(|| app.conf.settings.platform());
        let files = observed(&format!("layers of {from}"), Progress::Auto, |task| {
            let opened = crate::edit::open(app, &self.end, &from, &platform, task)?;
            let layers = &opened.image.manifest().layers;
            if let Some(odd) = self
                .digests
                .iter()
                .find(|digest| layers.iter().all(|layer| layer.digest != **digest))
            {
                return Err(Failure::usage(format!("{odd} is not a layer of {from}")));
            }
            std::fs::create_dir_all(&self.output).map_err(|error| {
                Failure::io(format!("making {}", self.output.display()), &error)
            })?;
            let mut files = Vec::new();
            for layer in layers {
                if !self.digests.is_empty() && !self.digests.contains(&layer.digest) {
                    continue;
                }
                let path = self.output.join(layer.digest.hex());
                app.wait(transport::fetch_file(&*opened.source, layer, &path, task))??;
                files.push(path);
            }
            Ok(files)
        })?;
        files.iter().for_each(|file| outln!("{}", file.display()));
        Ok(0)
    }
}
