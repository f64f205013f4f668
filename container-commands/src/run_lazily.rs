//! `rbuild run --lazy`: a program starts before its image is here.

use std::path::Path;
use std::thread::JoinHandle;

use app::place::{self, Access};
use app::{App, quiet_task};
use image::{Image, Platform};
use task::Canceller;
use transport::at::StoreImage;
use transport::{Indexes, Lazily, Location, ResolvedSource, StoreIndexes, lazily};

use options::{Failure, Reach};

/// An image whose files are fetched when they are read.
pub(crate) struct LazyRun {
    /// Its configuration.
    pub image: Image,
    lazily: Lazily,
    mounted: lazy::LazyMount,
    canceller: Canceller,
    /// The name that the store is to keep it by, and what the policy let through.
    name: String,
    from: Location,
    permitted: image::Descriptor,
}

/// Opens an image of a registry; `None` where one of its layers has no table of contents. What is
/// fetched is kept in `room`.
///
/// # Errors
/// It is not there; the policy refuses it; this machine has no FUSE.
pub(crate) fn open(
    app: &App,
    (name, platform): (&str, &Platform),
    reach: &Reach,
    room: &Path,
) -> Result<Option<LazyRun>, Failure> {
    let task = quiet_task("run");
    let canceller = task.canceller();
    let opened = place::first_there(&place::remote_locations(app, name)?, |from| {
        let source = Access::new(app, reach.clone()).source(from)?;
        let gate = app.gate()?;
        let noting = builder::RecordingGate::new(&*gate);
        let (named, image) = app.wait(async {
            let sealed = source.seal(&task).await.map_err(Failure::of)?;
            let resolved = ResolvedSource::new(&*source, sealed);
            let (named, image) = transport::open(&resolved, platform).await?;
            transport::permit(&*source, &noting, &named, image.descriptor(), &task).await?;
            Ok::<_, Failure>((named, image))
        })??;
        Ok((from.clone(), source, noting.permitted().unwrap_or(named), image))
    });
    let (from, source, permitted, image) = opened?;
    let complain = Box::new(|reason| eprintln!("warning: a file could not be read: {reason}"));
    let kept = (room, &StoreIndexes::new(app.store().ok()) as &dyn Indexes);
    let opened = app.wait(lazily(source, &image, kept, complain, task))??;
    let Some(lazily) = opened else { return Ok(None) };
    let mounted = lazily.mount().map_err(|error| {
        Failure::from(error).hint("without --lazy the image is pulled whole, which needs no FUSE")
    })?;
    let name = from.store_name()?;
    Ok(Some(LazyRun { image, lazily, mounted, canceller, name, from, permitted }))
}

impl LazyRun {
    /// Where its files show.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.mounted.path()
    }

    /// Fetches the rest while the program runs; once it is all here, the store has the image.
    ///
    /// # Errors
    /// No thread can be had.
    pub(crate) fn keep(self, app: &App) -> Result<BackgroundFetch, Failure> {
        let store = app.store()?.clone();
        let LazyRun { lazily, mounted, canceller, name, from, permitted, .. } = self;
        let keep = move || {
            let sink = StoreImage::new(&store, Some(&name));
            let kept = lazily.keep(&sink).map_err(Failure::from).and_then(|root| match &from {
                Location::Registry(from) => {
                    builder::remember_pulled(&store, from, &permitted, &root).map_err(Failure::of)
                }
                _ => Ok(()),
            });
            match kept {
                Err(failure) if failure.kind != task::Kind::Cancelled => {
                    eprintln!("warning: the image is not kept: {}", failure.messages.join(": "));
                }
                _ => {}
            }
        };
        let thread = std::thread::Builder::new().name("fetching".to_owned()).spawn(keep);
        let thread = thread.map_err(|error| Failure::io("starting a thread", &error))?;
        Ok(BackgroundFetch { thread: Some(thread), canceller, _mounted: mounted })
    }
}

/// Fetches the rest of an image in the background until this is dropped.
pub(crate) struct BackgroundFetch {
    thread: Option<JoinHandle<()>>,
    canceller: Canceller,
    _mounted: lazy::LazyMount,
}

impl Drop for BackgroundFetch {
    fn drop(&mut self) {
        self.canceller.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
