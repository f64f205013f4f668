//! The arguments of each instruction.

use std::ops::Range;

use super::heredoc;
use super::instructions::{InstructionParts, Reader};
use crate::diagnostic::Diagnostic;
use crate::instruction::{
    Add, Arg, ArgDeclaration, CommandLine, Copy, From, Heredoc, InstructionKind, Pair, Pairs, Run,
    Source,
};
use crate::json::{self, Array};
use crate::mount::{Device, Mount};
use crate::span::{Span, Word};
use crate::suggest::did_you_mean;
use crate::{expose, words};

impl Reader<'_, '_> {
    pub(super) fn kind(
        &mut self,
        mut parts: InstructionParts,
        heredocs: Vec<Heredoc>,
    ) -> Option<InstructionKind> {
        Some(match parts.name {
            "ADD" => InstructionKind::Add(self.add(&mut parts, heredocs)?),
            "ARG" => InstructionKind::Arg(self.arg(&parts)?),
            "CMD" => InstructionKind::Cmd(self.command(&parts, "write CMD [] for none")?),
            "COPY" => InstructionKind::Copy(self.copy(&mut parts, heredocs)?),
            "ENTRYPOINT" => {
                InstructionKind::Entrypoint(self.command(&parts, "write ENTRYPOINT [] for none")?)
            }
            "ENV" => InstructionKind::Env(self.pairs(&parts)?),
            "EXPOSE" => InstructionKind::Expose(self.expose(&parts)?),
            "FROM" => InstructionKind::From(self.from(&mut parts)?),
            "HEALTHCHECK" => InstructionKind::Healthcheck(self.healthcheck(&mut parts)?),
            "LABEL" => InstructionKind::Label(self.pairs(&parts)?),
            "MAINTAINER" => InstructionKind::Maintainer(self.whole(&parts)?),
            "ONBUILD" => self.onbuild(&parts, heredocs)?,
            "RUN" => InstructionKind::Run(Box::new(self.run(&mut parts, heredocs)?)),
            "SHELL" => InstructionKind::Shell(self.shell(&parts)?),
            "STOPSIGNAL" => InstructionKind::Stopsignal(self.whole(&parts)?),
            "USER" => InstructionKind::User(self.whole(&parts)?),
            "VOLUME" => InstructionKind::Volume(self.volume(&parts)?),
            _ => InstructionKind::Workdir(self.whole(&parts)?),
        })
    }

    pub(super) fn error(&mut self, rule: &'static str, message: String, range: Range<usize>) {
        let span = self.joined().span(range);
        self.diagnostics.push(Diagnostic::error(rule, message, span));
    }

    pub(super) fn help(&mut self, help: impl Into<String>) {
        if let Some(last) = self.diagnostics.last_mut() {
            last.help = Some(help.into());
        }
    }

    /// Reports an instruction without arguments.
    pub(super) fn missing(&mut self, parts: &InstructionParts, what: &str) {
        if self.diagnostics.last().is_some_and(|last| last.rule == "json-not-strings") {
            return;
        }
        let message = format!("{} needs {what}", parts.name);
        self.error("missing-arguments", message, parts.keyword.clone());
    }

    /// All arguments as one word.
    fn whole(&mut self, parts: &InstructionParts) -> Option<Word> {
        if parts.arguments.is_empty() {
            self.missing(parts, "an argument");
            return None;
        }
        Some(self.joined().word(parts.arguments.clone()))
    }

    /// The exec form in `range`; `None` means shell form. Values that are not strings are an error
    /// and are skipped.
    fn exec(&mut self, name: &str, range: &Range<usize>) -> Option<Vec<Word>> {
        let joined = self.joined();
        let text = &joined.text[range.clone()];
        let at = |inner: Range<usize>| range.start + inner.start..range.start + inner.end;
        match json::array(text) {
            Array::Strings(strings) => {
                Some(strings.into_iter().map(|(s, r)| joined.word_as(s, at(r))).collect())
            }
            Array::NotStrings(inner) => {
                let message = format!("the JSON array of {name} may hold only strings");
                self.error("json-not-strings", message, at(inner));
                self.help("put the value in double quotes");
                Some(Vec::new())
            }
            Array::Malformed(reason, offset) => {
                if json::looks_meant(text) {
                    let start = range.start + offset.min(text.len());
                    let width =
                        text[offset.min(text.len())..].chars().next().map_or(0, char::len_utf8);
                    let span = joined.span(start..start + width);
                    let message = format!("not valid JSON, taken as plain text: {reason}");
                    let help = r#"the exec form is a JSON array: ["program", "argument"]"#;
                    self.diagnostics.push(
                        Diagnostic::warning("malformed-json", message, span)
                            .with_help(help.to_owned()),
                    );
                }
                None
            }
            Array::None => None,
        }
    }

