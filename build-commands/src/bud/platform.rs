//! What a build is for.

use builder::syntax;
use clap::Args;
use image::Platform;
use options::Failure;

/// The platforms of a build.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Platforms")]
pub(crate) struct PlatformFlags {
    /// Build for these platforms, such as linux/amd64,linux/arm64; several give an index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',')]
    platform: Vec<String>,
    /// Build for this operating system
    #[arg(long, value_name = "OS", conflicts_with = "platform")]
    os: Option<String>,
    /// Build for this architecture
    #[arg(long, value_name = "ARCH", conflicts_with = "platform")]
    arch: Option<String>,
    /// Build for this variant of the architecture
    #[arg(long, value_name = "VARIANT", conflicts_with = "platform")]
    variant: Option<String>,
    /// Build for every platform that all base images of the target have
    #[arg(long, conflicts_with_all = ["platform", "os", "arch", "variant"])]
    all_platforms: bool,
}

/// The platforms of these names.
///
/// # Errors
/// A name is malformed.
pub(crate) fn platforms(names: &[String]) -> Result<Vec<Platform>, Failure> {
    syntax::platforms(names.iter().map(String::as_str)).map_err(|error| {
        let failure = Failure::from(error).context("reading --platform");
        Failure { usage: true, ..failure }
    })
}

impl PlatformFlags {
    /// Whether the base images say what to build for.
    pub(super) fn all(&self) -> bool {
        self.all_platforms
    }

    /// What to build for, in order, each once.
    pub(super) fn platforms(&self) -> Result<Vec<Platform>, Failure> {
        let mut platforms = platforms(&self.platform)?;
        if platforms.is_empty() {
            let host = Platform::host();
            let os = self.os.as_deref().unwrap_or(&host.os);
            let architecture = self.arch.as_deref().unwrap_or(&host.architecture);
            let variant = self.variant.as_deref();
            let variant = variant.or(host.variant.as_deref().filter(|_| self.arch.is_none()));
            platforms.push(Platform::new(os, architecture, variant));
        }
        Ok(platforms)
    }
}

#[cfg(test)]
mod tests {
    use clap::{FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: PlatformFlags,
    }

    fn read(line: &[&str]) -> Result<Vec<String>, String> {
        let command = <Line as clap::CommandFactory>::command().no_binary_name(true);
        let matches = command.try_get_matches_from(line).map_err(|error| error.to_string())?;
        let line = Line::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        let platforms = line.flags.platforms().map_err(|failure| format!("{failure:?}"))?;
        Ok(platforms.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn platforms_are_lists_and_parts() {
        let host = Platform::host().to_string();
        for (line, expected) in [
            (&[][..], &[host.as_str()][..]),
            (&["--platform", "linux/amd64,linux/aarch64"], &["linux/amd64", "linux/arm64"]),
            (&["--platform=linux/arm64", "--platform=arm64,local"], &["linux/arm64", &host]),
            (&["--arch", "arm", "--variant", "v6"], &["linux/arm/v6"]),
            (&["--arch", "riscv64"], &["linux/riscv64"]),
        ] {
            assert_eq!(read(line).unwrap(), expected, "{line:?}");
        }
        assert!(read(&["--platform", "linux/"]).is_err());
        assert!(read(&["--platform", "linux/arm64", "--arch", "arm"]).is_err());
        assert!(read(&["--all-platforms", "--platform", "linux/arm64"]).is_err());
    }
}
