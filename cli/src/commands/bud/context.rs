//! Where a build takes its Dockerfile and its files from.

use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use builder::{Context, DockerfileAt, GitUrl, HttpUrl, SourceFile, Stream};
use task::Kind;
use transport::Location;

use crate::config;
use crate::report::Failure;

/// A Dockerfile, or where it is, and the files it sees.
pub(super) struct Inputs {
    pub(super) dockerfile: SourceFile,
    /// The ignore file that belongs to the Dockerfile alone.
    pub(super) ignore: Option<SourceFile>,
    pub(super) at: DockerfileAt,
    pub(super) context: Context,
}

impl Inputs {
    fn given(dockerfile: SourceFile, ignore: Option<SourceFile>, context: Context) -> Inputs {
        Inputs { dockerfile, ignore, at: DockerfileAt::Given, context }
    }

    fn at(at: DockerfileAt, context: Context) -> Inputs {
        Inputs { dockerfile: SourceFile::default(), ignore: None, at, context }
    }
}

/// The Dockerfile and the context, found as Docker, BuildKit and buildah find them. A file whose
/// name ends with `.in` goes through cpp with these flags.
pub(super) fn inputs(
    context: &str,
    files: &[String],
    cpp_flags: &[String],
) -> Result<Inputs, Failure> {
    let mut inputs = found(context, files)?;
    let paths = files.iter().filter(|file| file.ends_with(".in"));
    match (paths.count(), files) {
        (0, _) if cpp_flags.is_empty() => {}
        (1, [path]) if !is_http(path) && inputs.at == DockerfileAt::Given => {
            let directory = Path::new(&inputs.dockerfile.name).parent();
            let directory = directory.unwrap_or(Path::new(".")).to_owned();
            let text = preprocessed(&inputs.dockerfile.text, &directory, cpp_flags)?;
            inputs.dockerfile.text = text;
        }
        (0, _) => {
            return Err(Failure::usage("--cpp-flag: no --file has a name that ends with .in"));
        }
        _ => {
            return Err(Failure::usage("--file NAME.in is one local file")
                .hint("run cpp over the others and give what comes out"));
        }
    }
    Ok(inputs)
}

fn found(context: &str, files: &[String]) -> Result<Inputs, Failure> {
    let context = place(context)?;
    let file = match files {
        [] => None,
        [file] => Some(file.as_str()),
        several => return joined(several, context),
    };
    match (file, context) {
        (Some("-"), None) => {
            Err(Failure::usage("context and Dockerfile cannot both come from stdin"))
        }
        (file, None) => from_stdin(file),
        (Some("-"), Some(context)) => Ok(Inputs::given(read_stdin("-")?, None, context)),
        (Some(url), Some(context)) if is_http(url) => {
            Ok(Inputs::at(DockerfileAt::Url(url.to_owned()), context))
        }
        (file, Some(Context::Directory(directory))) => {
            let (dockerfile, ignore) = match file {
                Some(file) => read_in(&directory, file)?,
                None => find_dockerfile(&directory)?,
            };
            Ok(Inputs::given(dockerfile, ignore, Context::Directory(directory)))
        }
        (file, Some(context)) => {
            Ok(Inputs::at(DockerfileAt::Context(file.map(str::to_owned)), context))
        }
    }
}

/// The context; `None` for standard input.
fn place(text: &str) -> Result<Option<Context>, Failure> {
    if text == "-" {
        return Ok(None);
    }
    let here = Path::new(text).exists();
    // As Docker: a repository of GitHub without a scheme.
    let text = match text.starts_with("github.com/") && !here {
        true => format!("https://{text}"),
        false => text.to_owned(),
    };
    if let Some(context) = remote("context", &text)? {
        return Ok(Some(context));
    }
    let directory = config::absolute(Path::new(&text))?;
    if !directory.is_dir() {
        return Err(Failure::new(
            Kind::NotFound,
            format!("the build context {} is not a directory", directory.display()),
        ));
    }
    Ok(Some(Context::Directory(directory)))
}

/// A Dockerfile by its path, and its own ignore file. As Docker: relative to where we are; as
/// buildah: else relative to the context.
fn read_in(
    directory: &Path,
    file: &str,
) -> Result<(SourceFile, Option<SourceFile>), builder::Error> {
    let beside = directory.join(file);
    let file = Path::new(file);
    let outside = file.exists() || !beside.exists();
    builder::read_dockerfile(if outside { file } else { &beside })
}

/// What cpp makes of a Dockerfile: `#include` and macros, as buildah has it.
fn preprocessed(text: &str, directory: &Path, flags: &[String]) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        let hint = "a --file whose name ends with .in needs the program cpp";
        Failure::io("running cpp", &error).hint(hint)
    };
    let mut command = Command::new("cpp");
    command.args(["-E", "-P", "-traditional", "-undef", "-iquote"]).arg(directory).args(flags);
    command.arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut input = child.stdin.take().ok_or_else(|| Failure::usage("cpp has no input"))?;
    let owned = text.to_owned();
    let writer = std::thread::spawn(move || input.write_all(owned.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    // cpp says itself why it did not read to the end.
    let _ = writer.join();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::new(Kind::Invalid, format!("preprocessing the Dockerfile: {said}")));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| Failure::new(Kind::Invalid, "preprocessing the Dockerfile: it is not UTF-8"))
}