    pub(super) fn command_in(&mut self, name: &str, range: Range<usize>) -> CommandLine {
        match self.exec(name, &range) {
            Some(words) => CommandLine::Exec(words.into_iter().map(|word| word.text).collect()),
            None => CommandLine::Shell(self.joined().word(range)),
        }
    }

    fn command(&mut self, parts: &InstructionParts, empty: &str) -> Option<CommandLine> {
        if parts.arguments.is_empty() {
            self.missing(parts, "a command");
            self.help(empty);
            return None;
        }
        Some(self.command_in(parts.name, parts.arguments.clone()))
    }

    /// A JSON array or words between blanks, and whether it was JSON.
    fn list(&mut self, parts: &InstructionParts) -> (Vec<Word>, bool) {
        match self.exec(parts.name, &parts.arguments) {
            Some(words) => (words, true),
            None => (self.blank_separated(parts), false),
        }
    }

    fn blank_separated(&self, parts: &InstructionParts) -> Vec<Word> {
        let joined = self.joined();
        let ranges = words::split_blanks(joined, parts.arguments.clone());
        ranges.into_iter().map(|range| joined.word(range)).collect()
    }

    fn sources(
        &mut self,
        parts: &InstructionParts,
        heredocs: Vec<Heredoc>,
    ) -> Option<(Vec<Source>, Word)> {
        let (mut words, json) = self.list(parts);
        let destination = words.pop();
        let Some(destination) = destination.filter(|_| !words.is_empty()) else {
            self.missing(parts, "a source and a destination");
            self.help(format!("{} SOURCE... DESTINATION", parts.name));
            return None;
        };
        if !json && heredoc::is_marker(&destination.text) {
            let message = format!("a heredoc cannot be the destination of {}", parts.name);
            self.diagnostics.push(Diagnostic::error("bad-heredoc", message, destination.span));
            return None;
        }
        let mut heredocs = heredocs.into_iter();
        let sources = words.into_iter().map(|word| {
            let heredoc =
                if !json && heredoc::is_marker(&word.text) { heredocs.next() } else { None };
            heredoc.map_or(Source::Path(word), Source::Heredoc)
        });
        Some((sources.collect(), destination))
    }

    fn add(&mut self, parts: &mut InstructionParts, heredocs: Vec<Heredoc>) -> Option<Add> {
        let (sources, destination) = self.sources(parts, heredocs)?;
        let flags = &mut parts.flags;
        Some(Add {
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.boolean("link").unwrap_or(false),
            exclude: flags.list("exclude"),
            checksum: flags.text("checksum"),
            keep_git_dir: flags.boolean("keep-git-dir"),
            unpack: flags.boolean("unpack"),
            sources,
            destination,
        })
    }

    fn copy(&mut self, parts: &mut InstructionParts, heredocs: Vec<Heredoc>) -> Option<Copy> {
        let (sources, destination) = self.sources(parts, heredocs)?;
        let flags = &mut parts.flags;
        Some(Copy {
            from: flags.text("from"),
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.boolean("link").unwrap_or(false),
            parents: flags.boolean("parents").unwrap_or(false),
            exclude: flags.list("exclude"),
            sources,
            destination,
        })
    }

    fn arg(&mut self, parts: &InstructionParts) -> Option<Arg> {
        let joined = self.joined();
        let mut declarations = Vec::new();
        for range in words::split_quoted(joined, parts.arguments.clone()) {
            let text = &joined.text[range.clone()];
            let (name, value) = match text.find('=') {
                Some(at) => {
                    let at = range.start + at;
                    (joined.word(range.start..at), Some(joined.word(at + 1..range.end)))
                }
                None => (joined.word(range.clone()), None),
            };
            if name.text.is_empty() {
                self.error("blank-name", "ARG needs a name before '='".to_owned(), range);
                continue;
            }
            let description = super::description(&parts.comments, &name.text);
            declarations.push(ArgDeclaration { name, value, description });
        }
        if parts.arguments.is_empty() {
            self.missing(parts, "a name");
            self.help("ARG name[=default]");
        }
        (!declarations.is_empty()).then_some(Arg { declarations })
    }

