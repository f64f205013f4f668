//! The times in an image that is committed, and the compression of its layers.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use configuration::EngineTable;
use image::Encoding;
use layers::Compression;
use transport::{Location, Recompress};

use crate::compress::{AskedCompression, commits_plain};
use crate::{Dialect, Failure};

/// The times in the image.
#[derive(Debug, Clone, Default, Args)]
pub struct Times {
    /// Set every time in the image, in seconds since 1970
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    timestamp: Option<i64>,
    /// Set the time of the image and of its history, in seconds since 1970 (default:
    /// $SOURCE_DATE_EPOCH)
    #[arg(
        long,
        value_name = "SECONDS",
        allow_negative_numbers = true,
        conflicts_with = "timestamp"
    )]
    source_date_epoch: Option<i64>,
    /// Same as --timestamp 0
    #[arg(long, hide = true, conflicts_with_all = ["timestamp", "source_date_epoch"])]
    omit_timestamp: bool,
    /// Set every time in the image to that of this file
    #[arg(long, hide = true, value_name = "FILE", conflicts_with_all = ["timestamp", "source_date_epoch", "omit_timestamp"])]
    reference_time: Option<PathBuf>,
    /// Let --source-date-epoch also limit the times of files in the layer (default: not as
    /// buildah)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rewrite_timestamp: Option<bool>,
}

impl Times {
    /// The time of everything, and whether files keep theirs.
    ///
    /// # Errors
    /// `$SOURCE_DATE_EPOCH` is no number; the file cannot be read.
    pub fn resolve(&self) -> Result<(Option<i64>, bool), Failure> {
        let rewrite = self.rewrite_timestamp;
        if let Some(file) = &self.reference_time {
            let about = std::fs::metadata(file)
                .map_err(|error| Failure::io(format!("reading {}", file.display()), &error))?;
            return Ok((Some(about.mtime()), rewrite == Some(false)));
        }
        if let Some(seconds) = self.omit_timestamp.then_some(0).or(self.timestamp) {
            return Ok((Some(seconds), rewrite == Some(false)));
        }
        let epoch = match self.source_date_epoch {
            Some(seconds) => Some(seconds),
            None => source_date_epoch()?,
        };
        Ok((epoch, !rewrite.unwrap_or_else(|| Dialect::spoken().rewrites_times())))
    }
}

/// How layers are compressed: in the store, and at another destination.
#[derive(Debug, Clone, Default, Args)]
pub struct CommitCompression {
    /// Do not compress the layer (default: gzip)
    #[arg(short = 'D', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_compression: Option<bool>,
    #[command(flatten)]
    asked: AskedCompression,
}

impl CommitCompression {
    /// How the new layer is compressed, and what happens to all layers on their way to another
    /// destination.
    ///
    /// # Errors
    /// There is no such format or level; layers cannot be both plain and compressed; the store does
    /// not do what is asked for.
    pub fn resolve(
        &self,
        conf: EngineTable,
        to: Option<&Location>,
        room: &Path,
    ) -> Result<(Compression, Option<Recompress>), Failure> {
        let plain = self.disable_compression == Some(true);
        let asked = self.asked.compression_format.is_some();
        if plain && asked {
            return Err(Failure::usage(
                "--disable-compression and --compression-format cannot be used together",
            ));
        }
        let usual = Compression {
            encoding: if plain { Encoding::Plain } else { Encoding::Gzip },
            level: None,
        };
        let loose = self.disable_compression.is_none() && !asked && commits_plain(to);
        let conf = Some(conf).filter(|_| to.is_some() && !plain);
        let recompress = self.asked.recompress(conf, loose, room)?;
        match (to, &recompress) {
            (None, Some(own)) if own.chunked || self.asked.force_compression => {
                let flag = if own.chunked {
                    "--compression-format zstd:chunked"
                } else {
                    "--force-compression"
                };
                Err(Failure::usage(format!("{flag} is for another destination than the store"))
                    .hint("commit to transport:…, or push the image with this flag"))
            }
            (None, Some(own)) => Ok((own.compression, None)),
            _ => Ok((usual, recompress)),
        }
    }
}

fn source_date_epoch() -> Result<Option<i64>, Failure> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => text.parse().map(Some).map_err(|_| {
            Failure::usage(format!("SOURCE_DATE_EPOCH is {text:?}, not a number of seconds"))
        }),
        _ => Ok(None),
    }
}
