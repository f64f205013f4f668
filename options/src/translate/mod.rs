//! Lines of regctl and oras as lines of `rcopy`: other words for the same commands. What has no
//! counterpart is refused by name.

mod oras;
mod regctl;

use std::ffi::OsString;

use crate::{Dialect, Failure};

/// How a flag of theirs is written here.
#[derive(Clone, Copy)]
enum Flag {
    /// A switch: these words are added.
    Words(&'static [&'static str]),
    /// A switch before the command.
    Global(&'static str),
    /// A flag with a value, called so here.
    Value(&'static str),
    /// A flag with a value that stands before the command.
    GlobalValue(&'static str),
    /// A platform; `local` is that of this machine.
    Platform(&'static str),
    /// A switch for what is so anyway.
    Anyway,
    /// A flag with a value that changes nothing of what is done.
    AnywayValue,
    /// A switch that the command's [`Verb::arrange`] looks at.
    Own,
    /// A flag with a value, in the same way.
    OwnValue,
    /// There is none, and what to do instead.
    Refused(&'static str),
}

/// A flag by all its names.
type FlagRow = (&'static [&'static str], Flag);

/// A command.
struct Verb {
    /// Its words, each with other names of it.
    words: &'static [&'static [&'static str]],
    /// What it is called here; a reason why not, if it is empty.
    here: &'static [&'static str],
    /// Its flags beside those that all commands have.
    flags: &'static [FlagRow],
    /// Puts the rest in order.
    arrange: fn(&mut Wording) -> Result<(), String>,
}

/// A program.
struct Language {
    name: &'static str,
    verbs: &'static [Verb],
    /// Flags of every command.
    flags: &'static [FlagRow],
    /// Commands that there are not, and what to do instead.
    refused: &'static [(&'static str, &'static str)],
    /// A name as it is written here.
    name_here: fn(&str) -> String,
}

/// A line on its way.
#[derive(Debug, Default)]
struct Wording {
    /// What stands before the command.
    globals: Vec<String>,
    /// The command.
    command: Vec<String>,
    /// Its flags.
    flags: Vec<String>,
    /// What is no flag.
    words: Vec<String>,
    /// Flags that are looked at by hand, by their first name.
    own: Vec<(&'static str, String)>,
}

impl Wording {
    /// The last value of a flag that is looked at by hand.
    fn own(&self, name: &str) -> Option<&str> {
        let last = self.own.iter().rev().find(|(known, _)| *known == name);
        last.map(|(_, value)| value.as_str())
    }

    /// All values of such a flag.
    fn all<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.own.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.own(name).is_some()
    }

    /// Adds a flag with its value.
    fn push(&mut self, flag: &str, value: impl Into<String>) {
        self.flags.extend([flag.to_owned(), value.into()]);
    }

    /// Other words for the command.
    fn call(&mut self, words: &[&str]) {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
    }

    /// That there are as many words.
    fn words(&self, least: usize, most: usize) -> Result<(), String> {
        match self.words.len() {
            count if count < least => Err("an argument is missing".to_owned()),
            count if count > most => Err(format!("unexpected argument {:?}", self.words[most])),
            _ => Ok(()),
        }
    }

    /// `REPOSITORY DIGEST` as one name.
    fn pin(&mut self, repository: usize, digest: usize) {
        let digest = self.words.remove(digest);
        let name = &mut self.words[repository];
        *name = format!("{}@{digest}", bare(name));
    }
}

/// A name without its tag and digest.
fn bare(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => name,
    }
}

/// Nothing is to be done.
fn as_it_is(_: &mut Wording) -> Result<(), String> {
    Ok(())
}

/// A line of another program as one of `rcopy`; any other stays as it is.
///
/// # Errors
/// There is no such command or flag here; an argument is missing.
pub fn translated(line: &[OsString]) -> Result<Vec<OsString>, Failure> {
    match Dialect::spoken() {
        Dialect::Regctl => translate(&regctl::REGCTL, line),
        Dialect::Oras => translate(&oras::ORAS, line),
        _ => Ok(line.to_vec()),
    }
}

fn translate(language: &Language, line: &[OsString]) -> Result<Vec<OsString>, Failure> {
    let mut words = Vec::with_capacity(line.len());
    for word in line.iter().skip(1) {
        let text = word
            .to_str()
            .ok_or_else(|| Failure::usage(format!("{:?} is not UTF-8", word.to_string_lossy())))?;
        words.push(text.to_owned());
    }
    if words.is_empty() || words.iter().any(|word| ["-h", "--help", "help"].contains(&&word[..])) {
        return Ok(help(language, &words));
    }
    if words.iter().any(|word| word == "--version") {
        words = vec!["version".to_owned()];
    }
    let (verb, rest) = find(language, &words)?;
    let called = format!("{} {}", language.name, shown(verb));
    let refuse = |why: String| Failure::usage(format!("{called}: {why}"));
    let mut line = read(language, verb, rest).map_err(|(what, hint)| match hint {
        Some(hint) => refuse(what).hint(hint),
        None => refuse(what),
    })?;
    line.words = line.words.iter().map(|word| (language.name_here)(word)).collect();
    (verb.arrange)(&mut line).map_err(refuse)?;
    let Wording { globals, command, flags, words, .. } = line;
    let all = [vec!["rcopy".to_owned()], globals, command, flags, words];
    Ok(all.into_iter().flatten().map(OsString::from).collect())
}

/// The help of the command that a line is translated to, or that of `rcopy`.
fn help(language: &Language, words: &[String]) -> Vec<OsString> {
    let plain: Vec<String> =
        words.iter().filter(|word| !word.starts_with('-') && *word != "help").cloned().collect();
    let here = find(language, &plain).map_or(&[][..], |(verb, _)| verb.here);
    let line = std::iter::once("rcopy").chain(here.iter().copied());
    let flags = here.iter().position(|word| word.starts_with('-')).map_or(usize::MAX, |at| at + 1);
    line.take(flags).chain(["--help"]).map(OsString::from).collect()
}

fn shown(verb: &Verb) -> String {
    verb.words.iter().map(|names| names[0]).collect::<Vec<_>>().join(" ")
}

/// The command that a line begins with, and what follows. Flags of every command may stand before.
fn find<'l>(
    language: &'l Language,
    words: &'l [String],
) -> Result<(&'l Verb, Vec<&'l String>), Failure> {
    let mut before = Vec::new();
    let mut left = words.iter();
    let mut plain = Vec::new();
    while let Some(word) = left.next() {
        if plain.is_empty() && word.starts_with('-') {
            before.push(word);
            let named = word.split('=').next().unwrap_or_default();
            let takes = language.flags.iter().find(|(names, _)| names.contains(&named));
            if takes.is_some_and(|(_, flag)| flag.takes_value()) && !word.contains('=') {
                before.extend(left.next());
            }
            continue;
        }
        plain.push(word);
    }
    let fits = |verb: &&Verb| {
        verb.words.len() <= plain.len()
            && verb.words.iter().zip(&plain).all(|(names, word)| names.contains(&&word[..]))
    };
    let longest = language.verbs.iter().filter(fits).max_by_key(|verb| verb.words.len());
    if let Some(verb) = longest {
        before.extend(plain.into_iter().skip(verb.words.len()));
        return Ok((verb, before));
    }
    let text = plain.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" ");
    let known = language.refused.iter().find(|(name, _)| {
        text.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    });
    Err(match known {
        Some((name, why)) => {
            Failure::usage(format!("{} {name} is not supported", language.name)).hint(*why)
        }
        None => {
            let command = plain.first().map(|word| word.as_str()).unwrap_or_default();
            Failure::usage(format!("there is no command {command:?} of {}", language.name))
                .hint("`rcopy --help` lists the commands")
        }
    })
}

