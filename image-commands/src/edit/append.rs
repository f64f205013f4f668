use std::fs::File;
use std::path::{Path, PathBuf};

use app::{App, Runnable, observed};
use clap::Args;
use image::Platform;
use options::Failure;
use options::ends::OneEnd;
use options::place::{ToFlags, location};
use options::progress::Progress;
use transport::Draft;
use transport::at::Memory;

use super::OpenedImage;

/// Add layer archives to an image, or make an image of them only
#[derive(Debug, Args)]
pub struct Append {
    /// Add to this image (default: an empty one)
    #[arg(short, long, value_name = "IMAGE")]
    base: Option<String>,
    /// Add this layer: a tar archive, plain or compressed; repeatable, lowest first
    #[arg(
        short = 'f',
        long = "new_layer",
        visible_alias = "new-layer",
        value_name = "FILE",
        required = true
    )]
    layers: Vec<PathBuf>,
    /// Record the base image in annotations of the manifest
    #[arg(long)]
    set_base_image_annotations: bool,
    /// Choose the image of this platform in an index, or set the platform of a new image
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    to: ToFlags,
    #[command(flatten)]
    end: OneEnd,
}

/// Opens a layer archive.
///
/// # Errors
/// It cannot be read; it is not a plain file.
pub(super) fn archive(path: &Path) -> Result<File, Failure> {
    let failed = |error| Failure::io(format!("reading {}", path.display()), &error);
    let file = File::open(path).map_err(failed)?;
    match file.metadata().map_err(failed)?.is_file() {
        true => Ok(file),
        false => Err(Failure::usage(format!("{} is not a plain file", path.display()))),
    }
}

impl Runnable for Append {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let to = self.to.required()?;
        let archives = self.layers.iter().map(|path| Ok((path, archive(path)?)));
        let archives = archives.collect::<Result<Vec<_>, Failure>>()?;
        let platform = self.platform.clone().unwrap_or_else(|| app.conf.settings.platform());
        let room = app.conf.settings.room();
        let base = self.base.as_deref().map(|base| location(base, "docker://")).transpose()?;
        let root = observed("append", Progress::Auto, |task| {
            let opened = match &base {
                Some(base) => Some(super::open(app, &self.end, base, &platform, task)?),
                None => None,
            };
            let nothing = Memory::new().image("none");
            let mut draft = match &opened {
                Some(OpenedImage { source, image }) => Draft::new(&**source, image, room),
                None => Draft::scratch(&nothing, &platform, room),
            };
            for (path, file) in archives {
                app.wait(draft.append(file, &path.display().to_string(), task))??;
                draft.step_of_layer(path, "rcopy append");
            }
            if let (true, Some(base), Some(opened)) =
                (self.set_base_image_annotations, &base, &opened)
            {
                draft.name_base(base, &opened.image);
            }
            super::publish(app, &self.end, &draft.finish(), &to, task)
        })?;
        outln!("{}", options::place::told(&to, &root));
        Ok(0)
    }
}
