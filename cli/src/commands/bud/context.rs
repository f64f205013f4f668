//! Where a build takes its Dockerfile and its files from.

use std::io::Read;
use std::path::Path;

use builder::{Context, SourceFile};
use task::Kind;

use super::Bud;
use crate::config;
use crate::report::Failure;

impl Bud {
    /// The Dockerfile and the context, found as Docker, BuildKit and buildah find them.
    /// The ignore file is the one that belongs to the Dockerfile alone.
    pub(super) fn inputs(&self) -> Result<(SourceFile, Option<SourceFile>, Context), Failure> {
        if self.context == "-" {
            let (dockerfile, context) = self.inputs_on_stdin()?;
            return Ok((dockerfile, None, context));
        }
        let remote = ["http://", "https://", "git://", "git@"];
        if remote.iter().any(|prefix| self.context.starts_with(prefix)) {
            return Err(Failure::usage(format!(
                "context {:?}: remote contexts are not supported",
                self.context
            ))
            .hint("clone or download it and give the directory"));
        }
        let directory = config::absolute(Path::new(&self.context))?;
        if !directory.is_dir() {
            return Err(Failure::new(
                Kind::NotFound,
                format!("the build context {} is not a directory", directory.display()),
            ));
        }
        let (dockerfile, ignore) = match self.file.as_deref() {
            Some("-") => (read_stdin("-")?, None),
            Some(file) => {
                let beside = directory.join(file);
                let file = Path::new(file);
                // As Docker: relative to where we are; as buildah: else relative to the context.
                let outside = file.exists() || !beside.exists();
                builder::read_dockerfile(if outside { file } else { &beside })?
            }
            None => find_dockerfile(&directory)?,
        };
        Ok((dockerfile, ignore, Context::Directory(directory)))
    }

    fn inputs_on_stdin(&self) -> Result<(SourceFile, Context), Failure> {
        if self.file.is_some() {
            return Err(Failure::usage("a context on stdin with --file is not supported")
                .hint("unpack the archive and give the directory"));
        }
        let bytes = read_bytes(std::io::stdin(), "-")?;
        let archive = bytes.get(257..262) == Some(b"ustar")
            || bytes.starts_with(&[0x1f, 0x8b])
            || bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        if archive {
            return Err(Failure::usage("an archive on stdin as context is not supported")
                .hint("unpack the archive and give the directory"));
        }
        Ok((as_text(bytes, "-".to_owned())?, Context::Empty))
    }
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
    as_text(read_bytes(source, &name)?, name)
}

/// As much as can be a Dockerfile, and one byte more where there is more.
fn read_bytes(source: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = source.take(LARGEST + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::io(format!("reading {name}"), &error))?;
    Ok(bytes)
}

fn as_text(bytes: Vec<u8>, name: String) -> Result<SourceFile, Failure> {
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

pub(super) fn named_context(value: &str) -> Result<Context, Failure> {
    if let Some(image) = value.strip_prefix("docker-image://") {
        return Ok(Context::Image(image.to_owned()));
    }
    let path = config::absolute(Path::new(value))?;
    if path.is_dir() {
        return Ok(Context::Directory(path));
    }
    Err(Failure::usage(format!(
        "build context {value:?} is neither a directory nor docker-image://NAME"
    )))
}
