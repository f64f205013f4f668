//! The environment of the program.

use super::{ContainerSpec, DEFAULT_PATH, hostname, users::User};
use crate::{Error, Result};

/// `NAME=value` lines, each name once: the image's, laid over with the user's, and what every
/// program expects.
pub(super) fn environment(
    config: &image::ContainerConfig,
    spec: &ContainerSpec,
    identity: &User,
) -> Result<Vec<String>> {
    let mut lines = vec![format!("PATH={DEFAULT_PATH}")];
    if spec.isolation.owns_uts() {
        lines.push(format!("HOSTNAME={}", hostname(spec)));
    }
    if spec.process.terminal {
        lines.push("TERM=xterm".to_owned());
    }
    let of_image = config.env.iter().filter(|_| !spec.process.unset_all);
    for line in of_image.chain(&spec.process.env) {
        set(&mut lines, line)?;
    }
    lines.retain(|line| !spec.process.unset_env.iter().any(|name| name_of(line) == name));
    let unset_home = spec.process.unset_env.iter().any(|name| name == "HOME");
    if !unset_home && !lines.iter().any(|line| name_of(line) == "HOME") {
        let home =
            identity.home.as_deref().unwrap_or(if identity.uid == 0 { "/root" } else { "/" });
        lines.push(format!("HOME={home}"));
    }
    Ok(lines)
}

/// Lays one line over the others.
pub(crate) fn set(lines: &mut Vec<String>, line: &str) -> Result<()> {
    let name = name_of(line);
    if name.is_empty() || !line.contains('=') || line.contains('\0') {
        return Err(Error::invalid(
            "environment",
            format!("{line:?} is not of the form NAME=value"),
        ));
    }
    match lines.iter_mut().find(|known| name_of(known) == name) {
        Some(known) => line.clone_into(known),
        None => lines.push(line.to_owned()),
    }
    Ok(())
}

fn name_of(line: &str) -> &str {
    line.split('=').next().unwrap_or_default()
}
