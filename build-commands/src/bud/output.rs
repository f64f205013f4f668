//! `--output` on standard output, and what outputs need of annotations.

use std::path::PathBuf;

use builder::syntax::Outputs;
use builder::{ImageOptions, Level, Output};
use options::{Failure, environment, flags};

/// An archive for standard output, in a file first: it is not written from front to end.
pub(crate) struct StdoutArchive(tempfile::TempDir);

impl StdoutArchive {
    fn path(&self) -> PathBuf {
        self.0.path().join("image.tar")
    }

    /// Writes the archive to standard output.
    pub(crate) fn print(&self) -> Result<(), Failure> {
        let failed = |error| Failure::io("writing the archive to standard output", &error);
        let mut file = std::fs::File::open(self.path()).map_err(failed)?;
        std::io::copy(&mut file, &mut std::io::stdout().lock()).map(drop).map_err(failed)
    }
}

/// Whether standard output is free for the image id.
pub(crate) fn prints_id(outputs: &[String]) -> bool {
    !outputs.iter().any(|text| Outputs::takes_stdout(text))
}

/// Lets an archive of an image that goes to standard output go to a file.
pub(crate) fn piped(outputs: &mut [String]) -> Result<Option<StdoutArchive>, Failure> {
    let mut piped = None;
    for text in outputs {
        let keys = flags::fields(text).unwrap_or_default();
        let archive = keys.iter().any(|key| ["type=oci", "type=docker"].contains(&&**key));
        if !archive || !keys.iter().any(|key| key == "dest=-") {
            continue;
        }
        if piped.is_some() {
            return Err(Failure::usage("--output: only one goes to standard output"));
        }
        if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            return Err(Failure::usage(format!(
                "--output {text:?}: an archive cannot go to a terminal"
            ))
            .hint("name a file with dest=, or redirect standard output"));
        }
        let scratch = tempfile::tempdir_in(environment::scratch());
        let made =
            StdoutArchive(scratch.map_err(|error| Failure::io("making a directory", &error))?);
        let dest = format!("dest={}", made.path().display());
        let keys = keys.into_iter().map(|key| if key == "dest=-" { dest.clone() } else { key });
        let quoted = keys.map(|key| format!("\"{}\"", key.replace('"', "\"\"")));
        *text = quoted.collect::<Vec<_>>().join(",");
        piped = Some(made);
    }
    Ok(piped)
}

/// Refuses annotations of an entry that no output has.
///
/// # Errors
/// There are some.
pub(super) fn has_entry(image: &ImageOptions, outputs: &[Output]) -> Result<(), Failure> {
    let wanted = image.annotations.iter().any(|one| one.level == Level::IndexDescriptor);
    let listed = |output: &Output| matches!(output, Output::Image(to) if to.starts_with("oci:") || to.starts_with("oci-archive:"));
    match wanted && !outputs.iter().any(listed) {
        true => Err(Failure::usage("--annotation index-descriptor: no output has an index.json")
            .hint("write a layout or archive with --output type=oci,dest=PATH")),
        false => Ok(()),
    }
}
