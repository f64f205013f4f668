//! Variables, labels, and the keys that detach from a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::SyntaxError;
use crate::{Error, Result};

/// `NAME=value` lines of one process; a bare `NAME` takes its value from `variable` and is left out
/// if there is none, as docker does.
///
/// # Errors
/// A line without a name, or with a blank in it.
pub fn environment(
    lines: &[String],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, SyntaxError> {
    let read = lines.iter().filter_map(|line| assignment(line, variable).transpose());
    read.collect()
}

/// The lines of files of variables, read as [`environment`] reads them. A byte order mark, comments
/// and the word `export` that shells want before a name are passed over.
///
/// # Errors
/// An unreadable file; those of [`environment`].
pub fn environment_files(
    files: &[impl AsRef<Path>],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for file in files.iter().map(AsRef::as_ref) {
        let text = fs::read_to_string(file).map_err(Error::file("reading", file))?;
        for line in lines(&text) {
            let read = assignment(line, variable).map_err(|error| SyntaxError {
                reason: format!("{}: {}", file.display(), error.reason),
                ..error
            });
            out.extend(read?);
        }
    }
    Ok(out)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        _ => line,
    })
}

fn assignment(
    line: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, SyntaxError> {
    let refuse = |why| Err(SyntaxError::new(format!("environment line {line:?}{why}")));
    match line.split_once('=') {
        Some(("", _)) => refuse(" has no name"),
        Some((name, _)) if name.contains(char::is_whitespace) => {
            refuse(": the name has a blank in it")
        }
        Some(_) => Ok(Some(line.to_owned())),
        None => Ok(variable(line).map(|value| format!("{line}={value}"))),
    }
}

/// The labels of files with one `KEY=VALUE` a line.
///
/// # Errors
/// An unreadable file.
pub fn label_files(files: &[impl AsRef<Path>]) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for file in files.iter().map(AsRef::as_ref) {
        let text = fs::read_to_string(file).map_err(Error::file("reading", file))?;
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        labels.extend(lines.map(pair));
    }
    Ok(labels)
}

/// `KEY=VALUE`; a bare key has an empty value.
pub fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// The entrypoint of a container: a program, or a JSON list of a program and its arguments; none for an
/// empty text.
pub fn entrypoint(text: &str) -> Vec<String> {
    let list = text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten();
    match list {
        Some(list) => list,
        None if text.is_empty() => Vec::new(),
        None => vec![text.to_owned()],
    }
}

/// The keys that detach: `ctrl-p,ctrl-q`, single characters, or empty for none; as a terminal
/// sends them.
///
/// # Errors
/// One is no key.
pub fn detach_keys(text: &str) -> Result<Vec<u8>, SyntaxError> {
    let key = |part: &str| {
        let refuse = || SyntaxError::new(format!("{part:?} is not a key such as a or ctrl-p"));
        match part.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
            Some([sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]) => Ok(sign - b'@'),
            Some(_) => Err(refuse()),
            None => match part.as_bytes() {
                [byte] => Ok(*byte),
                _ => Err(refuse()),
            },
        }
    };
    text.split(',').filter(|part| !part.is_empty()).map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entrypoint_is_a_program_or_a_list() {
        assert_eq!(entrypoint(r#"["a b", "c"]"#), ["a b", "c"]);
        assert_eq!(entrypoint("a b"), ["a b"]);
        assert_eq!(entrypoint("[odd"), ["[odd"]);
        assert!(entrypoint("").is_empty() && entrypoint("[]").is_empty());
    }

    #[test]
    fn environment_files_may_begin_with_a_mark_and_export_names() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("env");
        fs::write(&file, "\u{feff}A=1\r\nexport B=2 3\n  export\tC=4\n# D=5\nexported=6\nE\nF\n")
            .unwrap();
        let variable = |name: &str| (name == "E").then(|| "7".to_owned());
        let lines = environment_files(&[&file], &variable).unwrap();
        assert_eq!(lines, ["A=1", "B=2 3", "C=4", "exported=6", "E=7"]);
        fs::write(&file, "two words=1\n").unwrap();
        assert!(environment_files(&[file], &variable).is_err());
        assert!(environment(&["=1".to_owned()], &variable).is_err());
    }

    #[test]
    fn keys_have_names() {
        assert_eq!(detach_keys("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(detach_keys(""), Ok(Vec::new()));
        assert!(detach_keys("ctrl-1").is_err());
    }
}
