//! Asking for a choice of short names.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use image::Reference;
use registry_client::{NameResolution, ShortNames, remember_short_name};
use task::{Cause, Fault, Kind};

/// The images on registries that a name may mean, best first; asks where a choice is wanted and
/// there is a terminal, and remembers the answer.
///
/// # Errors
/// The name is invalid, or ambiguous without a terminal.
pub(crate) fn meanings(
    names: &ShortNames,
    chosen: &Path,
    text: &str,
) -> Result<Vec<Reference>, Cause> {
    let (images, enforced) = match names.meaning(text)? {
        NameResolution::One(image) => return Ok(vec![image]),
        NameResolution::First(images) => return Ok(images),
        NameResolution::Choice { images, enforced } => (images, enforced),
    };
    if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        let image = ask(text, &images).map_err(Cause::new)?;
        // Not being able to remember is no reason not to go on.
        if let Err(error) = remember_short_name(chosen, text, &image) {
            tracing::warn!(%error, "the choice is not remembered");
        }
        return Ok(vec![image]);
    }
    if enforced { Err(names.unclear(text, &images).into()) } else { Ok(images) }
}

#[derive(Debug, thiserror::Error)]
#[error("choosing a registry for {0:?}: {1}")]
struct NotChosen(String, String);

impl Fault for NotChosen {
    fn kind(&self) -> Kind {
        Kind::Cancelled
    }
}

fn ask(text: &str, images: &[Reference]) -> Result<Reference, NotChosen> {
    let failed = |reason: String| NotChosen(text.to_owned(), reason);
    let mut err = std::io::stderr().lock();
    let mut shown = format!("Which image is {text}?\n");
    for (index, image) in images.iter().enumerate() {
        shown.push_str(&format!("  {}) {image}\n", index + 1));
    }
    loop {
        let asked = write!(err, "{shown}1-{}: ", images.len()).and_then(|()| err.flush());
        asked.map_err(|error| failed(error.to_string()))?;
        let mut line = String::new();
        match std::io::stdin().read_line(&mut line) {
            Ok(0) => return Err(failed("nothing was chosen".into())),
            Ok(_) => {}
            Err(error) => return Err(failed(error.to_string())),
        }
        let index = line.trim().parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        if let Some(image) = index.and_then(|index| images.get(index)) {
            return Ok(image.clone());
        }
    }
}
