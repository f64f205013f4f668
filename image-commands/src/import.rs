//! `rbuild import`.

use std::path::Path;
use std::sync::Arc;

use app::{App, Runnable, observed};
use builder::working;
use clap::Args;
use options::platform::PlatformFlags;
use options::progress::Progress;
use options::{Failure, Reach, environment};

use crate::transfer::piped;
use options::place::local_name;

/// Make an image from an archive of a root file system
#[derive(Debug, Args)]
pub struct Import {
    /// Apply a Dockerfile instruction to the config: `ENV A=1`, `CMD ["run"]`
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Set the comment in the history (default: imported from SOURCE)
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Print nothing but the image id
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    platform: PlatformFlags,
    /// The archive, compressed or not: a file, a URL, or - for standard input
    source: String,
    /// The name of the image (default: none)
    image: Option<String>,
}

impl Runnable for Import {
    /// Makes the image and prints its id.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let remote = self.source.starts_with("http://") || self.source.starts_with("https://");
        let given = Some(self.source.as_str()).filter(|source| *source != "-");
        let piped = match given {
            None => Some(piped("name it, or send it in: rbuild import - NAME < FILE")?),
            Some(_) => None,
        };
        let source = match &piped {
            Some(file) => file.path().display().to_string(),
            None if remote => self.source.clone(),
            None => environment::absolute(Path::new(&self.source))?.display().to_string(),
        };
        let import = working::Import {
            source,
            name: if piped.is_some() { "standard input".to_owned() } else { self.source.clone() },
            platform: self.platform.platform(),
            comment: self.message,
        };
        let wish = working::Commit {
            changes: self.change,
            names: self.image.iter().map(|name| local_name(name)).collect::<Result<_, _>>()?,
            ..working::Commit::default()
        };
        let progress = Progress::Auto.unless(self.quiet);
        let image = observed(&format!("import {}", self.source), progress, |task| {
            let env = app.env(&Reach::default())?;
            let task = Arc::new(task.child(format!("import {}", import.name)));
            let made = app.wait(working::import(&import, &wish, &env, &task))??;
            if let Some(task) = Arc::into_inner(task) {
                task.done();
            }
            Ok(made)
        })?;
        outln!("{}", image.id());
        Ok(0)
    }
}
