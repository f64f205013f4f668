//! What the image is to look like: its configuration, annotations, layers, times.

use builder::syntax;
use builder::{Annotation, Format, ImageOptions, Inherit, Level, Request, Squash, TimeOf};
use clap::{ArgAction, Args, ValueEnum};
use image::Encoding;
use layers::Compression;
use options::flags::{self, of_flag};
use options::{Dialect, Failure};

/// Changes to the image.
#[derive(Debug, Args)]
#[command(next_help_heading = "Image")]
pub(crate) struct ImageFlags {
    /// Add a label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Remove a label that the base or the Dockerfile sets
    #[arg(long, value_name = "KEY")]
    unsetlabel: Vec<String>,
    /// Add an annotation; LEVEL is manifest or manifest-descriptor (optionally followed by
    /// [PLATFORM]), index, or index-descriptor for the entry in the index.json of an oci output
    #[arg(long, value_name = "[LEVEL:]KEY=VALUE")]
    annotation: Vec<String>,
    /// Remove an annotation
    #[arg(long, value_name = "KEY")]
    unsetannotation: Vec<String>,
    /// Set a variable in the image; a bare NAME takes its value from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Remove a variable that the base or the Dockerfile sets
    #[arg(long, value_name = "NAME")]
    unsetenv: Vec<String>,
    /// Set the version of the operating system that the image needs
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Add a feature of the operating system that the image needs
    #[arg(long, value_name = "FEATURE")]
    os_feature: Vec<String>,
    /// Omit the history
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    omit_history: bool,
    /// Add the label io.rbuild.version
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    identity_label: bool,
    /// Inherit the labels of the base image
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    inherit_labels: bool,
    /// Inherit the annotations of the base image (default: only with --compat buildah)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    inherit_annotations: Option<bool>,
    /// Add the annotation org.opencontainers.image.created (default: only with --compat buildah)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    created_annotation: Option<bool>,
    /// Use these media types for the image
    #[arg(long, value_enum, default_value = "oci", env = "BUILDAH_FORMAT", hide_env = true)]
    format: FormatName,
    /// Merge layers: all (default), new (keep the base's), stage (one layer per stage)
    #[arg(long, value_name = "LAYERS", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    squash: Option<SquashName>,
    /// Same as --squash=all
    #[arg(long, conflicts_with = "squash")]
    squash_all: bool,
    /// Same as --squash=new
    #[arg(long, conflicts_with_all = ["squash", "squash_all"])]
    squash_new: bool,
    /// Make a layer for each step; false is --squash=new. Steps are cached either way
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", env = "BUILDAH_LAYERS", hide_env = true)]
    layers: Option<bool>,
    /// Compress layers with this algorithm
    ///
    /// The default is gzip, when the image leaves the store.
    #[arg(long, value_enum)]
    #[arg(alias = "compression-format")]
    compression: Option<CompressionName>,
    /// Use this compression level of the algorithm
    #[arg(long, value_name = "LEVEL")]
    compression_level: Option<i32>,
    /// Compress layers of the base again if they use another algorithm
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    force_compression: bool,
    /// Same as --compression=none
    #[arg(short = 'D', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    disable_compression: bool,
    /// Set every time in the image, in seconds since 1970 (default: $SOURCE_DATE_EPOCH)
    #[arg(
        long,
        visible_alias = "source-date-epoch",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    timestamp: Option<i64>,
    /// Limit the times of files in layers to that time too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    rewrite_timestamp: bool,
}

/// Media types.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum FormatName {
    Oci,
    Docker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SquashName {
    #[value(alias = "true")]
    All,
    New,
    Stage,
    #[value(alias = "none")]
    False,
}

/// How to compress layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CompressionName {
    Gzip,
    Zstd,
    #[value(alias = "uncompressed")]
    None,
}

impl CompressionName {
    /// The encoding of that name.
    fn encoding(self) -> Encoding {
        match self {
            CompressionName::Gzip => Encoding::Gzip,
            CompressionName::Zstd => Encoding::Zstd,
            CompressionName::None => Encoding::Plain,
        }
    }
}

