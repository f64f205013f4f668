use std::fs::File;
use std::path::PathBuf;

use app::{App, Runnable, observed};
use clap::Args;
use image::Platform;
use options::Failure;
use options::ends::OneEnd;
use options::place::location;
use options::progress::Progress;
use transport::{Indexes, StoreIndexes};

/// Print one file of an image, or write it to a file
///
/// Layers are fetched from the top until one has the file. Of zstd:chunked and eStargz layers on a
/// registry, only their tables of contents and the file are fetched; also of gzip layers with an
/// index (rcopy copy --gzip-index), or read before on this machine.
#[derive(Debug, Args)]
pub struct GetFile {
    /// The image
    image: String,
    /// The path in the image; symbolic links are followed
    path: String,
    /// The file to write (default: standard output)
    output: Option<PathBuf>,
    /// Choose the image of this platform in an index
    #[arg(short, long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for GetFile {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let from = location(&self.image, "docker://")?;
        let platform = self.platform.clone().unwrap_or_else(|| app.conf.settings.platform());
        let mut file = observed(&format!("get-file {from}"), Progress::Auto, |task| {
            let opened = super::open(app, &self.end, &from, &platform, task)?;
            let room = app.conf.settings.room();
            let kept = (room, &StoreIndexes::new(app.store().ok()) as &dyn Indexes);
            let found = transport::file_of(&*opened.source, &opened.image, &self.path, kept, task);
            app.wait(found)?.map(|found| found.content).map_err(|error| match error {
                transport::Error::NoFile { .. } => {
                    Failure { code: Some(1), ..Failure::from(error) }
                }
                error => error.into(),
            })
        })?;
        let (copied, name) = match &self.output {
            None => {
                (std::io::copy(&mut file, &mut std::io::stdout().lock()), "standard output".into())
            }
            Some(path) => {
                let copy = |mut to: File| std::io::copy(&mut file, &mut to);
                (File::create(path).and_then(copy), path.display().to_string())
            }
        };
        copied.map_err(|error| Failure::io(format!("writing {name}"), &error))?;
        Ok(0)
    }
}
