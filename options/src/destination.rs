//! Locations on the command line, and the destination of a new image.

use std::path::{Path, PathBuf};

use clap::Args;
use image::Reference;
use transport::{Location, Named};

use crate::dialect::Dialect;
use crate::environment;
use crate::failure::Failure;

/// Reads a location; a text without a transport gets `default` in front.
///
/// # Errors
/// The text is not a location.
pub fn location(text: &str, default: &str) -> Result<Location, Failure> {
    let here = environment::absolute(Path::new("."))?;
    let read = match text.parse::<Location>() {
        // `docker:NAME` is `docker://NAME` written wrongly rather than an image called docker.
        Err(_)
            if !default.is_empty()
                && !text.starts_with("docker:")
                && (Dialect::spoken() == Dialect::Crane || !transport::foreign(text))
                && text.parse::<Reference>().is_ok() =>
        {
            format!("{default}{text}").parse::<Location>()
        }
        read => read,
    };
    Ok(read?.under(&here))
}

/// Where to write a new image.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Destination")]
pub struct ToFlags {
    /// The destination: a name on a registry, or transport:…
    #[arg(short, long = "tag", visible_alias = "to", value_name = "NAME")]
    tag: Option<String>,
    /// Write a tarball for `docker load` instead; --tag is the name in it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl ToFlags {
    /// The destination; `None` if it is not given.
    ///
    /// # Errors
    /// The name is none.
    pub fn location(&self) -> Result<Option<Location>, Failure> {
        match (&self.output, &self.tag) {
            (Some(file), tag) => {
                let named = tag.clone().map_or(Named::Only, Named::Name);
                Ok(Some(Location::DockerArchive(environment::absolute(file)?, named)))
            }
            (None, Some(tag)) => location(tag, "docker://").map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Where to.
    ///
    /// # Errors
    /// There is no destination.
    pub fn required(&self) -> Result<Location, Failure> {
        self.location()?.ok_or_else(|| {
            Failure::usage("there is no destination")
                .hint("name the destination: --tag NAME, or --output FILE")
        })
    }
}
