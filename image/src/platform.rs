use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::nullable::nullable;
use crate::{Error, Result};

/// What an image runs on (image-spec, image-index.md#image-index-property-descriptions).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …: Go's names.
    #[serde(default)]
    pub architecture: String,
    /// `linux`, `windows`, …: Go's names.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system (Windows).
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features the operating system must have (Windows).
    #[serde(
        default,
        rename = "os.features",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Variant of the CPU: `v7`, `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// A platform of this operating system and architecture, in normal form.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let (architecture, variant) = normal(architecture, variant);
        Platform {
            architecture,
            os: if os == "macos" { "darwin".to_owned() } else { os.to_ascii_lowercase() },
            os_version: None,
            os_features: Vec::new(),
            variant,
        }
    }

    /// The platform this program was built for.
    pub fn host() -> Platform {
        Platform::new(std::env::consts::OS, std::env::consts::ARCH, None)
    }

    /// How well an image for `self` serves a request for `wanted`: `None` not at all, else a rank
    /// of which the smallest is best. ARM variants below the wanted one are worse, but accepted.
    pub fn serves(&self, wanted: &Platform) -> Option<u32> {
        let (offered, wanted) = (self.normalized(), wanted.normalized());
        if offered.os != wanted.os || offered.architecture != wanted.architecture {
            return None;
        }
        if wanted.os_version.is_some() && offered.os_version != wanted.os_version {
            return None;
        }
        match (&offered.variant, &wanted.variant) {
            (offered, wanted) if offered == wanted => Some(0),
            (Some(offered), Some(wanted)) if self.architecture.starts_with("arm") => {
                let (offered, wanted) = (arm_version(offered)?, arm_version(wanted)?);
                wanted.checked_sub(offered)
            }
            (None, _) => Some(100),
            _ => None,
        }
    }

    /// Whether its operating system and architecture are names of Go's list, as images have them.
    pub fn is_known(&self) -> bool {
        let system =
            SYSTEMS.contains(&self.os.as_str()) || OTHER_SYSTEMS.contains(&self.os.as_str());
        system && ARCHITECTURES.contains(&self.architecture.as_str())
    }

    fn normalized(&self) -> Platform {
        let (architecture, variant) = normal(&self.architecture, self.variant.as_deref());
        Platform { architecture, variant, ..self.clone() }
    }
}

fn arm_version(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.parse().ok()
}

fn normal(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.map(str::to_ascii_lowercase).filter(|variant| !variant.is_empty());
    let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
        ("x86_64" | "x86-64" | "amd64", Some("v1") | None) => ("amd64", None),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("i386" | "i686" | "x86", variant) => ("386", variant),
        ("aarch64" | "arm64", Some("v8" | "8") | None) => ("arm64", None),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", Some("v7")),
        ("armel", _) => ("arm", Some("v6")),
        ("arm", None | Some("7")) => ("arm", Some("v7")),
        ("arm", Some("5")) => ("arm", Some("v5")),
        ("arm", Some("6")) => ("arm", Some("v6")),
        ("arm", Some("8")) => ("arm", Some("v8")),
        (other, variant) => (other, variant),
    };
    (architecture.to_owned(), variant.map(str::to_owned))
}

/// The operating systems that may be named alone (Go's names).
const SYSTEMS: [&str; 12] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "linux",
    "macos",
    "netbsd",
    "openbsd",
    "solaris",
    "windows",
];
/// Those that may not.
const OTHER_SYSTEMS: [&str; 5] = ["ios", "js", "plan9", "wasi", "wasip1"];
/// The architectures that may be named alone (Go's names).
const ARCHITECTURES: [&str; 16] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv", "riscv64", "s390x", "sparc64", "wasm",
];

impl FromStr for Platform {
    type Err = Error;

    /// Reads `os/arch[/variant]`, or a lone architecture or operating system that is known.
    fn from_str(text: &str) -> Result<Platform> {
        let refuse = |reason| Error::Platform { text: text.chars().take(100).collect(), reason };
        let clean = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| clean(part)) {
            return Err(refuse("its parts are letters, digits, '-', '_' and '.'"));
        }
        match parts[..] {
            [name] if SYSTEMS.contains(&name.to_ascii_lowercase().as_str()) => {
                let host = Platform::host();
                Ok(Platform::new(name, &host.architecture, host.variant.as_deref()))
            }
            [name] => {
                let lone = Platform::new(std::env::consts::OS, name, None);
                match ARCHITECTURES.contains(&lone.architecture.as_str()) {
                    true => Ok(lone),
                    false => Err(refuse("it is neither an operating system nor an architecture")),
                }
            }
            [os, architecture] => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, Some(variant))),
            _ => Err(refuse("it has the form os/arch or os/arch/variant")),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_in_normal_form() {
        let cases = [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("Linux/ARM/v6", "linux/arm/v6"),
            ("linux/riscv64", "linux/riscv64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "/", "linux/", "linux/amd64/v1/x", "linux/a b", "li\u{e9}/x"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_misspelled_platform_is_not_known() {
        for (text, known) in [
            ("linux/amd64", true),
            ("linux/arm/v7", true),
            ("wasi/wasm", true),
            ("linux/none", false),
            ("linus/amd64", false),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().is_known(), known, "{text}");
        }
    }

    #[test]
    fn variants_are_served_downwards() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        let rank = |offered, wanted| platform(offered).serves(&platform(wanted));
        assert_eq!(rank("linux/arm/v7", "linux/arm/v7"), Some(0));
        assert_eq!(rank("linux/arm/v6", "linux/arm/v7"), Some(1));
        assert_eq!(rank("linux/arm/v7", "linux/arm/v6"), None);
        assert_eq!(rank("linux/amd64", "linux/arm64"), None);
        assert_eq!(rank("linux/amd64", "linux/amd64/v3"), Some(100));
        assert_eq!(rank("linux/amd64/v3", "linux/amd64"), None);
    }
}
