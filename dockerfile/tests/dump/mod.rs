//! One line for each thing in a parsed file, indented by depth, words as `line:column "text"`.

use std::fmt::Write as _;

use dockerfile::{
    Add, CommandLine, Copy, Dockerfile, Escape, Healthcheck, Heredoc, Instruction, InstructionKind,
    LineIndex, Mount, Program, Run, Source, Word,
};

pub(crate) fn file(source: &str, file: &Dockerfile) -> String {
    let mut dump = Dump { out: String::new(), index: LineIndex::new(source), depth: 0 };
    let directives = &file.directives;
    if let Some(syntax) = &directives.syntax {
        dump.line(format!("syntax {:?}", syntax.value));
    }
    if directives.escape == Escape::Backtick {
        dump.line("escape `");
    }
    if directives.check != dockerfile::Check::default() {
        dump.line(format!("{:?}", directives.check));
    }
    for arg in &file.global_args {
        dump.instruction(arg);
    }
    for stage in &file.stages {
        let description = stage.description.as_ref().map(|d| format!(" description {d:?}"));
        let name = stage.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
        dump.line(format!("stage{name}{}", description.unwrap_or_default()));
        dump.depth += 1;
        dump.instruction(&stage.from);
        for instruction in &stage.instructions {
            dump.instruction(instruction);
        }
        dump.depth -= 1;
    }
    for empty in &file.empty_continuations {
        dump.line(format!("empty continuation {}", dump.index.position(empty.start)));
    }
    dump.out
}

struct Dump<'a> {
    out: String,
    index: LineIndex<'a>,
    depth: usize,
}

impl Dump<'_> {
    fn line(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(self.out, "{:width$}{}", "", text.as_ref(), width = self.depth * 2);
    }

    fn field(&mut self, name: &str, word: &Word) {
        let at = self.index.position(word.span.start);
        self.line(format!("{name} {at} {:?}", word.text));
    }

    fn optional(&mut self, name: &str, word: Option<&Word>) {
        if let Some(word) = word {
            self.field(name, word);
        }
    }

    fn words(&mut self, name: &str, words: &[Word]) {
        for word in words {
            self.field(name, word);
        }
    }

    fn flag(&mut self, name: &str, on: bool) {
        if on {
            self.line(name);
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        let start = self.index.position(instruction.span.start);
        let end = self.index.position(instruction.span.end);
        self.line(format!("{} {start}-{end} {:?}", instruction.name(), instruction.text));
        self.depth += 1;
        if !instruction.comments.is_empty() {
            self.line(format!("comments {:?}", instruction.comments));
        }
        self.kind(&instruction.kind);
        self.depth -= 1;
    }

    fn kind(&mut self, kind: &InstructionKind) {
        match kind {
            InstructionKind::Add(add) => self.add(add),
            InstructionKind::Arg(arg) => {
                for declaration in &arg.declarations {
                    self.field("name", &declaration.name);
                    self.optional("default", declaration.value.as_ref());
                    if let Some(description) = &declaration.description {
                        self.line(format!("description {description:?}"));
                    }
                }
            }
            InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => {
                self.command(command);
            }
            InstructionKind::Copy(copy) => self.copy(copy),
            InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
                self.flag("legacy", pairs.legacy);
                for pair in &pairs.pairs {
                    self.field("key", &pair.key);
                    self.field("value", &pair.value);
                }
            }
            InstructionKind::Expose(words) => self.words("port", words),
            InstructionKind::From(from) => {
                self.field("base", &from.base);
                self.optional("platform", from.platform.as_ref());
                self.words("after", &from.after);
                self.optional("name", from.name.as_ref());
            }
            InstructionKind::Healthcheck(Healthcheck::None) => self.line("none"),
            InstructionKind::Healthcheck(Healthcheck::Cmd {
                command,
                interval,
                timeout,
                start_period,
                start_interval,
                retries,
            }) => {
                self.command(command);
                for (name, length) in [
                    ("interval", interval),
                    ("timeout", timeout),
                    ("start-period", start_period),
                    ("start-interval", start_interval),
                ] {
                    if let Some(length) = length {
                        self.line(format!("{name} {length:?}"));
                    }
                }
                if let Some(retries) = retries {
                    self.line(format!("retries {retries}"));
                }
            }
            InstructionKind::Maintainer(word)
            | InstructionKind::Stopsignal(word)
            | InstructionKind::User(word)
            | InstructionKind::Workdir(word) => self.field("value", word),
            InstructionKind::Onbuild(inner) => self.instruction(inner),
            InstructionKind::Run(run) => self.run(run),
            InstructionKind::Shell(words) => self.line(format!("exec {words:?}")),
            InstructionKind::Volume(words) => self.words("path", words),
        }
    }

    fn command(&mut self, command: &CommandLine) {
        match command {
            CommandLine::Shell(word) => self.field("shell", word),
            CommandLine::Exec(words) => self.line(format!("exec {words:?}")),
        }
    }

    fn run(&mut self, run: &Run) {
        for word in &run.mounts {
            self.field("mount", word);
            if let Ok(mount) = Mount::parse(word, &|_| None) {
                self.depth += 1;
                self.line(format!("{:?}", mount.kind));
                if let Some(target) = mount.target {
                    self.line(format!("target {target:?}"));
                }
                self.depth -= 1;
            }
        }
        self.optional("network", run.network.as_ref());
        self.optional("security", run.security.as_ref());
        self.words("device", &run.devices);
        self.command(&run.command);
        for heredoc in &run.heredocs {
            self.heredoc(heredoc);
        }
        if !run.heredocs.is_empty() {
            match run.program() {
                Program::Exec(words) => self.line(format!("runs exec {words:?}")),
                Program::Shell(text) => self.line(format!("runs shell {text:?}")),
                Program::Script { name, content } => {
                    self.line(format!("runs script {name:?} {content:?}"));
                }
            }
        }
    }

    fn heredoc(&mut self, heredoc: &Heredoc) {
        let at = self.index.position(heredoc.span.start);
        let mut text = format!("heredoc {at} {:?} {:?}", heredoc.name, heredoc.content);
        for (on, flag) in [(!heredoc.expand, " literal"), (heredoc.strip_tabs, " strip-tabs")] {
            text.push_str(if on { flag } else { "" });
        }
        if heredoc.descriptor != 0 {
            let _ = write!(text, " descriptor {}", heredoc.descriptor);
        }
        self.line(text);
    }

    fn sources(&mut self, sources: &[Source], destination: &Word) {
        for source in sources {
            match source {
                Source::Path(word) => self.field("source", word),
                Source::Heredoc(heredoc) => self.heredoc(heredoc),
            }
        }
        self.field("destination", destination);
    }

    fn add(&mut self, add: &Add) {
        self.optional("chown", add.chown.as_ref());
        self.optional("chmod", add.chmod.as_ref());
        self.optional("checksum", add.checksum.as_ref());
        self.flag("link", add.link);
        if let Some(keep) = add.keep_git_dir {
            self.line(format!("keep-git-dir {keep}"));
        }
        if let Some(unpack) = add.unpack {
            self.line(format!("unpack {unpack}"));
        }
        self.words("exclude", &add.exclude);
        self.sources(&add.sources, &add.destination);
    }

    fn copy(&mut self, copy: &Copy) {
        self.optional("from", copy.from.as_ref());
        self.optional("chown", copy.chown.as_ref());
        self.optional("chmod", copy.chmod.as_ref());
        self.flag("link", copy.link);
        self.flag("parents", copy.parents);
        self.words("exclude", &copy.exclude);
        self.sources(&copy.sources, &copy.destination);
    }
}
