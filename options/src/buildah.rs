//! buildah's global options, so that scripts for it run: those that have a meaning here have it,
//! values that would change what we cannot change are refused by name.

use std::path::PathBuf;

use clap::Args;

use crate::{Failure, Program};

/// buildah's global options that `rbuild` does not have already.
#[derive(Debug, Clone, Default, Args)]
pub struct BuildahFlags {
    /// Accepted for scripts: state is in the store
    #[arg(long, global = true, hide = true, value_name = "DIR")]
    runroot: Option<PathBuf>,
    /// Accepted: overlay or vfs; layers are always mounted by overlay
    #[arg(long, global = true, hide = true, value_name = "DRIVER", env = "STORAGE_DRIVER")]
    storage_driver: Option<String>,
    /// Set an option of the storage driver
    #[arg(
        long,
        global = true,
        hide = true,
        value_name = "OPTION",
        value_delimiter = ',',
        env = "STORAGE_OPTS"
    )]
    storage_opt: Vec<String>,
    /// Accepted: `cgroupfs` is the only cgroup manager
    #[arg(long, global = true, hide = true, value_name = "MANAGER")]
    cgroup_manager: Option<String>,
    /// Not supported: use --volume
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    default_mounts_file: Option<PathBuf>,
    /// File that remembers choices of short names
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    short_name_alias_conf: Option<PathBuf>,
}

impl BuildahFlags {
    /// Where choices of short names are kept, if not in the usual place.
    pub fn short_names(&self) -> Option<PathBuf> {
        self.short_name_alias_conf.clone()
    }

    /// Refuses what cannot be had.
    ///
    /// # Errors
    /// A value that would change what we cannot change.
    pub fn check<P: Program>(&self) -> Result<(), Failure> {
        let no = |what: String, hint: &str| {
            Err(Failure::usage(format!("{what} is not supported")).hint(hint))
        };
        let runtime = std::env::var("BUILDAH_RUNTIME").unwrap_or_default();
        if !["", "crun", "runc"].contains(&runtime.rsplit('/').next().unwrap_or_default()) {
            P::tell("warning: $BUILDAH_RUNTIME: commands run in the built-in runtime");
        }
        match self.storage_driver.as_deref() {
            None | Some("" | "overlay" | "overlay2" | "vfs") => {}
            Some(other) => {
                return no(
                    format!("storage driver {other:?} (--storage-driver, $STORAGE_DRIVER)"),
                    "use overlay",
                );
            }
        }
        for option in self.storage_opt.iter().filter(|option| !option.is_empty()) {
            storage_option(option)?;
        }
        match self.cgroup_manager.as_deref() {
            None | Some("cgroupfs") => {}
            Some(other) => return no(format!("--cgroup-manager {other}"), "cgroupfs is"),
        }
        if let Some(file) = &self.default_mounts_file {
            let shown = file.display();
            return no(format!("--default-mounts-file {shown}"), "give mounts with --volume");
        }
        Ok(())
    }
}

/// Options of the storage driver: those that change only how it mounts are accepted, those that
/// change the files are not.
fn storage_option(option: &str) -> Result<(), Failure> {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    let key = key.strip_prefix("overlay.").or(key.strip_prefix("overlay2.")).unwrap_or(key);
    let harmless = match (key, value) {
        // A program or option to mount with; here the kernel mounts.
        ("mount_program" | "override_kernel_check", _) => true,
        ("mountopt", options) => options.split(',').all(|option| {
            matches!(option, "" | "nodev" | "fsync=0" | "volatile")
                || option.starts_with("metacopy=")
        }),
        ("skip_mount_home" | "use_composefs" | "ignore_chown_errors", "false" | "") => true,
        _ => false,
    };
    match harmless {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "storage option {option:?} (--storage-opt, $STORAGE_OPTS) is not supported"
        ))
        .hint("overlay.mount_program and overlay.mountopt=nodev are accepted")),
    }
}

/// `$BUILDAH_LOGLEVEL`, where it is set.
pub fn log_level() -> Option<String> {
    std::env::var("BUILDAH_LOGLEVEL").ok().filter(|level| !level.is_empty())
}

/// The media types of images: as `--format` says, else `$BUILDAH_FORMAT`, else OCI's.
///
/// # Errors
/// Neither oci nor docker.
pub fn is_docker(flag: Option<&str>) -> Result<Option<bool>, Failure> {
    let variable = std::env::var("BUILDAH_FORMAT").ok().filter(|text| !text.is_empty());
    match flag.map(str::to_owned).or(variable).as_deref() {
        None => Ok(None),
        Some("oci" | "v1") => Ok(Some(false)),
        Some("docker" | "v2s2") => Ok(Some(true)),
        Some(other) => Err(Failure::usage(format!("format {other:?} is neither oci nor docker"))),
    }
}

/// Whether the history tells of a step: as the flag says, else `$BUILDAH_HISTORY`.
pub fn wants_history(flag: Option<bool>) -> bool {
    let variable =
        || std::env::var("BUILDAH_HISTORY").is_ok_and(|text| text == "true" || text == "1");
    flag.unwrap_or_else(variable)
}

/// `--add-history`.
#[derive(Debug, Clone, Default, Args)]
pub struct HistoryFlag {
    /// Record this step in the history of the image (default: $BUILDAH_HISTORY)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub add_history: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_files_is_refused_and_how_they_are_mounted_is_not() {
        for option in [
            "overlay.mount_program=/usr/bin/fuse-overlayfs",
            "overlay.mountopt=nodev,metacopy=on",
            "mount_program=/x",
            "overlay.ignore_chown_errors=false",
        ] {
            assert!(storage_option(option).is_ok(), "{option}");
        }
        for option in
            ["overlay.size=1g", "additionalimagestore=/x", "overlay.mountopt=noexec", "vfs.x=y"]
        {
            assert!(storage_option(option).unwrap_err().usage, "{option}");
        }
    }
}
