//! The compression of layers at the destination.

use std::path::Path;

use clap::{Args, ValueEnum};
use configuration::EngineTable;
use image::Encoding;
use layers::Compression;
use transport::{Layers, Location, Recompress};

use crate::{Dialect, EffectiveConfig, Failure};

/// A compression by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CompressionName {
    Gzip,
    Zstd,
    /// zstd with a table of the files, for partial fetches
    #[value(name = "zstd:chunked")]
    ZstdChunked,
}

/// How to compress layers.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Compression")]
pub struct CompressFlags {
    /// Compress uncompressed layers, by default with gzip
    #[arg(long, conflicts_with = "dest_decompress")]
    dest_compress: bool,
    /// Write layers uncompressed
    #[arg(long, conflicts_with_all = ["dest_compress_format", "dest_compress_level"])]
    dest_decompress: bool,
    /// Convert layers of any other format to this one
    #[arg(long, value_enum, value_name = "FORMAT")]
    dest_compress_format: Option<CompressionName>,
    /// Use this compression level: 0 to 9 for gzip, 1 to 22 for zstd
    #[arg(long, value_name = "LEVEL", allow_negative_numbers = true)]
    dest_compress_level: Option<i32>,
    /// Compress all layers again, including those in the requested format
    #[arg(long)]
    dest_force_compress_format: bool,
    /// Make a seekable index of each gzip layer, attach it to the copy and name it in the manifest, so
    /// that single files can be fetched; the manifest's digest changes
    #[arg(long)]
    pub gzip_index: bool,
    /// Accepted: uncompressed layers stay uncompressed, to keep the digests
    #[arg(long)]
    dest_oci_accept_uncompressed_layers: bool,
    /// Accepted: digests are always computed before the upload
    #[arg(long)]
    dest_precompute_digests: bool,
}

impl CompressFlags {
    /// What the flags of `rbuild push` ask for.
    ///
    /// # Errors
    /// There is no such format.
    pub fn of_push(
        format: Option<&str>,
        level: Option<i32>,
        force: bool,
        plain: bool,
    ) -> Result<CompressFlags, Failure> {
        let read = |name: &str| {
            let refuse = |_| {
                Failure::usage(format!("--compression-format {name} is not supported"))
                    .hint("gzip, zstd and zstd:chunked are supported")
            };
            CompressionName::from_str(name, true).map_err(refuse)
        };
        Ok(CompressFlags {
            dest_compress_format: format.map(read).transpose()?,
            dest_compress_level: level,
            dest_force_compress_format: force,
            dest_decompress: plain,
            ..CompressFlags::default()
        })
    }

    /// The same for a copy to this place: some dialects compress what is pushed, unless `keep`
    /// says that the digests must stay.
    #[must_use]
    pub fn for_copy(&self, to: &Location, keep: bool) -> CompressFlags {
        let pushes = matches!(to, Location::Registry(_)) && Dialect::spoken().suits_destinations();
        let said = self.dest_decompress || self.dest_compress_format.is_some() || keep;
        CompressFlags { dest_compress: self.dest_compress || pushes && !said, ..self.clone() }
    }