impl ImageFlags {
    /// Puts the changes to the image into a request. `dialect` decides what no flag says.
    ///
    /// # Errors
    /// An annotation is malformed; a file of variables cannot be read.
    pub(super) fn apply(&self, request: &mut Request, dialect: Dialect) -> Result<(), Failure> {
        let mut annotations = Vec::new();
        for text in &self.annotation {
            annotations.extend(syntax::annotations(text).map_err(of_flag("--annotation", text))?);
        }
        let lines = flags::environment(&[], &self.env)?;
        request.image = ImageOptions {
            env: lines.iter().map(|line| flags::pair(line)).collect(),
            unset_env: self.unsetenv.clone(),
            unset_labels: self.unsetlabel.clone(),
            annotations,
            omit_history: self.omit_history,
            os_version: self.os_version.clone(),
            os_features: self.os_feature.clone(),
            squash: self.squash(dialect.layers()),
            inherit: Inherit {
                labels: self.inherit_labels,
                annotations: self.inherit_annotations.unwrap_or(dialect.names_base()),
                names_base: dialect.names_base() && self.inherit_annotations != Some(false),
                created: self.created_annotation.unwrap_or(dialect.names_base()),
            },
            force_compression: self.force_compression,
            keep_times: !self.rewrite_timestamp,
            index: false,
        };
        request.labels = self.labels().into_iter().collect();
        request.format = self.format.into();
        let encoding = match self.disable_compression {
            true => Encoding::Plain,
            false => self.compression.map_or(Encoding::Gzip, CompressionName::encoding),
        };
        request.compression = Compression { encoding, level: self.compression_level };
        request.defer &= self.compression.is_none()
            && self.compression_level.is_none()
            && !self.disable_compression
            && !self.force_compression;
        request.source_date_epoch = self.timestamp;
        Ok(())
    }

    /// Takes annotations away, those of outputs too.
    pub(super) fn unset(&self, request: &mut Request) {
        let unset = |key: &String| Annotation {
            level: Level::Manifest,
            platform: None,
            key: key.clone(),
            value: None,
        };
        request.image.annotations.extend(self.unsetannotation.iter().map(unset));
    }

    /// Whether each step makes a layer; `usual` is what is done where no flag says.
    pub(super) fn layered(&self, usual: bool) -> bool {
        self.layers.unwrap_or(usual)
    }

    /// Leaves layers plain where the image goes into files, as buildah does if no flag says how to
    /// compress them.
    pub(super) fn write_plainly(&self, request: &mut Request, tags: &[String], dialect: Dialect) {
        let asked = self.compression.is_some() || self.compression_level.is_some();
        let files = ["dir:", "oci:", "oci-archive:"];
        let to_files = |tag: &String| files.iter().any(|transport| tag.starts_with(transport));
        if dialect.keeps_files_plain() && !asked && tags.iter().any(to_files) {
            request.compression.encoding = Encoding::Plain;
            request.defer = false;
        }
    }

    fn squash(&self, layers: bool) -> Squash {
        match self.squash {
            Some(SquashName::All) => Squash::All,
            Some(SquashName::New) => Squash::New,
            Some(SquashName::Stage) => Squash::Stage,
            Some(SquashName::False) => Squash::None,
            None if self.squash_all => Squash::All,
            None if self.squash_new || !self.layers.unwrap_or(layers) => Squash::New,
            None => Squash::None,
        }
    }

