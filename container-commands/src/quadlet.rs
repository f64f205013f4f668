//! `rbuild system generator`: Quadlet files become systemd units.

use std::path::{Path, PathBuf};

use app::{App, Runnable};
use clap::Args;
use options::Failure;

/// Where Quadlet files are, after those of `--from`.
const PLACES: [&str; 3] =
    ["/run/containers/systemd", "/etc/containers/systemd", "/usr/share/containers/systemd"];

/// Write systemd units of Quadlet files (.container, .volume, .network), as a systemd generator
///
/// Link it as /usr/lib/systemd/system-generators/rbuild-generator: a script of one line,
/// `exec rbuild system generator "$@"`.
#[derive(Debug, Args)]
pub struct Generator {
    /// Print the units in place of writing them
    #[arg(long, visible_alias = "dry-run")]
    dryrun: bool,
    /// Read the files of this directory only
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// The directory for the units; two more are accepted, as systemd passes them
    #[arg(required_unless_present = "dryrun", num_args = 0..=3, value_name = "DIR")]
    directories: Vec<PathBuf>,
}

impl Runnable for Generator {
    /// Writes every unit that can be; fails at the end if one cannot.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let program =
            std::env::current_exe().map_err(|error| Failure::io("finding this program", &error))?;
        let root = app.conf.store_root()?;
        let program = format!("{} --root {}", program.display(), root.display());
        let mut last = None;
        for path in self.files()? {
            if let Err(failure) = self.one(&path, &program)
                && let Some(before) = last.replace(failure)
            {
                app::report::print(before);
            }
        }
        last.map_or(Ok(0), Err)
    }
}

impl Generator {
    /// Quadlet files; of two of one name the first counts.
    fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        let places: Vec<&Path> = match &self.from {
            Some(place) => vec![place],
            None => PLACES.iter().map(Path::new).filter(|place| place.exists()).collect(),
        };
        Ok(containers::quadlet_files(&places)?)
    }

    fn one(&self, path: &Path, program: &str) -> Result<(), Failure> {
        let read = || format!("reading {}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| Failure::io(read(), &error))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let unit = containers::unit(&name, &text, program)?;
        let Some(directory) = self.directories.first().filter(|_| !self.dryrun) else {
            outln!("---{}---\n{}", unit.name, unit.text);
            return Ok(());
        };
        Ok(unit.install(directory)?)
    }
}
