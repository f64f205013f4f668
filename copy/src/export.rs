//! Content of an image as files: a blob, or the whole file system as one archive.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use image::Descriptor;
use layers::{Tree, TreeOptions};
use task::Task;

use crate::edit::{of_layer, read_layer, same_diff_id};
use crate::{Error, LayerFile, Result, Source};

/// Writes a blob to a file that appears whole or not at all, in place of what is there.
///
/// # Errors
/// [`Error::Place`] when the source fails or the content is not what it is named;
/// [`Error::File`].
pub async fn fetch_file(
    source: &dyn Source,
    blob: &Descriptor,
    path: &Path,
    task: &Task,
) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part-{}", std::process::id()));
    let failed = || Error::file("writing", path);
    let mut file = File::create_new(&part).map_err(failed())?;
    let read = read_layer(source, blob, task, move |mut reader| {
        std::io::copy(&mut reader, &mut file).map_err(Error::Stream)
    });
    let done = read.await.and_then(|_| std::fs::rename(&part, path).map_err(failed()));
    if done.is_err() {
        // The failure that counts is reported.
        let _ = std::fs::remove_file(&part);
    }
    done
}

/// Writes a file that appears whole or not at all, in place of what is there.
///
/// # Errors
/// [`Error::File`], and those of `work`.
pub fn write_whole<E: From<Error>>(
    path: &Path,
    work: impl FnOnce(Box<dyn Write>) -> Result<Box<dyn Write>, E>,
) -> Result<(), E> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part-{}", std::process::id()));
    let failed = || Error::file("writing", path);
    let file = File::create_new(&part).map_err(failed())?;
    let written = work(Box::new(BufWriter::new(file)))
        .and_then(|mut out| Ok(out.flush().map_err(failed())?))
        .and_then(|()| Ok(std::fs::rename(&part, path).map_err(failed())?));
    if written.is_err() {
        // The failure that counts is reported.
        let _ = std::fs::remove_file(&part);
    }
    written
}

/// Writes the file system that layers make as one tar archive.
///
/// # Errors
/// [`Error::Layer`] for a layer that is not what its descriptor and diffID say; [`Error::Stream`].
pub fn export<W: Write>(files: &[LayerFile], out: W, task: &Task) -> Result<W> {
    let (mut tree, options) = (Tree::new(), TreeOptions::default());
    for file in files {
        let name = file.descriptor.digest.to_string();
        let read = tree.add(file.open()?, &options, task, &mut |_| {}).map_err(of_layer(&name))?;
        same_diff_id(&file.descriptor, file.diff_id, read.diff_id)?;
    }
    let streams = files.iter().map(LayerFile::open).collect::<Result<Vec<_>>>()?;
    layers::merge(&tree, streams, out, &options, task).map_err(of_layer("the merged layers"))
}
