//! Entries of manifest lists: what the list states about an image, and artifacts made of files.

use std::path::PathBuf;

use clap::Args;
use image::{Descriptor, MediaType, Platform};
use transport::ArtifactFiles;

use crate::{Failure, flags};

/// What the list states about an image, in place of the image's own values.
#[derive(Debug, Clone, Default, Args)]
pub struct EntryFlags {
    /// Add an annotation to the entry of the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// Set the operating system
    #[arg(long, value_name = "OS")]
    pub os: Option<String>,
    /// Set the architecture
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    /// Set the variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    pub variant: Option<String>,
    /// Set the version of the operating system
    #[arg(long, value_name = "VERSION")]
    pub os_version: Option<String>,
    /// Set the required features of the operating system
    #[arg(long, value_name = "FEATURE,…", value_delimiter = ',')]
    pub os_features: Vec<String>,
    /// Not supported: the OCI image index has no such field
    #[arg(long, value_name = "FEATURE,…", hide = true)]
    pub features: Vec<String>,
}

impl EntryFlags {
    /// Refuses what cannot be kept.
    ///
    /// # Errors
    /// `--features` is given; an annotation is malformed.
    pub fn check(&self) -> Result<(), Failure> {
        if !self.features.is_empty() {
            return Err(Failure::usage(
                "--features is not supported: the OCI image index has no such field",
            )
            .hint("--os-features is kept"));
        }
        flags::annotations(&self.annotation).map(drop)
    }

    /// Whether anything is said at all.
    pub fn says_anything(&self) -> bool {
        self.platform(None).is_some() || !self.annotation.is_empty()
    }

    /// The platform with what the flags say laid over it.
    fn platform(&self, own: Option<Platform>) -> Option<Platform> {
        let silent = self.os.is_none()
            && self.arch.is_none()
            && self.variant.is_none()
            && self.os_version.is_none()
            && self.os_features.is_empty();
        if silent {
            return own;
        }
        let mut platform = own.unwrap_or_else(|| Platform {
            architecture: String::new(),
            os: String::new(),
            os_version: None,
            os_features: Vec::new(),
            variant: None,
        });
        if let Some(os) = &self.os {
            platform.os.clone_from(os);
        }
        if let Some(architecture) = &self.arch {
            platform.architecture.clone_from(architecture);
        }
        if let Some(variant) = &self.variant {
            platform.variant = Some(variant.clone()).filter(|variant| !variant.is_empty());
        }
        if let Some(version) = &self.os_version {
            platform.os_version = Some(version.clone()).filter(|version| !version.is_empty());
        }
        if !self.os_features.is_empty() {
            platform.os_features.clone_from(&self.os_features);
        }
        Some(platform)
    }

    /// The requested image of an index.
    pub fn wanted(&self) -> Platform {
        let os = self.os.as_deref().unwrap_or(std::env::consts::OS);
        let architecture = self.arch.as_deref().unwrap_or(std::env::consts::ARCH);
        Platform::new(os, architecture, self.variant.as_deref())
    }

    /// Says it of an entry.
    ///
    /// # Errors
    /// An annotation is malformed.
    pub fn describe(&self, entry: &mut Descriptor) -> Result<(), Failure> {
        entry.platform = self.platform(entry.platform.take());
        entry.annotations.extend(flags::annotations(&self.annotation)?);
        Ok(())
    }
}

/// What the artifact of `manifest add --artifact` is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Artifact")]
pub struct ArtifactFlags {
    /// Make an artifact of files, and add it: the arguments are files
    #[arg(long)]
    pub artifact: bool,
    /// Set the artifact's media type
    #[arg(long, value_name = "TYPE", requires = "artifact")]
    pub artifact_type: Option<String>,
    /// Use this file as the config (default: the empty config)
    #[arg(long, value_name = "FILE", requires = "artifact")]
    artifact_config: Option<PathBuf>,
    /// Set the media type of the config
    #[arg(long, value_name = "TYPE", requires = "artifact")]
    artifact_config_type: Option<String>,
    /// Set the media type of the files (default: application/octet-stream)
    #[arg(long, value_name = "TYPE", requires = "artifact")]
    artifact_layer_type: Option<String>,
    /// Leave out the names of the files
    #[arg(long, requires = "artifact")]
    artifact_exclude_titles: bool,
    /// Make the artifact refer to this image
    #[arg(long, value_name = "IMAGE", requires = "artifact")]
    pub artifact_subject: Option<String>,
    /// Add an annotation to the artifact
    #[arg(long, value_name = "KEY=VALUE", requires = "artifact")]
    artifact_annotation: Vec<String>,
}

impl ArtifactFlags {
    /// The artifact of these files.
    ///
    /// # Errors
    /// An annotation has no key.
    pub fn parts(&self, files: &[String]) -> Result<ArtifactFiles, Failure> {
        let kind = self.artifact_layer_type.as_deref().unwrap_or("application/octet-stream");
        let config_type = self.artifact_config_type.clone().map(MediaType::from);
        let config = self.artifact_config.clone().map(|file| {
            let usual = || MediaType::from("application/vnd.oci.image.config.v1+json".to_owned());
            (file, config_type.clone().unwrap_or_else(usual))
        });
        // A manifest with the empty config must say what it is.
        let unsaid = config.is_none() && config_type.is_none();
        let unknown = unsaid.then(|| "application/vnd.unknown.artifact.v1".to_owned());
        Ok(ArtifactFiles {
            artifact_type: self.artifact_type.clone().or(unknown),
            annotations: flags::annotations(&self.artifact_annotation)?.into_iter().collect(),
            config,
            empty_config: config_type,
            untitled: self.artifact_exclude_titles,
            files: files
                .iter()
                .map(|file| (file.into(), MediaType::from(kind.to_owned())))
                .collect(),
        })
    }
}
