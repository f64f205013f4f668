//! Commands that make something else out of an image: `export`, `get-file`, `append`, `mutate`,
//! `flatten`, `rebase`. They read from any place and write to any place.

mod append;
mod check_base;
mod export;
mod flatten;
mod get_file;
mod mutate;
mod rebase;

use app::App;
use app::place::Access;
use image::{Descriptor, Image, Platform};
use options::Failure;
use options::ends::OneEnd;
use task::Task;
use transport::{CopyOptions, Location, Open, Originals, Overlay, Select, Source};

pub use self::append::Append;
pub use self::check_base::CheckBase;
pub use self::export::Export;
pub use self::flatten::Flatten;
pub use self::get_file::GetFile;
pub use self::mutate::Mutate;
pub use self::rebase::Rebase;

/// An image to be changed: open, and let through by the policy.
pub(crate) struct OpenedImage {
    /// Where it is.
    pub source: Box<dyn Source>,
    /// The image.
    pub image: Image,
}

/// Opens an image for a platform.
///
/// # Errors
/// It is not there; the policy refuses it.
pub(crate) fn open(
    app: &App,
    end: &OneEnd,
    location: &Location,
    platform: &Platform,
    task: &Task,
) -> Result<OpenedImage, Failure> {
    let source = Access::new(app, end.reach_at(location)?).source(location)?;
    let gate = app.gate()?;
    let image = app.wait(async {
        let sealed = source.seal(task).await.map_err(Failure::of)?;
        let (named, image) =
            transport::open(&transport::ResolvedSource::new(&*source, sealed), platform).await?;
        transport::permit(&*source, &*gate, &named, image.descriptor(), task).await?;
        Ok::<_, Failure>(image)
    })??;
    Ok(OpenedImage { source, image })
}

/// Opens an image for a platform; without one all images of an index, where the destination
/// can hold them.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_all(
    app: &App,
    end: &OneEnd,
    (from, to): (&Location, Option<&Location>),
    platform: Option<&Platform>,
    task: &Task,
) -> Result<(Box<dyn Source>, Originals), Failure> {
    let source = Access::new(app, end.reach_at(from)?).source(from)?;
    let one = to.is_some_and(|to| !to.capabilities().indexes);
    let usual = one.then(|| app.conf.settings.platform());
    let platform = platform.or(usual.as_ref());
    let originals = app.wait(Originals::open(&*source, platform, &*app.gate()?, task))??;
    Ok((source, originals))
}

/// Writes a made image.
///
/// # Errors
/// The destination does not take it.
pub(crate) fn publish(
    app: &App,
    end: &OneEnd,
    made: &Overlay<'_>,
    to: &Location,
    task: &Task,
) -> Result<Descriptor, Failure> {
    let access = Access::unpacking(app, end.reach_at(to)?, app.conf.settings.platform());
    let sink = access.sink(to, task)?;
    let options = CopyOptions { select: Select::All, ..CopyOptions::default() };
    Ok(app.wait(transport::copy(made, &*sink, &Open, &options, task))??)
}