    fn pairs(&mut self, parts: &InstructionParts) -> Option<Pairs> {
        let joined = self.joined();
        let name = parts.name;
        let ranges = words::split_quoted(joined, parts.arguments.clone());
        let Some(first) = ranges.first() else {
            self.missing(parts, "a key and a value");
            self.help(format!("{name} key=value"));
            return None;
        };
        if !joined.text[first.clone()].contains('=') {
            return self.legacy_pair(parts);
        }
        let mut pairs = Vec::new();
        for range in ranges {
            let text = &joined.text[range.clone()];
            match text.find('=') {
                Some(0) => {
                    self.error("blank-name", format!("{name} needs a key before '='"), range);
                }
                Some(at) => {
                    let at = range.start + at;
                    let (key, value) =
                        (joined.word(range.start..at), joined.word(at + 1..range.end));
                    pairs.push(Pair { key, value });
                }
                None => {
                    self.error("missing-equals", format!("{text:?} has no '='"), range);
                    self.help(format!(
                        "{name} takes key=value; put quotes around a value with blanks"
                    ));
                }
            }
        }
        Some(Pairs { pairs, legacy: false })
    }

    /// `ENV key the whole rest`.
    fn legacy_pair(&mut self, parts: &InstructionParts) -> Option<Pairs> {
        let joined = self.joined();
        let text = &joined.text[parts.arguments.clone()];
        let Some(length) = text.find(words::is_blank) else {
            let name = parts.name;
            self.error(
                "missing-arguments",
                format!("{name} {text} has no value"),
                parts.arguments.clone(),
            );
            self.help(format!("{name} {text}=value"));
            return None;
        };
        let middle = parts.arguments.start + length;
        let key = joined.word(parts.arguments.start..middle);
        let value = joined.word(joined.trim(middle..parts.arguments.end));
        if let Some(rest) = value.text.strip_prefix('=') {
            let (name, rest) = (parts.name, rest.trim());
            let message = format!("blank before '=': the value of {:?} begins with '='", key.text);
            let help = format!("{name} {}={rest}", key.text);
            let span = key.span.to(Span::new(value.span.start, value.span.start + 1));
            self.diagnostics
                .push(Diagnostic::warning("blank-before-equals", message, span).with_help(help));
        }
        Some(Pairs { pairs: vec![Pair { key, value }], legacy: true })
    }

    fn expose(&mut self, parts: &InstructionParts) -> Option<Vec<Word>> {
        let words = self.blank_separated(parts);
        if words.is_empty() {
            self.missing(parts, "a port");
            return None;
        }
        for word in words.iter().filter(|w| !w.text.contains(['$', '"', '\'', '\\', '`'])) {
            if let Err(message) = expose::parse(&word.text) {
                self.diagnostics.push(Diagnostic::error("bad-port", message, word.span));
            }
        }
        Some(words)
    }

    fn from(&mut self, parts: &mut InstructionParts) -> Option<From> {
        let mut words = self.blank_separated(parts).into_iter();
        let (base, as_keyword, name) = (words.next(), words.next(), words.next());
        let Some(base) = base else {
            self.missing(parts, "an image");
            self.help("FROM image [AS name]");
            let end = parts.keyword.end;
            return Some(From { base: self.joined().word(end..end), ..From::default() });
        };
        let well_formed = words.next().is_none()
            && name.is_some() == as_keyword.is_some()
            && as_keyword.as_ref().is_none_or(|word| word.text.eq_ignore_ascii_case("as"));
        if !well_formed {
            let message = "FROM takes an image, or an image, AS and a name".to_owned();
            self.error("bad-from", message, parts.arguments.clone());
            self.help(match &as_keyword {
                Some(word) if name.is_none() && !word.text.eq_ignore_ascii_case("as") => {
                    format!("FROM {base} AS {word}")
                }
                _ => "FROM image [AS name]".to_owned(),
            });
        }
        let (name, as_keyword) = if well_formed { (name, as_keyword) } else { (None, None) };
        if let Some(name) = name.as_ref().filter(|name| !is_stage_name(&name.text)) {
            let message = format!("invalid stage name {:?}", name.text);
            self.diagnostics.push(
                Diagnostic::error("bad-stage-name", message, name.span).with_help(
                    "a name begins with a letter; then come letters, digits, '-', '_', '.'"
                        .to_owned(),
                ),
            );
        }
        let platform = parts.flags.text("platform");
        Some(From { base, platform, after: parts.flags.list("after"), name, as_keyword })
    }

