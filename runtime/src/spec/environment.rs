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
    for line in of_image {
        set(&mut lines, line)?;
    }
    for line in &spec.process.env_merge {
        let line = expanded(line, &lines);
        set(&mut lines, &line)?;
    }
    for line in &spec.process.env {
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

/// A line with the values of variables in place of `$NAME` and `${NAME}`; nothing for one that is not there.
fn expanded(line: &str, lines: &[String]) -> String {
    let value = |name: &str| {
        let line = lines.iter().find(|line| name_of(line) == name && !name.is_empty());
        line.map_or("", |line| &line[name.len() + 1..])
    };
    let mut parts = line.split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let plain = |at: char| !at.is_ascii_alphanumeric() && at != '_';
        let (name, rest) = match part.strip_prefix('{').and_then(|part| part.split_once('}')) {
            Some(inside) => inside,
            None => part.split_at(part.find(plain).unwrap_or(part.len())),
        };
        text.push_str(value(name));
        text.push_str(rest);
    }
    text
}

fn name_of(line: &str) -> &str {
    line.split('=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_other_variables_are_merged() {
        let lines = ["A=one".to_owned(), "B_2=two=2".to_owned()];
        for (line, expected) in [
            ("N=${A}-x", "N=one-x"),
            ("N=$A/$B_2:$C.", "N=one/two=2:."),
            ("N=${A", "N={A"),
            ("N=x", "N=x"),
        ] {
            assert_eq!(expanded(line, &lines), expected, "{line}");
        }
    }
}
