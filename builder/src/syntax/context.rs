//! Where a build takes its Dockerfile and its files from.

use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use transport::Location;

use super::{Invocation, SyntaxError};
use crate::context::archive::begins_archive;
use crate::context::dockerfile::{LIMIT, find_dockerfile, read_dockerfile};
use crate::{Context, DockerfileAt, Error, GitUrl, HttpUrl, Request, Result, SourceFile, Stream};

/// A Dockerfile, or where it is, and the files it sees.
#[derive(Debug)]
pub struct Inputs {
    /// The Dockerfile, if it is here.
    pub dockerfile: SourceFile,
    /// The ignore file that belongs to the Dockerfile alone.
    pub ignore: Option<SourceFile>,
    /// Where the Dockerfile is.
    pub at: DockerfileAt,
    /// The files.
    pub context: Context,
}

impl Inputs {
    /// A request to build them, with everything else at its default.
    pub fn request(self) -> Request {
        let mut request = Request::new(self.dockerfile, self.context);
        request.ignore = self.ignore;
        request.sources.dockerfile = self.at;
        request
    }

    fn given(dockerfile: SourceFile, ignore: Option<SourceFile>, context: Context) -> Inputs {
        Inputs { dockerfile, ignore, at: DockerfileAt::Given, context }
    }

    fn at(at: DockerfileAt, context: Context) -> Inputs {
        Inputs { dockerfile: SourceFile::default(), ignore: None, at, context }
    }
}

/// The Dockerfile and the context, found as Docker, BuildKit and buildah find them: a directory, a
/// git or http URL, or `-` for `stdin`; of several files the text is joined. A file whose name ends
/// with `.in` goes through cpp with these flags.
///
/// # Errors
/// One of them is not there or cannot be read; both come from standard input; cpp fails.
pub fn inputs(
    context: &str,
    files: &[String],
    cpp_flags: &[String],
    stdin: impl Read + Send + 'static,
    call: &Invocation<'_>,
) -> Result<Inputs> {
    let mut inputs = found(context, files, stdin, call)?;
    let paths = files.iter().filter(|file| file.ends_with(".in"));
    match (paths.count(), files) {
        (0, _) if cpp_flags.is_empty() => {}
        (1, [path]) if !is_http(path) && inputs.at == DockerfileAt::Given => {
            let directory = Path::new(&inputs.dockerfile.name).parent();
            let directory = call.absolute(directory.unwrap_or(Path::new(".")));
            let text = preprocessed(&inputs.dockerfile.text, &directory, cpp_flags)?;
            inputs.dockerfile.text = text;
        }
        (0, _) => {
            let why = "there are flags for cpp, and no Dockerfile has a name that ends with .in";
            return Err(SyntaxError::new(why).into());
        }
        _ => {
            return Err(SyntaxError::new("a Dockerfile NAME.in is one local file")
                .hinting("run cpp over the others and give what comes out")
                .into());
        }
    }
    Ok(inputs)
}

fn found(
    context: &str,
    files: &[String],
    stdin: impl Read + Send + 'static,
    call: &Invocation<'_>,
) -> Result<Inputs> {
    let context = place(context, call)?;
    let file = match files {
        [] => None,
        [file] => Some(file.as_str()),
        several => return joined(several, context, call),
    };
    match (file, context) {
        (Some("-"), None) => {
            Err(SyntaxError::new("context and Dockerfile cannot both come from stdin").into())
        }
        (file, None) => from_stdin(file, stdin),
        (Some("-"), Some(context)) => {
            Ok(Inputs::given(text(stdin, "-".to_owned())?, None, context))
        }
        (Some(url), Some(context)) if is_http(url) => {
            Ok(Inputs::at(DockerfileAt::Url(url.to_owned()), context))
        }
        (file, Some(Context::Directory(directory))) => {
            let (dockerfile, ignore) = match file {
                Some(file) => read_in(&directory, file, call)?,
                None => usual_dockerfile(&directory)?,
            };
            Ok(Inputs::given(dockerfile, ignore, Context::Directory(directory)))
        }
        // As buildah: a file of this machine, with files from elsewhere.
        (Some(file), Some(context))
            if Path::new(file).is_absolute() && call.absolute(file).is_file() =>
        {
            let (dockerfile, ignore) = read_dockerfile(&call.absolute(file))?;
            Ok(Inputs::given(dockerfile, ignore, context))
        }
        (file, Some(context)) => {
            Ok(Inputs::at(DockerfileAt::Context(file.map(str::to_owned)), context))
        }
    }
}