/// Several Dockerfiles as one.
fn joined(files: &[String], context: Option<Context>) -> Result<Inputs, Failure> {
    let Some(Context::Directory(directory)) = context else {
        return Err(Failure::usage("several --file need a directory as context"));
    };
    if let Some(file) = files.iter().find(|file| *file == "-" || is_http(file)) {
        return Err(Failure::usage(format!("--file {file:?}: each of several must be a path")));
    }
    let (mut text, mut names, mut ignore) = (String::new(), Vec::new(), None);
    for file in files {
        let (source, own) = read_in(&directory, file)?;
        text.push_str(&source.text);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        names.push(source.name);
        ignore = ignore.or(own);
    }
    let dockerfile = SourceFile { name: names.join("+"), text };
    Ok(Inputs::given(dockerfile, ignore, Context::Directory(directory)))
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// A context that has to be fetched; `None` for a path.
fn remote(what: &str, text: &str) -> Result<Option<Context>, Failure> {
    let github = text.starts_with("https://github.com/") && text.matches('/').count() == 4;
    if GitUrl::is_git(text) || github {
        let url = GitUrl::parse(text)
            .map_err(|reason| Failure::usage(format!("{what} {text:?}: {reason}")))?;
        return Ok(Some(Context::Git(url)));
    }
    if is_http(text) {
        return Ok(Some(Context::Http(HttpUrl(text.to_owned()))));
    }
    if let Some(at) = text.find("://").or_else(|| text.find("::"))
        && text[..at].bytes().all(|b| b.is_ascii_alphanumeric())
        && !Path::new(text).exists()
    {
        return Err(Failure::usage(format!("{what} {text:?}: {}: is not used", &text[..at]))
            .hint("use a directory, a git URL, http:, https: or -"));
    }
    Ok(None)
}

/// Bytes of standard input that tell an archive from a Dockerfile.
const HEAD: u64 = 64 << 10;

/// A tar archive as context, or a Dockerfile without one.
fn from_stdin(file: Option<&str>) -> Result<Inputs, Failure> {
    let mut head = Vec::new();
    let read = std::io::stdin().take(HEAD).read_to_end(&mut head);
    read.map_err(|error| Failure::io("reading standard input", &error))?;
    let whole = Cursor::new(head.clone()).chain(std::io::stdin());
    if builder::begins_archive(&head) {
        let context = Context::Stream(Stream::new(whole));
        let at = match file {
            Some(url) if is_http(url) => DockerfileAt::Url(url.to_owned()),
            file => DockerfileAt::Context(file.map(str::to_owned)),
        };
        return Ok(Inputs::at(at, context));
    }
    if let Some(file) = file {
        return Err(Failure::usage(format!(
            "--file {file:?}: what comes from stdin is not a tar archive that could hold it"
        )));
    }
    if head.is_empty() {
        return Err(Failure::new(Kind::Invalid, "standard input is empty"));
    }
    Ok(Inputs::given(read_text(whole, "-".to_owned())?, None, Context::Empty))
}

/// No Dockerfile is larger than this.
const LARGEST: u64 = 4 << 20;

pub(super) fn read_source(path: &Path) -> Result<SourceFile, Failure> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path)
        .map_err(|error| Failure::io(format!("reading {name}"), &error))?;
    read_text(file, name)
}

fn read_stdin(name: &str) -> Result<SourceFile, Failure> {
    read_text(std::io::stdin(), name.to_owned())
}

fn read_text(source: impl Read, name: String) -> Result<SourceFile, Failure> {
    let mut bytes = Vec::new();
    let read = source.take(LARGEST + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::io(format!("reading {name}"), &error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::new(Kind::Invalid, format!("{name} is larger than 4 MiB")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::new(Kind::Invalid, format!("{name} is not UTF-8 text")))?;
    Ok(SourceFile { name, text })
}

/// The Dockerfile of a context and the ignore file that is its own, links followed inside only.
fn find_dockerfile(directory: &Path) -> Result<(SourceFile, Option<SourceFile>), Failure> {
    builder::find_dockerfile(directory).map_err(|error| match error {
        builder::Error::Missing { .. } => Failure::new(
            Kind::NotFound,
            format!("there is no Containerfile or Dockerfile in {}", directory.display()),
        )
        .hint("name one with --file"),
        other => Failure::from(other),
    })
}

/// The value of `--build-context NAME=VALUE`.
pub(super) fn named_context(value: &str) -> Result<Context, Failure> {
    for prefix in ["docker-image://", "container-image://", "docker://"] {
        if let Some(image) = value.strip_prefix(prefix) {
            return Ok(Context::Image(image.to_owned()));
        }
    }
    if let Some(target) = value.strip_prefix("target:") {
        return Err(Failure::usage(format!(
            "build context {value:?}: targets are those of a bake file, which is not read"
        ))
        .hint(format!("build {target} first, and give docker-image://NAME")));
    }
    let layout = value.strip_prefix("oci-layout://").map(|rest| format!("oci:{rest}"));
    let location = layout.as_deref().unwrap_or(value);
    if ["oci:", "oci-archive:", "docker-archive:", "dir:"].iter().any(|t| location.starts_with(t)) {
        let location: Location = location.parse().map_err(Failure::from)?;
        let here = config::absolute(Path::new("."))?;
        return Ok(Context::Image(location.under(&here).to_string()));
    }
    if let Some(context) = remote("build context", value)? {
        return Ok(context);
    }
    let path = config::absolute(Path::new(value))?;
    if path.is_dir() {
        return Ok(Context::Directory(path));
    }
    Err(Failure::usage(format!("build context {value:?} is not there"))
        .hint("use a directory, a git or http URL, docker-image://NAME or oci-layout://PATH"))
}