    fn onbuild(
        &mut self,
        parts: &InstructionParts,
        heredocs: Vec<Heredoc>,
    ) -> Option<InstructionKind> {
        if parts.arguments.is_empty() {
            self.missing(parts, "an instruction");
            return None;
        }
        let mut inner = self.instruction(parts.arguments.clone(), true)?;
        if let Some(last) = heredocs.last() {
            inner.span.end = inner.span.end.max(last.span.end);
        }
        attach(&mut inner.kind, heredocs);
        Some(InstructionKind::Onbuild(Box::new(inner)))
    }

    fn run(&mut self, parts: &mut InstructionParts, heredocs: Vec<Heredoc>) -> Option<Run> {
        let command = self.command(parts, "RUN command")?;
        if command == CommandLine::Exec(Vec::new()) {
            self.missing(parts, "a command");
            return None;
        }
        let flags = &mut parts.flags;
        let mounts = flags.list("mount");
        for mount in &mounts {
            // What a variable stands for is known only later.
            let literal = !mount.has_variable();
            self.diagnostics
                .extend(literal.then(|| Mount::parse(mount, &|_| None).err()).flatten());
        }
        let devices = flags.list("device");
        self.diagnostics.extend(devices.iter().filter_map(|device| Device::parse(device).err()));
        let network = flags.text("network");
        self.one_of("network", network.as_ref(), ["default", "none", "host"]);
        let security = flags.text("security");
        self.one_of("security", security.as_ref(), ["sandbox", "insecure"]);
        Some(Run { mounts, network, security, devices, command, heredocs })
    }

    fn one_of<const N: usize>(
        &mut self,
        flag: &str,
        word: Option<&Word>,
        known: [&'static str; N],
    ) {
        let Some(word) = word.filter(|word| !known.contains(&word.text.as_str())) else { return };
        let message = format!("unknown value {:?} of --{flag}", word.text);
        let all = format!("known values: {}", known.join(", "));
        self.diagnostics.push(
            Diagnostic::error("bad-flag", message, word.span)
                .with_help(did_you_mean(&word.text, known).or(Some(all))),
        );
    }

    fn shell(&mut self, parts: &InstructionParts) -> Option<Vec<String>> {
        if parts.arguments.is_empty() {
            self.missing(parts, "a JSON array");
            self.help(r#"SHELL ["/bin/sh", "-c"]"#);
            return None;
        }
        let before = self.diagnostics.len();
        match self.exec(parts.name, &parts.arguments) {
            Some(words) if !words.is_empty() => Some(words.into_iter().map(|w| w.text).collect()),
            Some(_) => {
                if self.diagnostics.len() == before {
                    self.missing(parts, "a program");
                }
                None
            }
            None => {
                self.diagnostics.truncate(before);
                let text = &self.joined().text[parts.arguments.clone()];
                let quoted: Vec<_> =
                    text.split_whitespace().map(|word| format!("{word:?}")).collect();
                let message = "SHELL takes a JSON array".to_owned();
                self.error("bad-shell", message, parts.arguments.clone());
                if !text.starts_with('[') {
                    self.help(format!("SHELL [{}]", quoted.join(", ")));
                }
                None
            }
        }
    }

    fn volume(&mut self, parts: &InstructionParts) -> Option<Vec<Word>> {
        let (words, _) = self.list(parts);
        if words.is_empty() {
            self.missing(parts, "a path");
            return None;
        }
        if let Some(blank) = words.iter().find(|word| word.text.trim().is_empty()) {
            let message = "a VOLUME path is empty";
            self.diagnostics.push(Diagnostic::error("missing-arguments", message, blank.span));
        }
        Some(words)
    }
}

/// Gives an `ONBUILD`'s heredocs to the instruction in it.
fn attach(kind: &mut InstructionKind, heredocs: Vec<Heredoc>) {
    let fill = |sources: &mut Vec<Source>, heredocs: Vec<Heredoc>| {
        let mut heredocs = heredocs.into_iter();
        for source in sources.iter_mut() {
            if source.path().is_some_and(|word| heredoc::is_marker(&word.text))
                && let Some(heredoc) = heredocs.next()
            {
                *source = Source::Heredoc(heredoc);
            }
        }
    };
    match kind {
        InstructionKind::Run(run) => run.heredocs = heredocs,
        InstructionKind::Copy(copy) => fill(&mut copy.sources, heredocs),
        InstructionKind::Add(add) => fill(&mut add.sources, heredocs),
        _ => {}
    }
}

/// `^[a-z][a-z0-9-_.]*$`, in any case.
fn is_stage_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|ch| ch.is_ascii_alphabetic())
        && chars.all(|ch| ch.is_ascii_alphanumeric() || matches!(ch, '-' | '_' | '.'))
}