/// The context; `None` for standard input.
fn place(text: &str, call: &Invocation<'_>) -> Result<Option<Context>> {
    if text == "-" {
        return Ok(None);
    }
    let here = call.absolute(text).exists();
    // As Docker: a repository of GitHub without a scheme.
    let text = match text.starts_with("github.com/") && !here {
        true => format!("https://{text}"),
        false => text.to_owned(),
    };
    if let Some(context) = remote(&text, call)? {
        return Ok(Some(context));
    }
    let directory = call.absolute(&text);
    if !directory.is_dir() {
        return Err(Error::NoContext { path: directory });
    }
    Ok(Some(Context::Directory(directory)))
}

/// A Dockerfile by its path, and its own ignore file. As Docker: relative to where we are; as
/// buildah: else relative to the context.
fn read_in(
    directory: &Path,
    file: &str,
    call: &Invocation<'_>,
) -> Result<(SourceFile, Option<SourceFile>)> {
    let (here, beside) = (call.absolute(file), directory.join(file));
    let outside = here.exists() || !beside.exists();
    read_dockerfile(if outside { &here } else { &beside })
}

/// What cpp makes of a Dockerfile: `#include` and macros, as buildah has it.
fn preprocessed(text: &str, directory: &Path, flags: &[String]) -> Result<String> {
    let failed = Error::file("running", "cpp");
    let broken = |reason: String| Error::malformed("what cpp makes of the Dockerfile", reason);
    let mut command = Command::new("cpp");
    command.args(["-E", "-P", "-traditional", "-undef", "-iquote"]).arg(directory).args(flags);
    command.arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let input = child.stdin.take();
    let owned = text.to_owned();
    let writer = std::thread::spawn(move || {
        input.map_or(Ok(()), |mut input| input.write_all(owned.as_bytes()))
    });
    let output = child.wait_with_output().map_err(Error::file("running", "cpp"))?;
    // cpp says itself why it did not read to the end.
    let _ = writer.join();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        // Comments of a Dockerfile look like directives; they stay as they are.
        let mut errors = said.lines().filter(|line| line.contains("error:"));
        if said.is_empty() || errors.any(|line| !line.contains("invalid preprocessing directive")) {
            return Err(broken(said));
        }
    }
    String::from_utf8(output.stdout).map_err(|error| broken(error.to_string()))
}

