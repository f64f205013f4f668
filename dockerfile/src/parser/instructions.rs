//! One instruction: keyword, flags, arguments.

use std::ops::Range;

use super::flags::{FlagKind, FlagTable, Flags};
use super::heredoc;
use crate::diagnostic::Diagnostic;
use crate::expand::{expand, expand_content};
use crate::instruction::{Heredoc, Instruction, InstructionKind};
use crate::lexer::{JoinedText, Lexer, Logical};
use crate::span::Word;
use crate::suggest::closest;
use crate::words;

const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Reads the instruction of one logical line.
pub(super) struct Reader<'r, 'a> {
    logical: &'r Logical,
    lexer: &'r mut Lexer<'a>,
    pub(super) diagnostics: &'r mut Vec<Diagnostic>,
    /// Set when the keyword is unknown; holds a keyword like it.
    pub(super) unknown: Option<Option<&'static str>>,
}

/// An instruction's pieces, ready for its own rules.
pub(super) struct InstructionParts {
    pub(super) name: &'static str,
    pub(super) keyword: Range<usize>,
    /// The arguments behind the flags, outer blanks taken off.
    pub(super) arguments: Range<usize>,
    pub(super) flags: Flags,
    pub(super) comments: Vec<String>,
}

impl<'r, 'a> Reader<'r, 'a> {
    pub(super) fn new(
        logical: &'r Logical,
        lexer: &'r mut Lexer<'a>,
        diagnostics: &'r mut Vec<Diagnostic>,
    ) -> Self {
        Self { logical, lexer, diagnostics, unknown: None }
    }

