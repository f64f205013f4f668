//! What a Dockerfile says: stages and their instructions, as values.

use std::time::Duration;

use crate::directive::Directives;
use crate::span::{Span, Word};

/// A parsed Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dockerfile {
    /// The `# key=value` lines at the top.
    pub directives: Directives,
    /// `ARG` instructions before the first `FROM`; only `FROM` lines see them.
    pub global_args: Vec<Instruction>,
    /// One entry for each `FROM`, in the order of the file.
    pub stages: Vec<Stage>,
    /// Blank lines inside line continuations, which a later Docker will refuse.
    pub empty_continuations: Vec<Span>,
}

impl Dockerfile {
    /// The stage a name or index means (names without case, indexes from 0).
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<usize> {
        let named =
            |stage: &Stage| stage.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name));
        self.stages
            .iter()
            .rposition(named)
            .or_else(|| name.parse().ok().filter(|index| *index < self.stages.len()))
    }

    /// Every instruction of the file in order, global `ARG`s and `FROM`s included.
    pub fn instructions(&self) -> impl Iterator<Item = &Instruction> {
        self.global_args.iter().chain(
            self.stages.iter().flat_map(|s| std::iter::once(&s.from).chain(s.instructions.iter())),
        )
    }
}

/// One build stage: a `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The name given with `AS`, in lower case (names have no case).
    pub name: Option<String>,
    /// The base: an image, an earlier stage or `scratch`; variables come from the global `ARG`s.
    pub base: Word,
    /// The value of `--platform`.
    pub platform: Option<Word>,
    /// Stages named by `--after`: built first although nothing is copied from them.
    pub after: Vec<Word>,
    /// The `FROM` instruction itself.
    pub from: Instruction,
    /// The instructions behind it.
    pub instructions: Vec<Instruction>,
    /// The comment above `FROM` that starts with the stage's name, without the name.
    pub description: Option<String>,
    /// Where the `FROM` instruction stands.
    pub span: Span,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it says.
    pub kind: InstructionKind,
    /// The keyword as it was written (`RUN`, `run`).
    pub keyword: Word,
    /// From its first to its last byte, here-documents included.
    pub span: Span,
    /// The text for the image history: comments taken out, continued lines joined, no heredocs.
    pub text: String,
    /// The comment lines right above, without `#` and outer blanks.
    pub comments: Vec<String>,
}

impl Instruction {
    /// The keyword in upper case.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The text with its here-documents: what [`parse_instruction`](crate::parse_instruction) reads
    /// back, and so what an image keeps of the instruction in an `ONBUILD`.
    #[must_use]
    pub fn full_text(&self) -> String {
        let mut text = self.text.clone();
        for heredoc in self.kind.heredocs() {
            text.push('\n');
            text.push_str(&heredoc.content);
            text.push_str(&heredoc.name);
        }
        text
    }
}

/// The eighteen instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstructionKind {
    /// `ADD`: files, archives, URLs and git repositories into the image.
    Add(Add),
    /// `ARG`: variables the person who builds may set.
    Arg(Arg),
    /// `CMD`: the default arguments or command of the image.
    Cmd(CommandLine),
    /// `COPY`: files into the image.
    Copy(Copy),
    /// `ENTRYPOINT`: the program of the image.
    Entrypoint(CommandLine),
    /// `ENV`: environment variables.
    Env(Pairs),
    /// `EXPOSE`: ports; each word may expand to several, see [`crate::expose`].
    Expose(Vec<Word>),
    /// `FROM`: begins a stage.
    From(From),
    /// `HEALTHCHECK`: how to ask the container whether it is well.
    Healthcheck(Healthcheck),
    /// `LABEL`: metadata.
    Label(Pairs),
    /// `MAINTAINER`: deprecated; the author, not expanded.
    Maintainer(Word),
    /// `ONBUILD`: an instruction for images built on this one.
    Onbuild(Box<Instruction>),
    /// `RUN`: runs a command and keeps what it wrote.
    Run(Box<Run>),
    /// `SHELL`: the shell of shell-form commands, not expanded.
    Shell(Vec<String>),
    /// `STOPSIGNAL`: name or number.
    Stopsignal(Word),
    /// `USER`: `user[:group]`, names or numbers.
    User(Word),
    /// `VOLUME`: mount points.
    Volume(Vec<Word>),
    /// `WORKDIR`: the current directory from here on.
    Workdir(Word),
}