/// Several Dockerfiles as one.
fn joined(files: &[String], context: Option<Context>, call: &Invocation<'_>) -> Result<Inputs> {
    let Some(Context::Directory(directory)) = context else {
        return Err(SyntaxError::new("several Dockerfiles need a directory as context").into());
    };
    if let Some(file) = files.iter().find(|file| *file == "-" || is_http(file)) {
        let why = format!("Dockerfile {file:?}: each of several must be a path");
        return Err(SyntaxError::new(why).into());
    }
    let (mut text, mut names, mut ignore) = (String::new(), Vec::new(), None);
    for file in files {
        let (source, own) = read_in(&directory, file, call)?;
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
fn remote(text: &str, call: &Invocation<'_>) -> Result<Option<Context>> {
    let github = text.starts_with("https://github.com/") && text.matches('/').count() == 4;
    if GitUrl::is_git(text) || github {
        let url = GitUrl::parse(text)
            .map_err(|reason| SyntaxError::new(format!("{text:?}: {reason}")))?;
        return Ok(Some(Context::Git(url)));
    }
    if is_http(text) {
        return Ok(Some(Context::Http(HttpUrl(text.to_owned()))));
    }
    if let Some(at) = text.find("://").or_else(|| text.find("::"))
        && text[..at].bytes().all(|b| b.is_ascii_alphanumeric())
        && !call.absolute(text).exists()
    {
        return Err(SyntaxError::new(format!("{text:?}: {}: is not used", &text[..at]))
            .hinting("use a directory, a git URL, http:, https: or -")
            .into());
    }
    Ok(None)
}

/// Bytes of standard input that tell an archive from a Dockerfile.
const HEAD: u64 = 64 << 10;

/// A tar archive as context, or a Dockerfile without one.
fn from_stdin(file: Option<&str>, mut stdin: impl Read + Send + 'static) -> Result<Inputs> {
    let mut head = Vec::new();
    let read = stdin.by_ref().take(HEAD).read_to_end(&mut head);
    read.map_err(Error::file("reading", "standard input"))?;
    let whole = Cursor::new(head.clone()).chain(stdin);
    if begins_archive(&head) {
        let context = Context::Stream(Stream::new(whole));
        let at = match file {
            Some(url) if is_http(url) => DockerfileAt::Url(url.to_owned()),
            file => DockerfileAt::Context(file.map(str::to_owned)),
        };
        return Ok(Inputs::at(at, context));
    }
    if let Some(file) = file {
        return Err(SyntaxError::new(format!(
            "Dockerfile {file:?}: what comes from stdin is not a tar archive that could hold it"
        ))
        .into());
    }
    if head.is_empty() {
        return Err(SyntaxError::new("standard input is empty").into());
    }
    Ok(Inputs::given(text(whole, "-".to_owned())?, None, Context::Empty))
}

/// A Dockerfile or an ignore file in a file.
///
/// # Errors
/// It cannot be read, is too large, or no text.
pub fn source(path: &Path) -> Result<SourceFile> {
    let file = std::fs::File::open(path).map_err(Error::file("reading", path))?;
    text(file, path.display().to_string())
}

fn text(source: impl Read, name: String) -> Result<SourceFile> {
    let mut bytes = Vec::new();
    source.take(LIMIT + 1).read_to_end(&mut bytes).map_err(Error::file("reading", &*name))?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::Exceeds { what: name, limit: "4 MiB" });
    }
    let text = String::from_utf8(bytes);
    let text = text.map_err(|error| Error::malformed(&*name, error.to_string()))?;
    Ok(SourceFile { name, text })
}

/// The Dockerfile of a context and the ignore file that is its own, links followed inside only.
fn usual_dockerfile(directory: &Path) -> Result<(SourceFile, Option<SourceFile>)> {
    find_dockerfile(directory).map_err(|error| match error {
        Error::Missing { .. } => Error::NoDockerfile { context: directory.to_owned() },
        other => other,
    })
}

/// A named context: `docker-image://NAME`, `oci-layout://PATH[:TAG]`, a git or http URL, or a
/// directory.
///
/// # Errors
/// It is not there, or is malformed.
pub fn named_context(value: &str, call: &Invocation<'_>) -> Result<Context> {
    for prefix in ["docker-image://", "container-image://", "docker://"] {
        if let Some(image) = value.strip_prefix(prefix) {
            return Ok(Context::Image(image.to_owned()));
        }
    }
    if value.starts_with("target:") {
        return Err(SyntaxError::new(format!(
            "{value:?}: targets are those of a bake file, which is not read"
        ))
        .hinting("build that target first, and give docker-image://NAME")
        .into());
    }
    let layout = value.strip_prefix("oci-layout://").map(|rest| format!("oci:{rest}"));
    let location = layout.as_deref().unwrap_or(value);
    if ["oci:", "oci-archive:", "docker-archive:", "dir:"].iter().any(|t| location.starts_with(t)) {
        let location = location.parse::<Location>();
        let location =
            location.map_err(|error| SyntaxError::new(task::chain(&error).join(": ")))?;
        return Ok(Context::Image(location.under(&call.absolute(".")).to_string()));
    }
    if let Some(context) = remote(value, call)? {
        return Ok(context);
    }
    let path = call.absolute(value);
    if path.is_dir() {
        return Ok(Context::Directory(path));
    }
    Err(SyntaxError::new(format!("{value:?} is not there"))
        .hinting("use a directory, a git or http URL, docker-image://NAME or oci-layout://PATH")
        .into())
}