    /// `--label`, and the label of this program if it is wanted.
    fn labels(&self) -> Vec<(String, String)> {
        let identity = ("io.rbuild.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let own = self.identity_label.then_some(identity);
        own.into_iter().chain(self.label.iter().map(|text| flags::pair(text))).collect()
    }
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Format {
        match name {
            FormatName::Oci => Format::Oci,
            FormatName::Docker => Format::Docker,
        }
    }
}

/// The time of everything: the build argument's or the environment's.
///
/// # Errors
/// It is not a number.
pub(super) fn epoch(argument: Option<&String>) -> Result<Epoch, Failure> {
    let variable = || std::env::var("SOURCE_DATE_EPOCH").ok();
    match argument.cloned().or_else(variable).as_deref() {
        None => Ok(Epoch::Of(TimeOf::Commit)),
        Some("") => Ok(Epoch::Of(TimeOf::Clock)),
        Some("context") => Ok(Epoch::Of(TimeOf::Context)),
        Some(text) => app::values::epoch(text).map(Epoch::Given),
    }
}

/// The time of everything in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Epoch {
    /// A fixed time.
    Given(i64),
    /// What has a time.
    Of(TimeOf),
}

#[cfg(test)]
mod tests {
    use clap::{FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ImageFlags,
    }

    fn read(line: &[&str]) -> ImageFlags {
        let command = <Line as clap::CommandFactory>::command().no_binary_name(true);
        Line::from_arg_matches(&command.get_matches_from(line)).unwrap().flags
    }

    #[test]
    fn layers_are_squashed_as_the_flags_of_each_tool_say() {
        for (line, squash) in [
            (&[][..], Squash::None),
            (&["--squash"], Squash::All),
            (&["--squash-all"], Squash::All),
            (&["--squash=new"], Squash::New),
            (&["--squash-new"], Squash::New),
            (&["--squash=stage"], Squash::Stage),
            (&["--squash=false", "--layers=false"], Squash::None),
            (&["--layers=false"], Squash::New),
            (&["--layers"], Squash::None),
        ] {
            assert_eq!(read(line).squash(true), squash, "{line:?}");
        }
    }

    fn request(line: &[&str], output: &str) -> Result<Request, Failure> {
        let mut request = Request { defer: true, ..Request::default() };
        let flags = read(line);
        flags.apply(&mut request, Dialect::Rbuild)?;
        let call = app::values::invocation()?;
        let outputs = super::super::outputs(&[], &[output.to_owned()], &call)?;
        super::super::deliver(&mut request, outputs, false)?;
        flags.unset(&mut request);
        Ok(request)
    }

    #[test]
    fn levels_are_the_encoders() {
        let plain = "type=oci,dest=x";
        let good = ["--compression=zstd", "--compression-level=22"];
        assert!(request(&good, plain).is_ok());
        assert!(request(&["--compression-level=10"], plain).is_err());
        // The output's encoding is the one whose levels count.
        assert!(request(&["--compression-level=10"], "type=oci,dest=x,compression=zstd").is_ok());
        assert!(request(&["-D", "--compression-level=1"], plain).is_err());
        assert_eq!(request(&["-D"], plain).unwrap().compression.encoding, Encoding::Plain);
    }

    #[test]
    fn layers_are_compressed_later_only_where_nothing_says_how() {
        assert!(request(&[], "type=oci,dest=x").unwrap().defer);
        assert!(!request(&[], "type=oci,dest=x,force-compression=false").unwrap().defer);
        assert!(!request(&["--compression=gzip"], "type=oci,dest=x").unwrap().defer);
    }

    #[test]
    fn what_is_unset_goes_from_outputs_too() {
        let output = "type=oci,dest=x,annotation.a=1,annotation.b=2";
        let request = request(&["--unsetannotation=a"], output).unwrap();
        let last = |key: &str| request.image.annotations.iter().rfind(|one| one.key == key);
        assert_eq!(last("a").unwrap().value, None);
        assert_eq!(last("b").unwrap().value.as_deref(), Some("2"));
    }

    #[test]
    fn the_time_is_a_flag_or_an_argument() {
        let given = |text: &str| epoch(Some(&text.to_owned()));
        assert_eq!(given("7").unwrap(), Epoch::Given(7));
        assert_eq!(given("context").unwrap(), Epoch::Of(TimeOf::Context));
        assert_eq!(given("").unwrap(), Epoch::Of(TimeOf::Clock));
        assert!(given("x").is_err());
        let flag = request(&["--timestamp=5"], "type=oci,dest=x").unwrap();
        assert_eq!(flag.source_date_epoch, Some(5));
    }
}
