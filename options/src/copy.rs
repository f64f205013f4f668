//! Which parts of an image a copy takes.

use clap::{Args, ValueEnum};
use image::Platform;
use transport::{CopyOptions, Format, Location, Select};

use crate::Dialect;
use crate::settings::Settings;

fn format_name(text: &str) -> Result<Format, String> {
    match text {
        "oci" => Ok(Format::Oci),
        "v2s2" | "docker" => Ok(Format::Docker),
        "v2s1" => Err("v2s1 is not written: registries no longer accept it; use v2s2".to_owned()),
        _ => Err("the formats are oci and v2s2".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MultiArch {
    System,
    All,
    IndexOnly,
}

/// Which parts of an image to copy.
#[derive(Debug, Clone, Default, Args)]
pub struct WhatFlags {
    /// Copy every image of an index, not only this platform's
    #[arg(short, long, conflicts_with = "platform")]
    pub all: bool,
    /// Copy these images of an index: system, all or index-only
    #[arg(long, value_enum, conflicts_with_all = ["all", "platform"])]
    multi_arch: Option<MultiArch>,
    /// Copy this platform only; several give a smaller index
    #[arg(long, value_name = "OS/ARCH,…", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Fail rather than change a digest
    #[arg(long)]
    preserve_digests: bool,
    /// Convert documents to this format: oci or v2s2
    #[arg(short, long, value_name = "FORMAT", value_parser = format_name)]
    format: Option<Format>,
    /// Copy referrers of the image (signatures, SBOMs) and their referrers (default: true between
    /// registries, layouts, OCI archives and the store)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Attached")]
    referrers: Option<bool>,
    /// Copy tags derived from the image's digest (sha256-….sig, .att, .sbom) (default: true between
    /// registries and layouts)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Attached")]
    digest_tags: Option<bool>,
    /// Copy referrers of this artifact type only; repeatable
    #[arg(long, value_name = "TYPE", help_heading = "Attached")]
    artifact_type: Vec<String>,
    /// Copy no signatures
    #[arg(long, help_heading = "Attached")]
    remove_signatures: bool,
}

impl WhatFlags {
    /// Whether signatures are copied.
    pub fn signatures(&self) -> bool {
        !self.remove_signatures
    }

    /// Whether digests must stay.
    pub fn preserves_digests(&self) -> bool {
        self.preserve_digests
    }

    /// The options of a copy between these places.
    pub fn options(&self, settings: &Settings, from: &Location, to: &Location) -> CopyOptions {
        let (have, hold) = (from.capabilities(), to.capabilities());
        let select = self.select(settings);
        let whole = select != Select::IndexOnly;
        let referrers = self.referrers.unwrap_or(whole && have.referrers && hold.referrers);
        let tags = whole && have.digest_tags && hold.digest_tags && self.artifact_type.is_empty();
        CopyOptions {
            select,
            preserve_digests: self.preserve_digests,
            format: self.format(from, to),
            referrers,
            digest_tags: self.digest_tags.unwrap_or(tags && self.referrers != Some(false)),
            signatures: !self.remove_signatures,
            artifact_types: self.artifact_type.clone(),
            only_for: self.platform.clone(),
            ..CopyOptions::default()
        }
    }

    /// Whether to warn about attachments that stay behind: not if the user chose what to copy.
    pub fn tells_left(&self) -> bool {
        let said = self.referrers.is_some()
            || self.digest_tags.is_some()
            || self.remove_signatures
            || !self.artifact_type.is_empty();
        !said && !matches!(self.multi_arch, Some(MultiArch::IndexOnly))
    }

    fn format(&self, from: &Location, to: &Location) -> Option<Format> {
        match (self.format, from, to) {
            (Some(format), ..) => Some(format),
            // The archive holds no manifest whose digest could be kept, and other readers of
            // layouts take OCI documents only.
            (
                None,
                Location::DockerArchive(..) | Location::Daemon(_),
                Location::Layout(..) | Location::OciArchive(..),
            ) if !self.preserve_digests => Some(Format::Oci),
            (None, _, Location::Layout(..) | Location::OciArchive(..))
                if !self.preserve_digests && Dialect::spoken().suits_destinations() =>
            {
                Some(Format::Oci)
            }
            _ => None,
        }
    }

    fn select(&self, settings: &Settings) -> Select {
        match (self.all, self.multi_arch, &self.platform[..]) {
            (true, ..) | (_, Some(MultiArch::All), _) => Select::All,
            (_, Some(MultiArch::IndexOnly), _) => Select::IndexOnly,
            (_, None, []) if Dialect::spoken().copies_all() => Select::All,
            (_, _, []) => Select::One(settings.platform()),
            (_, _, [one]) => Select::One(one.clone()),
            (_, _, several) => Select::List(several.to_vec()),
        }
    }
}
