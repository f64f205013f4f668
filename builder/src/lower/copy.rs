//! `COPY`, `ADD` and `WORKDIR`.

use dockerfile::{Add, Copy, Diagnostic, Instruction, Source, Word, expand};

use super::Lowerer;
use super::state::{Place, State};
use crate::context::git::url::commit_name;
use crate::plan::path::clean;
use crate::plan::{Chmod, CopyOp, CopySource, From, Op, WorkdirOp};
use crate::redact::without_credentials;
use crate::{Dialect, GitUrl};

impl Lowerer<'_> {
    pub(super) fn copy(
        &mut self,
        copy: &Copy,
        instruction: &Instruction,
        state: &mut State,
        place: &mut Place<'_>,
    ) -> Result<bool, Diagnostic> {
        let mut reads = Vec::new();
        let (name, span) = match &copy.from {
            Some(word) => (Some(self.named(word, state)?), word.span),
            None => (None, instruction.span),
        };
        let from = self.source(name.as_deref(), span, place, &mut reads)?;
        let Some(from) = from else { return Ok(false) };
        let (sources, written) = sources(&copy.sources, state, false)?;
        self.note_empty(&written, instruction);
        let several = written.len() > 1;
        let op = CopyOp {
            add: false,
            from,
            sources,
            destination: destination(&copy.destination, self.is_buildah() && several, state)?,
            chown: expanded(copy.chown.as_ref(), state)?,
            chmod: chmod(copy.chmod.as_ref(), state)?,
            exclude: all(&copy.exclude, state)?,
            parents: copy.parents,
            link: copy.link,
            unpack: None,
            checksum: None,
            keep_git_dir: None,
            strict: self.is_buildah(),
        };
        let created_by =
            created_by("COPY", &op, copy.chmod.as_ref(), written, &copy.destination, state)?;
        self.step(Op::Copy(Box::new(op)), reads, created_by, instruction, state, place);
        Ok(true)
    }

    /// Warns of a source without a name: as with BuildKit, all there is.
    fn note_empty(&mut self, written: &[String], instruction: &Instruction) {
        if written.iter().any(String::is_empty) {
            let text = super::state::shown(&instruction.text);
            self.plan.warnings.push(format!(
                "a source is empty, so everything is copied: its variables have no value in {text}"
            ));
        }
    }

    /// What `--from` names: its variables are those of the stage, then those before the first
    /// stage.
    fn named(&self, word: &Word, state: &State) -> Result<String, Diagnostic> {
        let scope = |name: &str| state.variable(name).or_else(|| self.global.get(name));
        let name = expand(word, &scope)?;
        if name.is_empty() {
            let message = "--from is empty: its variables have no value here";
            return Err(Diagnostic::error("empty-from", message, word.span));
        }
        Ok(name)
    }

    pub(super) fn add(
        &mut self,
        add: &Add,
        instruction: &Instruction,
        state: &mut State,
        place: &mut Place<'_>,
    ) -> Result<bool, Diagnostic> {
        let (sources, written) = sources(&add.sources, state, true)?;
        self.note_empty(&written, instruction);
        let several = written.len() > 1;
        let git = sources.iter().any(|source| matches!(source, CopySource::Git { .. }));
        let keeps = git && self.is_buildah();
        let op = CopyOp {
            add: true,
            from: From::Context(String::new()),
            sources,
            destination: destination(&add.destination, self.is_buildah() && several, state)?,
            chown: expanded(add.chown.as_ref(), state)?,
            chmod: chmod(add.chmod.as_ref(), state)?,
            exclude: all(&add.exclude, state)?,
            parents: false,
            link: add.link,
            unpack: add.unpack,
            checksum: expanded(add.checksum.as_ref(), state)?,
            keep_git_dir: add.keep_git_dir.or(keeps.then_some(true)),
            strict: self.is_buildah(),
        };
        if let Some(word) = &add.checksum {
            checksum(&op, word)?;
        }
        let created_by =
            created_by("ADD", &op, add.chmod.as_ref(), written, &add.destination, state)?;
        self.step(Op::Copy(Box::new(op)), Vec::new(), created_by, instruction, state, place);
        Ok(true)
    }

    pub(super) fn is_buildah(&self) -> bool {
        self.request.dialect == Dialect::Buildah
    }

    /// The directories that `VOLUME` makes for buildah.
    pub(super) fn volume(
        &mut self,
        words: &[Word],
        instruction: &Instruction,
        state: &mut State,
        place: &mut Place<'_>,
    ) -> Result<(), Diagnostic> {
        if !self.is_buildah() {
            return Ok(());
        }
        for word in words {
            let path = clean("/", &state.expand(word)?);
            if path != "/" {
                let created_by = format!("VOLUME {path}");
                let op = Op::Workdir(WorkdirOp { path, user: String::new() });
                self.step(op, Vec::new(), created_by, instruction, state, place);
            }
        }
        Ok(())
    }

    pub(super) fn workdir(
        &mut self,
        word: &Word,
        instruction: &Instruction,
        state: &mut State,
        place: &mut Place<'_>,
    ) -> Result<(), Diagnostic> {
        let text = state.expand(word)?;
        if text.is_empty() {
            let message = "WORKDIR needs a path: its variables have no value here";
            return Err(Diagnostic::error("bad-workdir", message, word.span));
        }
        let path = clean(&state.config.config.working_dir, &text);
        state.config.config.working_dir.clone_from(&path);
        let created_by = format!("WORKDIR {path}");
        if path == "/" {
            *place.number += 1;
            state.note(created_by);
            return Ok(());
        }
        let op = Op::Workdir(WorkdirOp { path, user: state.config.config.user.clone() });
        self.step(op, Vec::new(), created_by, instruction, state, place);
        Ok(())
    }
}