    pub(super) fn joined(&self) -> &'r JoinedText {
        &self.logical.joined
    }

    pub(super) fn read(&mut self) -> Option<Instruction> {
        self.instruction(0..self.joined().text.len(), false)
    }

    /// Reads the instruction in `range`: the whole line, or the inner one of an `ONBUILD`.
    pub(super) fn instruction(&mut self, range: Range<usize>, inner: bool) -> Option<Instruction> {
        let joined = self.joined();
        let range = joined.trim(range);
        let text = &joined.text[range.clone()];
        if text.is_empty() {
            return None;
        }
        let end = range.start + text.find(words::is_blank).unwrap_or(text.len());
        let keyword = joined.word(range.start..end);
        let Some(name) = NAMES.into_iter().find(|n| n.eq_ignore_ascii_case(&keyword.text)) else {
            self.report_unknown(&keyword);
            return None;
        };
        if inner && matches!(name, "ONBUILD" | "FROM" | "MAINTAINER") {
            let message = format!("{name} cannot be an ONBUILD instruction");
            self.diagnostics.push(Diagnostic::error("bad-onbuild", message, keyword.span));
            return None;
        }
        let (raw, start) = words::flags(joined, end..range.end);
        let arguments = joined.trim(start..range.end);
        // Heredocs are read before anything can go wrong, so that their lines never become
        // instructions.
        let heredocs = if inner || !self.has_heredocs(name, &arguments) {
            Vec::new()
        } else {
            self.heredocs()
        };
        let flags = Flags::read(raw, name, known_flags(name), self.diagnostics);
        let comments = self.logical.comments.clone();
        let parts =
            InstructionParts { name, keyword: range.start..end, arguments, flags, comments };
        let kind = self.kind(parts, heredocs)?;
        if !inner {
            self.check_words(&kind);
        }
        let mut span = joined.span(range.clone());
        if !inner {
            span.end = span.end.max(self.lexer.end().min(self.last_end(&kind)));
        }
        Some(Instruction {
            kind,
            keyword,
            span,
            text: joined.text[range].to_owned(),
            comments: Vec::new(),
        })
    }

    /// Reports quotes that do not close and substitutions that can never be expanded.
    fn check_words(&mut self, kind: &InstructionKind) {
        // Mounts are checked when they are read.
        let words = if let InstructionKind::Run(_) = kind { Vec::new() } else { kind.words() };
        let problem = |word: &Word| expand(word, &|_| Some(String::from("x"))).err();
        self.diagnostics.extend(words.into_iter().filter_map(problem));
        let copied = matches!(kind, InstructionKind::Copy(_) | InstructionKind::Add(_));
        for heredoc in kind.heredocs().into_iter().filter(|heredoc| copied && heredoc.expand) {
            let text = heredoc.content.clone();
            let content = Word { text, span: heredoc.span, ..Word::default() };
            if let Err(problem) = expand_content(&content, &|_| Some(String::from("x"))) {
                let help = format!("write <<'{}' to keep every $ as it is", heredoc.name);
                self.diagnostics.push(problem.with_help(help));
            }
        }
    }

    /// Where the line ends, or the lexer's place when heredocs were read.
    fn last_end(&self, kind: &InstructionKind) -> usize {
        if !kind.heredocs().is_empty() { usize::MAX } else { self.logical.span.end }
    }

    fn report_unknown(&mut self, keyword: &Word) {
        let similar = closest(&keyword.text, NAMES);
        self.unknown = Some(similar);
        let message = format!("unknown instruction {:?}", keyword.text);
        self.diagnostics.push(
            Diagnostic::error("unknown-instruction", message, keyword.span)
                .with_help(similar.map(|name| format!("did you mean {name:?}?"))),
        );
    }

    /// Whether lines behind this one belong to it: `RUN`, `COPY` and `ADD`, also inside `ONBUILD`,
    /// not in JSON form.
    fn has_heredocs(&self, name: &str, arguments: &Range<usize>) -> bool {
        let joined = self.joined();
        let (name, arguments) = if name == "ONBUILD" {
            let text = &joined.text[arguments.clone()];
            let end = arguments.start + text.find(words::is_blank).unwrap_or(text.len());
            let inner = joined.text[arguments.start..end].to_uppercase();
            let (_, start) = words::flags(joined, end..arguments.end);
            (inner, joined.trim(start..arguments.end))
        } else {
            (name.to_owned(), arguments.clone())
        };
        let json =
            matches!(crate::json::array(&joined.text[arguments]), crate::json::Array::Strings(_));
        matches!(name.as_str(), "RUN" | "COPY" | "ADD") && !json
    }

    fn heredocs(&mut self) -> Vec<Heredoc> {
        let mut heredocs = Vec::new();
        for marker in heredoc::markers(&self.joined().text) {
            let (span, ended) = self.lexer.heredoc(&marker.name, marker.strip_tabs);
            let content = self.lexer.slice(span).to_owned();
            if !ended {
                let message = format!("heredoc {:?} has no end", marker.name);
                let blank = content.lines().any(|line| line.trim() == marker.name);
                let help = if blank && !marker.strip_tabs {
                    format!(
                        "the line {:?} must have no blanks around it; <<- allows leading tabs",
                        marker.name
                    )
                } else if blank {
                    format!("only tabs may stand before {:?}, and nothing behind it", marker.name)
                } else {
                    format!("end it with a line that is only {:?}", marker.name)
                };
                self.diagnostics.push(
                    Diagnostic::error("unterminated-heredoc", message, self.logical.span)
                        .with_help(help),
                );
            }
            heredocs.push(Heredoc {
                name: marker.name,
                content,
                expand: marker.expand,
                strip_tabs: marker.strip_tabs,
                descriptor: marker.descriptor,
                span,
            });
        }
        heredocs
    }
}

fn known_flags(name: &str) -> FlagTable {
    use FlagKind::{Bool, List, Text};
    match name {
        "ADD" => &[
            ("chown", Text),
            ("chmod", Text),
            ("link", Bool),
            ("exclude", List),
            ("checksum", Text),
            ("keep-git-dir", Bool),
            ("unpack", Bool),
        ],
        "COPY" => &[
            ("from", Text),
            ("chown", Text),
            ("chmod", Text),
            ("link", Bool),
            ("parents", Bool),
            ("exclude", List),
        ],
        "FROM" => &[("platform", Text), ("after", List)],
        "HEALTHCHECK" => &[
            ("interval", Text),
            ("timeout", Text),
            ("start-period", Text),
            ("start-interval", Text),
            ("retries", Text),
        ],
        "RUN" => &[("mount", List), ("network", Text), ("security", Text), ("device", List)],
        _ => &[],
    }
}