impl InstructionKind {
    /// The keyword in upper case.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::From(_) => "FROM",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::Stopsignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }

    /// The here-documents behind the instruction, in order.
    #[must_use]
    pub fn heredocs(&self) -> Vec<&Heredoc> {
        match self {
            Self::Run(run) => run.heredocs.iter().collect(),
            Self::Copy(copy) => copy.sources.iter().filter_map(Source::heredoc).collect(),
            Self::Add(add) => add.sources.iter().filter_map(Source::heredoc).collect(),
            Self::Onbuild(inner) => inner.kind.heredocs(),
            _ => Vec::new(),
        }
    }

    /// Every word of the instruction in which variables are replaced before it runs. Commands are
    /// not among them (their shell does it), nor an `ONBUILD` trigger's (it is not run here).
    #[must_use]
    pub fn words(&self) -> Vec<&Word> {
        match self {
            Self::Add(add) => {
                let flags = [&add.chown, &add.chmod, &add.checksum];
                let mut words: Vec<_> = flags.into_iter().flatten().chain(&add.exclude).collect();
                words.extend(add.sources.iter().filter_map(Source::path));
                words.push(&add.destination);
                words
            }
            Self::Copy(copy) => {
                let flags = [&copy.chown, &copy.chmod];
                let mut words: Vec<_> = flags.into_iter().flatten().chain(&copy.exclude).collect();
                words.extend(copy.sources.iter().filter_map(Source::path));
                words.push(&copy.destination);
                words
            }
            Self::Arg(arg) => arg.declarations.iter().flat_map(|d| d.value.iter()).collect(),
            Self::Env(pairs) | Self::Label(pairs) => {
                pairs.pairs.iter().flat_map(|pair| [&pair.key, &pair.value]).collect()
            }
            Self::Expose(words) | Self::Volume(words) => words.iter().collect(),
            Self::From(from) => std::iter::once(&from.base).chain(&from.platform).collect(),
            Self::Run(run) => run.mounts.iter().collect(),
            Self::Stopsignal(word) | Self::User(word) | Self::Workdir(word) => vec![word],
            Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::Healthcheck(_)
            | Self::Maintainer(_)
            | Self::Onbuild(_)
            | Self::Shell(_) => Vec::new(),
        }
    }
}

/// `FROM [--platform=p] [--after=stage]... base [AS name]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct From {
    /// Image, stage or `scratch`.
    pub base: Word,
    /// The value of `--platform`.
    pub platform: Option<Word>,
    /// The values of `--after`.
    pub after: Vec<Word>,
    /// The name behind `AS` as written.
    pub name: Option<Word>,
    /// The word `AS` as written.
    pub as_keyword: Option<Word>,
}

/// `ARG name[=default]...`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arg {
    /// The variables declared, in order.
    pub declarations: Vec<ArgDeclaration>,
}

/// One variable of an `ARG` instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// The variable's name.
    pub name: Word,
    /// The default behind `=`; `None` without `=`.
    pub value: Option<Word>,
    /// The comment above that starts with the name, without the name.
    pub description: Option<String>,
}

/// `key=value` pairs of `ENV` and `LABEL`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// The pairs, in order. Values keep their quotes until they are expanded.
    pub pairs: Vec<Pair>,
    /// Written in the old form `KEY key the whole rest`.
    pub legacy: bool,
}

/// One `key=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Left of `=`.
    pub key: Word,
    /// Right of `=`.
    pub value: Word,
}

/// A command: a text for the shell, or its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Shell form: handed to the shell (see `SHELL`) as one argument.
    Shell(Word),
    /// Exec form: a JSON array, run as it is.
    Exec(Vec<String>),
}

/// `RUN [flags] command`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Values of `--mount`, variables still in them; read with [`Mount::parse`](crate::Mount::parse).
    pub mounts: Vec<Word>,
    /// The value of `--network`: `default`, `none` or `host`.
    pub network: Option<Word>,
    /// The value of `--security`: `sandbox` or `insecure`.
    pub security: Option<Word>,
    /// Values of `--device`; read with [`Device::parse`](crate::Device::parse).
    pub devices: Vec<Word>,
    /// The command as written, `<<EOF` included; [`Run::program`] says what to run.
    pub command: CommandLine,
    /// Here-documents, in order.
    pub heredocs: Vec<Heredoc>,
}

