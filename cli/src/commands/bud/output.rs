//! `--output`.

use std::path::{Path, PathBuf};

use builder::Output;

use super::local_name;
use crate::config;
use crate::report::Failure;

/// Whether an `--output` has standard output for itself.
pub(super) fn to_stdout(text: &str) -> bool {
    let mut keys = text.split(',');
    text == "-"
        || keys.clone().any(|pair| pair == "dest=-")
        || keys.clone().any(|pair| pair == "type=tar")
            && !keys.any(|pair| pair.starts_with("dest="))
}

/// `type=oci,dest=PATH`, or a lone path for `type=local`, as Docker reads `--output`.
pub(super) fn output(text: &str, tags: &[String]) -> Result<Output, Failure> {
    let refuse = |why: String| Failure::usage(format!("--output {text:?}: {why}"));
    if !text.contains('=') {
        return match text {
            "-" => Ok(Output::Tar("/dev/stdout".into())),
            path => Ok(Output::Files(config::absolute(Path::new(path))?)),
        };
    }
    let (mut kind, mut destination, mut name) = (None, None, None);
    for pair in text.split(',') {
        match pair.split_once('=') {
            Some(("type", value)) => kind = Some(value),
            Some(("dest", value)) => destination = Some(value),
            Some(("name", value)) => name = Some(value),
            Some((key, _)) => return Err(refuse(format!("key {key:?} is not supported"))),
            None => return Err(refuse(format!("{pair:?} is not KEY=VALUE"))),
        }
    }
    let path = |destination: Option<&str>| match destination {
        Some("-") => Ok(PathBuf::from("/dev/stdout")),
        Some(path) => config::absolute(Path::new(path)),
        None => Err(refuse("it has no dest=".to_owned())),
    };
    let tag = name.or(tags.first().map(String::as_str));
    let place = |transport: &str, path: &Path| -> Result<String, Failure> {
        let name = match tag {
            Some(tag) => format!(":{}", local_name(tag)?),
            None => String::new(),
        };
        Ok(format!("{transport}:{}{name}", path.display()))
    };
    if destination == Some("-") && matches!(kind, Some("oci" | "docker" | "local")) {
        return Err(refuse("only type=tar goes to standard output".to_owned()));
    }
    match kind {
        Some("local") => Ok(Output::Files(path(destination)?)),
        Some("tar") => Ok(Output::Tar(path(destination.or(Some("-")))?)),
        Some("oci") => Ok(Output::Image(place("oci-archive", &path(destination)?)?)),
        Some("docker") => Ok(Output::Image(place("docker-archive", &path(destination)?)?)),
        Some("registry") => {
            let name =
                tag.ok_or_else(|| refuse("it has no name=, and there is no --tag".to_owned()))?;
            Ok(Output::Image(format!("docker://{name}")))
        }
        Some(other) => Err(refuse(format!("type {other:?} is not supported"))
            .hint("supported types are local, tar, oci, docker and registry")),
        None => Err(refuse("it has no type=".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tar_goes_to_standard_output() {
        for (text, taken) in [
            ("-", true),
            ("type=tar", true),
            ("type=tar,dest=-", true),
            ("type=tar,dest=out.tar", false),
            ("type=oci,dest=image.tar", false),
            ("out", false),
        ] {
            assert_eq!(to_stdout(text), taken, "{text}");
            assert!(output(text, &[]).is_ok(), "{text}");
        }
        for text in ["type=oci,dest=-", "type=docker,dest=-", "type=local,dest=-"] {
            assert!(output(text, &[]).is_err(), "{text}");
        }
    }
}