fn expanded(word: Option<&Word>, state: &State) -> Result<Option<String>, Diagnostic> {
    word.map(|word| state.expand(word)).transpose()
}

fn all(words: &[Word], state: &State) -> Result<Vec<String>, Diagnostic> {
    words.iter().map(|word| state.expand(word)).collect()
}

fn chmod(word: Option<&Word>, state: &State) -> Result<Option<Chmod>, Diagnostic> {
    let Some(word) = word else { return Ok(None) };
    let text = state.expand(word)?;
    let mode = Chmod::parse(&text);
    mode.map(Some).map_err(|message| Diagnostic::error("bad-chmod", message, word.span))
}

/// `gathers` is whether it is a directory in any case.
fn destination(word: &Word, gathers: bool, state: &State) -> Result<String, Diagnostic> {
    let text = state.expand(word)?;
    if text.is_empty() {
        let message = "the destination is empty: its variables have no value here";
        return Err(Diagnostic::error("empty-destination", message, word.span));
    }
    let mut path = clean(&state.config.config.working_dir, &text);
    let directory = gathers || text.ends_with('/') || text == "." || text.ends_with("/.");
    if directory && !path.ends_with('/') {
        path.push('/');
    }
    Ok(path)
}

/// The sources, and the text of each in the history.
fn sources(
    list: &[Source],
    state: &State,
    add: bool,
) -> Result<(Vec<CopySource>, Vec<String>), Diagnostic> {
    let mut sources = Vec::new();
    let mut written = Vec::new();
    for source in list {
        let word = match source {
            Source::Heredoc(heredoc) => {
                let body = heredoc.body();
                let content = if heredoc.expand {
                    let word = Word { text: body, span: heredoc.span, ..Word::default() };
                    let scope = |name: &str| state.variable(name);
                    dockerfile::expand::expand_content(&word, &scope)?
                } else {
                    body
                };
                written.push(format!("<<{}", heredoc.name));
                sources.push(CopySource::Inline { name: heredoc.name.clone(), content });
                continue;
            }
            Source::Path(word) => word,
        };
        let text = expand(word, &|name| state.variable(name))?;
        if add && GitUrl::is_git(&text) {
            let url = GitUrl::parse(&text).map_err(|reason| {
                let message = format!("{text:?} is not the address of a repository: {reason}");
                Diagnostic::error("bad-git-url", message, word.span)
            })?;
            written.push(url.to_string());
            sources.push(CopySource::Git { url: text });
            continue;
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            if !add {
                let message = "COPY cannot download";
                return Err(Diagnostic::error("copy-url", message, word.span)
                    .with_help("ADD can".to_owned()));
            }
            written.push(without_credentials(&text));
            sources.push(CopySource::Http { url: text });
            continue;
        }
        sources.push(CopySource::Path(below(&text)));
        written.push(text);
    }
    Ok((sources, written))
}

fn checksum(op: &CopyOp, word: &Word) -> Result<(), Diagnostic> {
    let refuse = |message: &str| Err(Diagnostic::error("bad-checksum", message, word.span));
    let text = op.checksum.as_deref().unwrap_or_default();
    match op.sources.as_slice() {
        [CopySource::Http { .. }] => match text.parse::<image::Digest>() {
            Ok(_) => Ok(()),
            Err(error) => refuse(&error.to_string()),
        },
        [CopySource::Git { .. }] => match commit_name(text) {
            Ok(name) if name == text => Ok(()),
            Ok(_) => refuse("a commit is written in lower case"),
            Err(reason) => refuse(&reason),
        },
        _ => refuse("the --checksum flag is not supported for local sources, nor for several"),
    }
}

fn created_by(
    keyword: &str,
    op: &CopyOp,
    chmod: Option<&Word>,
    written: Vec<String>,
    destination: &Word,
    state: &State,
) -> Result<String, Diagnostic> {
    let mut words = vec![keyword.to_owned()];
    words.extend(op.link.then(|| "--link".to_owned()));
    words.extend(op.parents.then(|| "--parents".to_owned()));
    words.extend(op.chown.iter().map(|chown| format!("--chown={chown}")));
    words.extend(expanded(chmod, state)?.map(|chmod| format!("--chmod={chmod}")));
    words.extend(written);
    words.push(state.expand(destination)?);
    words.push("# buildkit".to_owned());
    Ok(words.join(" "))
}

/// A source path below the root of its context: no leading slash, no `..` that leads out. A
/// `/./` in it (the pivot of `--parents`) and a slash at its end stay.
fn below(path: &str) -> String {
    let pivot = path.find("/./").map(|at| (clean("/", &path[..at]), clean("/", &path[at + 3..])));
    match pivot {
        Some((before, after)) if before != "/" => format!("{}/.{after}", &before[1..]),
        _ => {
            let mut cleaned = clean("/", path)[1..].to_owned();
            if path.ends_with('/') && !cleaned.is_empty() {
                cleaned.push('/');
            }
            cleaned
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        let cases = [
            ("/app", "x", "/app/x"),
            ("/app", "../x", "/x"),
            ("/app", "/../../x", "/x"),
            ("/", ".", "/"),
            ("/a", "./b//c/", "/a/b/c"),
        ];
        for (base, path, expected) in cases {
            assert_eq!(clean(base, path), expected, "{base} {path}");
        }
        let cases = [
            (".", ""),
            ("/", ""),
            ("./a", "a"),
            ("/a/b", "a/b"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/", "a/"),
            ("a/../../b", "b"),
            ("x/./y/z", "x/./y/z"),
            ("./x/y", "x/y"),
        ];
        for (path, expected) in cases {
            assert_eq!(below(path), expected, "{path}");
        }
    }
}
