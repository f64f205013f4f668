//! Which image of an index a command is about.

use clap::Args;
use image::Platform;

/// The platform of an image, as a whole or in parts.
#[derive(Debug, Clone, Default, Args)]
pub struct PlatformFlags {
    /// Choose the image of this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Choose the operating system of the image
    #[arg(long, value_name = "OS", conflicts_with = "platform")]
    os: Option<String>,
    /// Choose the architecture of the image
    #[arg(long, value_name = "ARCH", conflicts_with = "platform")]
    arch: Option<String>,
    /// Choose the variant of the architecture
    #[arg(long, value_name = "VARIANT", conflicts_with = "platform")]
    variant: Option<String>,
}

impl PlatformFlags {
    /// Whether a whole platform is given.
    pub fn given(&self) -> bool {
        self.platform.is_some()
    }

    /// The platform.
    pub fn platform(&self) -> Platform {
        if let Some(platform) = &self.platform {
            return platform.clone();
        }
        if self.os.is_none() && self.arch.is_none() && self.variant.is_none() {
            return Platform::host();
        }
        let os = self.os.as_deref().unwrap_or(std::env::consts::OS);
        let architecture = self.arch.as_deref().unwrap_or(std::env::consts::ARCH);
        Platform::new(os, architecture, self.variant.as_deref())
    }
}
