//! From text to instructions: the file as a whole. One instruction is read in `instructions.rs`.

mod arguments;
mod flags;
mod healthcheck;
pub(crate) mod heredoc;
mod instructions;

use crate::diagnostic::Diagnostic;
use crate::directive;
use crate::instruction::{Dockerfile, Instruction, InstructionKind, Stage};
use crate::lexer::{Lexer, Logical};
use crate::span::{Escape, Span};

/// The longest Dockerfile, in bytes.
pub const MAX_SOURCE: usize = 4 << 20;

/// Reading stops behind so many problems: the file is hardly a Dockerfile.
const MAX_PROBLEMS: usize = 100;

/// Reads a Dockerfile. Never fails: what cannot be read is left out and reported, and reading goes
/// on behind it. A file with a diagnostic of severity error must not be built.
#[must_use]
pub fn parse(source: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let mut builder = Builder::default();
    if source.len() > MAX_SOURCE {
        let message = format!("file is larger than {} MiB", MAX_SOURCE >> 20);
        builder.diagnostics.push(Diagnostic::error("file-too-large", message, Span::default()));
        return (builder.file, builder.diagnostics);
    }
    let start = directive::read(source, &mut builder.file.directives, &mut builder.diagnostics);
    let mut lexer = Lexer::new(source, start, builder.file.directives.escape);
    while let Some(mut logical) = lexer.logical() {
        if builder.gives_up(&logical) {
            break;
        }
        builder.file.empty_continuations.append(&mut logical.empty_continuations);
        if let Some(read) = instruction(&mut lexer, logical, &mut builder) {
            builder.add(read);
        }
    }
    builder.finish(source)
}

/// Reads one instruction, such as an `ONBUILD` trigger of a base image.
#[must_use]
pub fn parse_instruction(text: &str) -> (Option<Instruction>, Vec<Diagnostic>) {
    let mut builder = Builder::default();
    let mut lexer = Lexer::new(text, 0, Escape::default());
    let first = lexer.logical();
    let found = first.and_then(|logical| instruction(&mut lexer, logical, &mut builder));
    let mut diagnostics = builder.diagnostics;
    let whole = Span::new(0, text.len());
    if found.is_none() && diagnostics.is_empty() {
        diagnostics.push(Diagnostic::error("empty-file", "there is no instruction", whole));
    }
    if let Some(more) = lexer.logical() {
        let message = "there is more than one instruction";
        diagnostics.push(Diagnostic::error("several-instructions", message, more.span));
    }
    (found, diagnostics)
}

/// Reads the instruction of a logical line and the heredocs behind it.
fn instruction(
    lexer: &mut Lexer<'_>,
    logical: Logical,
    builder: &mut Builder,
) -> Option<Instruction> {
    let mut reader = instructions::Reader::new(&logical, lexer, &mut builder.diagnostics);
    let read = reader.read();
    let unknown = reader.unknown.take();
    match &read {
        Some(instruction) => builder.previous = instruction.text.clone(),
        None if unknown.is_some() => builder.unknown(&logical, unknown.flatten()),
        None => {}
    }
    let mut read = read?;
    read.comments = logical.comments;
    Some(read)
}

/// Collects instructions into stages.
#[derive(Default)]
struct Builder {
    file: Dockerfile,
    diagnostics: Vec<Diagnostic>,
    /// Text of the instruction before, to recognise a missing continuation.
    previous: String,
    /// A `FROM` could not be read, or an instruction before the first one was reported: more
    /// reports of that kind would say nothing new.
    lost_from: bool,
}

impl Builder {
    fn add(&mut self, instruction: Instruction) {
        match (&instruction.kind, self.file.stages.last_mut()) {
            (InstructionKind::From(from), _) => {
                let name = from.name.as_ref().map(|name| name.text.to_lowercase());
                let description = name.as_ref().and_then(|n| description(&instruction.comments, n));
                let stage = Stage {
                    name,
                    base: from.base.clone(),
                    platform: from.platform.clone(),
                    after: from.after.clone(),
                    span: instruction.span,
                    from: instruction,
                    instructions: Vec::new(),
                    description,
                };
                self.file.stages.push(stage);
            }
            (_, Some(stage)) => stage.instructions.push(instruction),
            (InstructionKind::Arg(_), None) => self.file.global_args.push(instruction),
            (_, None) if self.lost_from => {}
            (kind, None) => {
                self.lost_from = true;
                let message = format!("{} stands before the first FROM", kind.name());
                let span = instruction.keyword.span;
                self.diagnostics.push(
                    Diagnostic::error("instruction-before-from", message, span)
                        .with_help("begin with FROM; only ARG may stand before it".to_owned()),
                );
            }
        }
    }

    /// True when there are too many problems to go on.
    fn gives_up(&mut self, logical: &Logical) -> bool {
        let many = self.diagnostics.len() >= MAX_PROBLEMS;
        if many {
            let message = "too many problems, the rest of the file is not read";
            self.diagnostics.push(Diagnostic::error("too-many-problems", message, logical.span));
        }
        many
    }

    /// An unknown instruction: an explanation better than a similar keyword may be at hand.
    fn unknown(&mut self, logical: &Logical, similar: Option<&'static str>) {
        self.lost_from |= similar == Some("FROM");
        let open = ["&&", "||", "|", ";", ","].iter().any(|end| self.previous.ends_with(end));
        if similar.is_none()
            && open
            && let Some(diagnostic) = self.diagnostics.last_mut()
        {
            let escape = logical.joined.escape.char();
            diagnostic.help =
                Some(format!("the line before it seems to go on: end it with {escape}"));
        }
        self.previous.clone_from(&logical.joined.text);
    }

    fn finish(mut self, source: &str) -> (Dockerfile, Vec<Diagnostic>) {
        let end = Span::new(source.len(), source.len());
        let errors = !self.diagnostics.is_empty();
        if self.file.stages.is_empty() && !self.lost_from {
            if !self.file.global_args.is_empty() {
                self.diagnostics.push(
                    Diagnostic::error("no-from", "file has no FROM", end)
                        .with_help("add FROM image, or FROM scratch".to_owned()),
                );
            } else if !errors {
                self.diagnostics.push(
                    Diagnostic::error("empty-file", "file has no instructions", end)
                        .with_help("begin with FROM image".to_owned()),
                );
            }
        }
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
        (self.file, self.diagnostics)
    }
}

/// The comment that begins with `name`, without the name.
pub(crate) fn description(comments: &[String], name: &str) -> Option<String> {
    let text = comments.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(text.trim().to_owned())
}