/// What a `RUN` instruction runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// These words, no shell.
    Exec(Vec<String>),
    /// This text, as the one argument of the shell.
    Shell(String),
    /// This file, made executable: a heredoc that begins with `#!`.
    Script {
        /// The heredoc's word, good as a file name.
        name: String,
        /// The file's content.
        content: String,
    },
}

impl Run {
    /// What to run: a lone heredoc is a script for the shell or for the interpreter in its `#!`
    /// line; any other heredoc stays in the command and the shell reads it.
    #[must_use]
    pub fn program(&self) -> Program {
        let command = match &self.command {
            CommandLine::Exec(words) => return Program::Exec(words.clone()),
            CommandLine::Shell(word) => &word.text,
        };
        match self.heredocs.as_slice() {
            [] => Program::Shell(command.clone()),
            [only] if crate::parser::heredoc::is_marker(command) => {
                let content = only.body();
                if content.starts_with("#!") {
                    Program::Script { name: only.name.clone(), content }
                } else {
                    Program::Shell(content)
                }
            }
            several => {
                let mut text = command.clone();
                for heredoc in several {
                    text.push('\n');
                    text.push_str(&heredoc.content);
                    text.push_str(&heredoc.name);
                }
                Program::Shell(text)
            }
        }
    }
}

/// A here-document: `<<EOF`, lines, `EOF`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// The lines between, exactly as written, line endings included.
    pub content: String,
    /// Variables in the content are replaced (`COPY`, `ADD`): true unless the word was quoted.
    pub expand: bool,
    /// `<<-`: leading tabs are taken off every line.
    pub strip_tabs: bool,
    /// The number before `<<`, 0 without one.
    pub descriptor: u32,
    /// Where the content stands in the source.
    pub span: Span,
}

impl Heredoc {
    /// The content with leading tabs taken off where `<<-` asks for it.
    #[must_use]
    pub fn body(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// What `COPY` and `ADD` take files from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path, pattern or URL.
    Path(Word),
    /// A here-document: a file named like its word.
    Heredoc(Heredoc),
}

impl Source {
    /// The path, unless this is a heredoc.
    #[must_use]
    pub fn path(&self) -> Option<&Word> {
        match self {
            Self::Path(word) => Some(word),
            Self::Heredoc(_) => None,
        }
    }

    /// The here-document, unless this is a path.
    #[must_use]
    pub fn heredoc(&self) -> Option<&Heredoc> {
        match self {
            Self::Path(_) => None,
            Self::Heredoc(heredoc) => Some(heredoc),
        }
    }
}

/// `COPY [flags] source... destination`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// `--from`: a stage, an image or a named context; no variables in it.
    pub from: Option<Word>,
    /// `--chown=user[:group]`.
    pub chown: Option<Word>,
    /// `--chmod`: octal or symbolic.
    pub chmod: Option<Word>,
    /// `--link`: a layer of its own, independent of the layers below.
    pub link: bool,
    /// `--parents`: keeps the sources' directories.
    pub parents: bool,
    /// `--exclude` patterns.
    pub exclude: Vec<Word>,
    /// What to copy, in order.
    pub sources: Vec<Source>,
    /// Where to.
    pub destination: Word,
}

/// `ADD [flags] source... destination`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Add {
    /// `--chown=user[:group]`.
    pub chown: Option<Word>,
    /// `--chmod`: octal or symbolic.
    pub chmod: Option<Word>,
    /// `--link`: a layer of its own, independent of the layers below.
    pub link: bool,
    /// `--exclude` patterns.
    pub exclude: Vec<Word>,
    /// `--checksum`: a digest for a URL, a commit for a git repository.
    pub checksum: Option<Word>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`: `None` leaves it to the source (local archives are, remote ones are not).
    pub unpack: Option<bool>,
    /// What to add, in order.
    pub sources: Vec<Source>,
    /// Where to.
    pub destination: Word,
}

/// `HEALTHCHECK NONE` or `HEALTHCHECK [options] CMD command`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// Switches off what the base image says.
    None,
    /// Runs a command in the container from time to time. `None` options leave the default.
    Cmd {
        /// The command.
        command: CommandLine,
        /// `--interval`: time between two runs.
        interval: Option<Duration>,
        /// `--timeout`: a run that takes longer has failed.
        timeout: Option<Duration>,
        /// `--start-period`: failures in it do not count.
        start_period: Option<Duration>,
        /// `--start-interval`: time between two runs in the start period.
        start_interval: Option<Duration>,
        /// `--retries`: this many failures in a row make the container unhealthy.
        retries: Option<u32>,
    },
}
