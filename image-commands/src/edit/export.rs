use std::io::Write;
use std::path::{Path, PathBuf};

use app::{App, Runnable, observed};
use clap::Args;
use image::Platform;
use options::Failure;
use options::ends::OneEnd;
use options::place::location;
use options::progress::Progress;
use transport::{Indexes, StoreIndexes};

/// Write the file system of an image, or some of its files, as one tar archive
#[derive(Debug, Args)]
pub struct Export {
    /// The image
    image: String,
    /// The tar archive; - is standard output
    #[arg(default_value = "-")]
    archive: PathBuf,
    /// Choose the image of this platform in an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Write only this file, links followed (repeatable); of zstd:chunked, eStargz and indexed gzip
    /// layers on a registry nothing else is fetched
    #[arg(long, value_name = "FILE")]
    path: Vec<String>,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Export {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let from = location(&self.image, "docker://")?;
        let platform = self.platform.clone().unwrap_or_else(|| app.conf.settings.platform());
        observed(&format!("export {from}"), Progress::Auto, |task| {
            let opened = super::open(app, &self.end, &from, &platform, task)?;
            let room = app.conf.settings.room();
            if self.path.is_empty() {
                let layers: Vec<_> =
                    opened.image.layers().map(|l| (l.descriptor.clone(), l.diff_id)).collect();
                let files =
                    app.wait(transport::layers_of(&*opened.source, &layers, room, task))??;
                return self.write(|out| Ok(transport::export(&files, out, task)?));
            }
            self.write(|out| {
                let (source, image) = (&*opened.source, &opened.image);
                let to = (room, &StoreIndexes::new(app.store().ok()) as &dyn Indexes, out);
                Ok(app.wait(transport::export_files(source, image, &self.path, to, task))??)
            })
        })?;
        Ok(0)
    }
}

impl Export {
    /// Writes the archive; a file appears whole or not at all.
    fn write(
        &self,
        archive: impl FnOnce(Box<dyn Write>) -> Result<Box<dyn Write>, Failure>,
    ) -> Result<(), Failure> {
        if self.archive != Path::new("-") {
            return transport::write_whole(&self.archive, archive);
        }
        let mut out = archive(Box::new(std::io::stdout().lock()))?;
        out.flush().map_err(|error| Failure::io("writing standard output", &error))
    }
}
