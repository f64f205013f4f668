//! Where registries.conf, registries.d and the chosen short names are, and asking for a choice.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use image::Reference;
use registry_client::{Meaning, Registries, ShortNames, remember_short_name};
use task::{Cause, Fault, Kind};

use super::{Places, is_meant, path};
use crate::report::Failure;

/// Where the configuration of registries is, for all commands.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RegistriesFlags {
    /// File with aliases, mirrors and blocked registries (default:
    /// ~/.config/containers/registries.conf, /etc/containers/registries.conf)
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "CONTAINERS_REGISTRIES_CONF",
        hide_env = true,
        help_heading = "Global options"
    )]
    pub registries_conf: Option<PathBuf>,
    /// Directory of files that extend it (default: registries.conf.d beside both)
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub registries_conf_dir: Option<PathBuf>,
    /// Directory that configures the lookasides of registries (default:
    /// ~/.config/containers/registries.d, /etc/containers/registries.d)
    #[arg(
        long = "registries.d",
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub registries_d: Option<PathBuf>,
}

impl Places {
    /// The registries.conf files, later ones winning.
    ///
    /// # Errors
    /// A file or directory that a flag names is not there.
    fn registries_files(&self, flags: &RegistriesFlags) -> Result<Vec<PathBuf>, Failure> {
        let user = self.config().join("containers/registries.conf");
        let machine = PathBuf::from("/etc/containers/registries.conf");
        let main = match &flags.registries_conf {
            Some(file) => there(file)?,
            None if is_meant(&user) => there(&user)?,
            None => machine.clone(),
        };
        let beside = |file: &Path| file.with_extension("conf.d");
        let directories = match &flags.registries_conf_dir {
            Some(directory) => vec![there(directory)?],
            None => vec![beside(&machine), beside(&user)],
        };
        let mut files = vec![main];
        for directory in directories {
            files.extend(listed(&directory, "conf")?);
        }
        Ok(files)
    }

    /// The registries.d directory: as with skopeo, a user's replaces the machine's.
    ///
    /// # Errors
    /// The directory that the flag names is not there.
    pub(super) fn registries_d(&self, flags: &RegistriesFlags) -> Result<PathBuf, Failure> {
        let user = self.config().join("containers/registries.d");
        match &flags.registries_d {
            Some(directory) => there(directory),
            None if is_meant(&user) => there(&user),
            None => Ok(PathBuf::from("/etc/containers/registries.d")),
        }
    }

    /// Where choices of short names are kept.
    pub(crate) fn chosen_names(&self) -> PathBuf {
        if let Some(file) = &self.chosen {
            return file.clone();
        }
        let name = "containers/short-name-aliases.conf";
        match self.rootless {
            false => Path::new("/var/cache").join(name),
            true => self.cache().join(name),
        }
    }

    /// The merged configuration of registries.
    ///
    /// # Errors
    /// A file is malformed.
    pub(crate) fn registries(&self, flags: &RegistriesFlags) -> Result<Registries, Failure> {
        let mut all = Registries::read(&self.registries_files(flags)?)?;
        all.short_names = all.short_names.with_chosen(&self.chosen_names())?;
        Ok(all)
    }

    /// `$XDG_CACHE_HOME`.
    pub(crate) fn cache(&self) -> PathBuf {
        path("XDG_CACHE_HOME").unwrap_or_else(|| self.home.join(".cache"))
    }
}

fn there(path: &Path) -> Result<PathBuf, Failure> {
    path.metadata().map_err(|error| Failure::io(format!("reading {}", path.display()), &error))?;
    super::absolute(path)
}

/// A small text file.
///
/// # Errors
/// It cannot be read; it is too large.
pub(super) fn read_text(path: &Path) -> Result<String, Failure> {
    use std::io::Read as _;
    const LARGEST: u64 = 4 << 20;
    let failed = |error: &std::io::Error| Failure::io(format!("reading {}", path.display()), error);
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(|error| failed(&error))?;
    Ok(text)
}

/// The files of a directory with this extension, by name.
pub(super) fn listed(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::io(format!("reading {}", directory.display()), &error)),
    };
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

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
        Meaning::One(image) => return Ok(vec![image]),
        Meaning::First(images) => return Ok(images),
        Meaning::Choice { images, enforced } => (images, enforced),
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