impl Flag {
    fn takes_value(self) -> bool {
        matches!(
            self,
            Flag::Value(_)
                | Flag::GlobalValue(_)
                | Flag::Platform(_)
                | Flag::AnywayValue
                | Flag::OwnValue
        )
    }
}

/// Why a line is refused, and what to do.
type Refusal = (String, Option<&'static str>);

fn read(language: &Language, verb: &Verb, rest: Vec<&String>) -> Result<Wording, Refusal> {
    let mut line = Wording::default();
    line.call(verb.here);
    let mut left = rest.into_iter();
    while let Some(word) = left.next() {
        if word == "--" {
            line.words.extend(left.by_ref().cloned());
            break;
        }
        if !word.starts_with('-') || word == "-" {
            line.words.push(word.clone());
            continue;
        }
        let (name, given) = split(word);
        let rows = verb.flags.iter().chain(language.flags);
        let row = rows.into_iter().find(|(names, _)| names.contains(&name));
        let (names, flag) = row.ok_or_else(|| (format!("there is no flag {name}"), None))?;
        let value = match (flag.takes_value(), given) {
            (true, Some(value)) => value.to_owned(),
            (true, None) => {
                let next = left.next().ok_or_else(|| (format!("{name} needs a value"), None))?;
                next.clone()
            }
            (false, Some("false")) => continue,
            (false, Some("true") | None) => String::new(),
            (false, Some(value)) => {
                return Err((format!("{name}={value}: {value:?} is neither true nor false"), None));
            }
        };
        take(&mut line, names[0], *flag, value)?;
    }
    Ok(line)
}

/// `--flag=value`, `-f=value` and `-fvalue` taken apart.
fn split(word: &str) -> (&str, Option<&str>) {
    match word.split_once('=') {
        Some((name, value)) if word.starts_with("--") || name.len() == 2 => (name, Some(value)),
        _ if word.starts_with("--") || word.len() <= 2 || !word.is_char_boundary(2) => (word, None),
        _ => (&word[..2], Some(&word[2..])),
    }
}

fn take(line: &mut Wording, name: &'static str, flag: Flag, value: String) -> Result<(), Refusal> {
    match flag {
        Flag::Words(words) => line.flags.extend(words.iter().map(|word| (*word).to_owned())),
        Flag::Global(word) => line.globals.push(word.to_owned()),
        Flag::Value(here) => line.push(here, value),
        Flag::GlobalValue(here) => line.globals.extend([here.to_owned(), value]),
        Flag::Platform(_) if value == "local" => {}
        Flag::Platform(here) => line.push(here, value),
        Flag::Anyway | Flag::AnywayValue => {}
        Flag::Own | Flag::OwnValue => line.own.push((name, value)),
        Flag::Refused(why) => {
            return Err((format!("{name} is not supported"), Some(why)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(language: &Language, lines: &[(&str, &str)]) {
        for (theirs, ours) in lines {
            let line: Vec<OsString> = theirs.split(' ').map(OsString::from).collect();
            let here = translate(language, &line).unwrap_or_else(|error| {
                panic!("{theirs}: {:?}", error.messages);
            });
            let here: Vec<_> = here.iter().map(|word| word.to_str().unwrap()).collect();
            assert_eq!(here.join(" "), *ours, "{theirs}");
        }
    }

    fn refused(language: &Language, lines: &[(&str, &str)]) {
        for (theirs, part) in lines {
            let line: Vec<OsString> = theirs.split(' ').map(OsString::from).collect();
            let error = translate(language, &line).expect_err(theirs);
            let told = format!("{} {}", error.messages.join(": "), error.hint.unwrap_or_default());
            assert!(told.contains(part), "{theirs}: {told}");
        }
    }

    #[test]
    fn lines_of_regctl_are_lines_of_ours() {
        check(&regctl::REGCTL, regctl::LINES);
        refused(&regctl::REGCTL, regctl::REFUSED_LINES);
    }

    #[test]
    fn lines_of_oras_are_lines_of_ours() {
        check(&oras::ORAS, oras::LINES);
        refused(&oras::ORAS, oras::REFUSED_LINES);
    }

    #[test]
    fn no_flag_of_a_command_is_there_twice() {
        for language in [&regctl::REGCTL, &oras::ORAS] {
            for verb in language.verbs {
                let all = verb.flags.iter().flat_map(|(names, _)| names.iter());
                let mut names: Vec<_> = all.collect();
                let count = names.len();
                names.sort_unstable();
                names.dedup();
                assert_eq!(names.len(), count, "{} {}", language.name, shown(verb));
            }
        }
    }
}