    /// The requested compression; `None` if layers keep their bytes.
    ///
    /// # Errors
    /// A level without a format, or out of its range.
    pub fn recompress(&self, room: &Path) -> Result<Option<Recompress>, Failure> {
        let encoding = match (self.dest_decompress, self.dest_compress_format) {
            (true, _) => Encoding::Plain,
            (_, Some(CompressionName::Zstd | CompressionName::ZstdChunked)) => Encoding::Zstd,
            (_, Some(CompressionName::Gzip)) => Encoding::Gzip,
            (_, None) if self.dest_compress => Encoding::Gzip,
            (_, None) => return self.nothing().map(|()| None),
        };
        let range = match encoding {
            Encoding::Gzip => 0..=9,
            _ => 1..=22,
        };
        if let Some(level) = self.dest_compress_level.filter(|level| !range.contains(level)) {
            let (low, high) = (range.start(), range.end());
            let what = format!(
                "compression level {level} is out of range: the levels are {low} to {high}"
            );
            return Err(Failure::usage(what));
        }
        let layers = match (self.dest_force_compress_format, self.dest_compress_format) {
            (true, _) => Layers::All,
            (false, None) if self.dest_compress => Layers::Plain,
            (false, _) => Layers::Others,
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let compression = Compression { encoding, level: self.dest_compress_level };
        let chunked = self.dest_compress_format == Some(CompressionName::ZstdChunked);
        Ok(Some(Recompress { compression, chunked, layers, threads, room: room.to_owned() }))
    }

    fn nothing(&self) -> Result<(), Failure> {
        let flag = match (self.dest_compress_level, self.dest_force_compress_format) {
            (Some(_), _) => "--dest-compress-level",
            (None, true) => "--dest-force-compress-format",
            (None, false) => return Ok(()),
        };
        Err(Failure::usage(format!("{flag} needs --dest-compress-format or --dest-compress")))
    }
}

/// A compression of layers, as buildah names it.
#[derive(Debug, Clone, Default, Args)]
pub struct AskedCompression {
    /// Compress layers in this format: gzip, zstd or zstd:chunked
    #[arg(long, value_name = "FORMAT")]
    pub(crate) compression_format: Option<String>,
    /// Set the compression level: 0 to 9 for gzip, 1 to 22 for zstd
    #[arg(long, value_name = "LEVEL", requires = "compression_format")]
    compression_level: Option<i32>,
    /// Compress all layers again at the destination, even if they have the format
    #[arg(long, requires = "compression_format")]
    pub(crate) force_compression: bool,
}

impl AskedCompression {
    /// What the flags ask for, or else containers.conf; `plain` keeps layers uncompressed where no
    /// flag names a format.
    ///
    /// # Errors
    /// There is no such format, or its level is out of range.
    pub(crate) fn recompress(
        &self,
        conf: Option<EngineTable>,
        plain: bool,
        room: &Path,
    ) -> Result<Option<Recompress>, Failure> {
        let conf = conf.filter(|_| !plain).unwrap_or_default();
        let format = self.compression_format.clone().or(conf.compression_format);
        let level = conf.compression_level.filter(|_| format.is_some());
        let (level, force) = (self.compression_level.or(level), self.force_compression);
        let plain = plain && format.is_none();
        CompressFlags::of_push(format.as_deref(), level, force, plain)?.recompress(room)
    }
}

/// How to compress layers on the way, as in buildah.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Compression")]
pub struct PushCompression {
    #[command(flatten)]
    asked: AskedCompression,
    /// Make a seekable index of each gzip layer, attach it to the image and name it in the manifest
    #[arg(long)]
    pub gzip_index: bool,
    /// Push layers uncompressed
    #[arg(short = 'D', long, conflicts_with = "compression_format")]
    disable_compression: bool,
}

impl PushCompression {
    /// The requested compression on the way there, by the flags or by containers.conf; `None` if
    /// layers keep their bytes.
    ///
    /// # Errors
    /// There is no such format, or its level is out of range.
    pub fn recompress(
        &self,
        conf: &EffectiveConfig,
        to: &Location,
    ) -> Result<Option<Recompress>, Failure> {
        let room = conf.settings.room();
        let conf = conf.paths.containers_conf()?.engine;
        let plain = self.disable_compression
            || self.asked.compression_format.is_none() && keeps_plain(Some(to));
        self.asked.recompress(Some(conf), plain, room)
    }
}

/// Whether layers are pushed uncompressed to this destination where no flag says.
pub fn keeps_plain(to: Option<&Location>) -> bool {
    matches!(to, Some(Location::Directory(_))) && Dialect::spoken().keeps_files_plain()
}

/// The same for an image that is committed to the destination: all files are written so.
pub(crate) fn commits_plain(to: Option<&Location>) -> bool {
    let files = matches!(to, Some(Location::Layout(..) | Location::OciArchive(..)));
    keeps_plain(to) || files && Dialect::spoken().keeps_files_plain()
}
