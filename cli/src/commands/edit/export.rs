use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use image::Platform;

use super::super::copy::OneEnd;
use super::super::place;
use crate::app::{App, observed};
use crate::render::Progress;
use crate::report::Failure;

/// Write the file system of an image as one tar archive
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The image
    image: String,
    /// The tar archive; - is standard output
    #[arg(default_value = "-")]
    archive: PathBuf,
    /// Choose the image of this platform in an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    end: OneEnd,
}

impl Export {
    /// Writes.
    ///
    /// # Errors
    /// The image is not there; a layer is broken; the archive cannot be written.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let from = place::location(&self.image, "docker://")?;
        let platform = self.platform.clone().unwrap_or_else(|| app.settings.platform());
        observed(&format!("export {from}"), Progress::Auto, |task| {
            let opened = super::open(app, &self.end, &from, &platform, task)?;
            let layers: Vec<_> =
                opened.image.layers().map(|l| (l.descriptor.clone(), l.diff_id)).collect();
            let room = app.settings.room();
            let files = app.wait(transport::layers_of(&*opened.source, &layers, room, task))??;
            if self.archive == Path::new("-") {
                let out = transport::export(&files, std::io::stdout().lock(), task)?;
                return done(out, Path::new("standard output"));
            }
            let part = partial(&self.archive)?;
            let failed = |error| Failure::io(format!("writing {}", self.archive.display()), &error);
            let file = File::create_new(&part).map_err(failed)?;
            let written = transport::export(&files, BufWriter::new(file), task)
                .map_err(Failure::from)
                .and_then(|out| done(out, &self.archive))
                .and_then(|()| std::fs::rename(&part, &self.archive).map_err(failed));
            if written.is_err() {
                // The failure that counts is reported.
                let _ = std::fs::remove_file(&part);
            }
            written
        })?;
        Ok(0)
    }
}

fn done(mut out: impl Write, name: &Path) -> Result<(), Failure> {
    out.flush().map_err(|error| Failure::io(format!("writing {}", name.display()), &error))
}

/// The name an archive has until it is whole.
fn partial(archive: &Path) -> Result<PathBuf, Failure> {
    let name = archive
        .file_name()
        .ok_or_else(|| Failure::usage(format!("{} has no file name", archive.display())))?;
    let name = format!(".{}.part-{}", name.to_string_lossy(), std::process::id());
    Ok(archive.with_file_name(name))
}
