//! Two sets of facts compared: reasons, each in one line.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Facts, FileFact};

/// What kind of input has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReasonKind {
    /// The step was never built, or its Dockerfile is not known here.
    New,
    /// The user asked for it.
    NoCache,
    /// The result is too old for `--cache-ttl`.
    Expired,
    /// Nothing changed, but the result was removed.
    Gone,
    /// The text of the instruction.
    Instruction,
    /// An option or property of the instruction, or a mount.
    Setting,
    /// A build argument.
    Arg,
    /// An environment variable.
    Env,
    /// An image it builds on or copies from.
    Image,
    /// The step that it continues.
    Parent,
    /// Another step whose files it reads.
    Input,
    /// A file of a build context.
    File,
    /// Something that has no name of its own here.
    Other,
}

/// One reason why a step has to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What kind of input it is.
    pub kind: ReasonKind,
    /// Which one: a path, a variable, an image, a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What happened to it: `added`, `removed`, `content`, `mode`, `owner`, `changed`.
    pub change: String,
    /// All of it as a sentence.
    pub text: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why one step has to run.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The step as the user sees it.
    pub step: String,
    /// `file:line` of its instruction.
    pub place: String,
    /// The reasons, at least one.
    pub reasons: Vec<Reason>,
}

/// A line for the step and one for each reason.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({}) ran because", self.step, self.place)?;
        self.reasons.iter().try_for_each(|reason| writeln!(f, "    {reason}"))
    }
}

impl Reason {
    pub(crate) fn new(
        kind: ReasonKind,
        name: Option<&str>,
        change: &str,
        text: impl Into<String>,
    ) -> Reason {
        let name = name.map(str::to_owned);
        Reason { kind, name, change: change.to_owned(), text: text.into() }
    }
}

/// What is different; at least one reason.
pub(crate) fn compare(before: Option<&Facts>, now: &Facts) -> Vec<Reason> {
    use ReasonKind::{Arg, Env, Gone, Instruction, New, Other, Setting};
    let Some(before) = before else {
        let text = "it was not built before from this Dockerfile and context";
        return vec![Reason::new(New, None, "added", text)];
    };
    if before.key == now.key {
        let text = "its result is no longer in the store";
        return vec![Reason::new(Gone, None, "removed", text)];
    }
    let mut reasons = Vec::new();
    let rewritten = before.instruction != now.instruction;
    if rewritten {
        let text = format!("the instruction changed, it was: {}", before.instruction);
        reasons.push(Reason::new(Instruction, None, "changed", text));
    }
    let used = |name: &str| now.kind_sees_all_args() || mentions(&now.instruction, name);
    let args = |facts: &Facts| -> BTreeMap<String, u16> {
        let used = facts.args.iter().filter(|(name, _)| used(name));
        used.map(|(name, mark)| (name.clone(), *mark)).collect()
    };
    let other_args = marks(&mut reasons, Arg, "build argument ", &args(before), &args(now));
    marks(&mut reasons, Env, "variable ", &before.env, &now.env);
    // What follows from the instruction's text or from an argument is no reason of its own.
    let follows = rewritten || (other_args && !now.kind_sees_all_args());
    if !follows {
        marks(&mut reasons, Setting, "", &before.settings, &now.settings);
    }
    images(&mut reasons, before, now);
    inputs(&mut reasons, before, now);
    files(&mut reasons, before, now);
    if reasons.is_empty() {
        let text = "something else that it depends on changed";
        reasons.push(Reason::new(Other, None, "changed", text));
    }
    reasons
}

impl Facts {
    /// Whether every build argument is part of the result, used or not: a command sees them all.
    fn kind_sees_all_args(&self) -> bool {
        self.settings.contains_key("the command")
    }
}

/// Whether a text uses a variable.
fn mentions(text: &str, name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let plain = format!("${name}");
    let plain = text.match_indices(&plain).any(|(at, found)| ends(&text[at + found.len()..]));
    let braced = format!("${{{name}");
    plain || text.match_indices(&braced).any(|(at, found)| ends(&text[at + found.len()..]))
}

/// Compares marks by name; says whether any was different.
fn marks(
    reasons: &mut Vec<Reason>,
    kind: ReasonKind,
    what: &str,
    before: &BTreeMap<String, u16>,
    now: &BTreeMap<String, u16>,
) -> bool {
    let count = reasons.len();
    let mut push = |name: &str, change: &str, verb: &str| {
        reasons.push(Reason::new(kind, Some(name), change, format!("{what}{name} {verb}")));
    };
    for (name, mark) in now {
        match before.get(name) {
            None => push(name, "added", "is new"),
            Some(old) if old != mark => push(name, "changed", "changed"),
            Some(_) => {}
        }
    }
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        push(name, "removed", "is gone");
    }
    reasons.len() > count
}

fn images(reasons: &mut Vec<Reason>, before: &Facts, now: &Facts) {
    let kind = ReasonKind::Image;
    for (name, (digest, chain)) in &now.images {
        match before.images.get(name) {
            None => {
                let text = match before.images.keys().find(|old| !now.images.contains_key(*old)) {
                    Some(old) => format!("image {name} replaces {old}"),
                    None => format!("image {name} is new"),
                };
                reasons.push(Reason::new(kind, Some(name), "added", text));
            }
            Some((old, was)) if was != chain => {
                let text = format!("image {name} changed from {old} to {digest}");
                reasons.push(Reason::new(kind, Some(name), "changed", text));
            }
            Some(_) => {}
        }
    }
}

fn inputs(reasons: &mut Vec<Reason>, before: &Facts, now: &Facts) {
    for (at, input) in now.inputs.iter().enumerate() {
        let parent = now.parent && at == 0;
        let (kind, what) = match parent {
            true => (ReasonKind::Parent, "the step before it"),
            false => (ReasonKind::Input, "a step it reads from"),
        };
        let old = match parent {
            true => before.inputs.first().filter(|_| before.parent),
            false => before.inputs.iter().find(|old| old.instruction == input.instruction),
        };
        let name = Some(input.step.as_str());
        let (change, text) = match old {
            Some(old) if old.keys.iter().any(|key| input.keys.contains(key)) => continue,
            Some(old) if old.instruction == input.instruction => {
                ("changed", format!("{what} changed: {}", input.step))
            }
            Some(old) => {
                ("changed", format!("{what} is another one: {}, it was {}", input.step, old.step))
            }
            None => ("added", format!("{what} is new: {}", input.step)),
        };
        reasons.push(Reason::new(kind, name, change, text));
    }
    if before.parent && !now.parent {
        let text = "the step before it is gone";
        reasons.push(Reason::new(ReasonKind::Parent, None, "removed", text));
    }
}

fn files(reasons: &mut Vec<Reason>, before: &Facts, now: &Facts) {
    let kind = ReasonKind::File;
    if before.many_files || now.many_files {
        let text = "the files it reads may have changed; there are too many to record each";
        reasons.push(Reason::new(kind, None, "changed", text));
        return;
    }
    // Files of two sources may have the same path; each pair is compared in its order.
    let group = |facts: &Facts| {
        let mut groups: BTreeMap<String, Vec<FileFact>> = BTreeMap::new();
        for file in &facts.files {
            groups.entry(file.path.clone()).or_default().push(file.clone());
        }
        groups
    };
    let (old, new) = (group(before), group(now));
    let mut push = |path: &str, change: &str, verb: &str| {
        let shown = if path.is_empty() { "." } else { path };
        reasons.push(Reason::new(kind, Some(shown), change, format!("file {shown} {verb}")));
    };
    for (path, files) in &new {
        let Some(was) = old.get(path) else {
            push(path, "added", "is new");
            continue;
        };
        if was == files {
            continue;
        }
        match was.iter().zip(files).find(|(was, is)| was != is) {
            Some((was, is)) if was.mode & 0o170_000 != is.mode & 0o170_000 => {
                push(path, "kind", "is of another kind");
            }
            Some((was, is)) if was.content != is.content => {
                push(path, "content", "has other content");
            }
            Some((was, is)) if was.mode != is.mode => {
                let (was, is) = (was.mode & 0o7777, is.mode & 0o7777);
                push(path, "mode", &format!("has mode {is:o}, it was {was:o}"));
            }
            Some(_) => push(path, "owner", "has another owner"),
            None => push(path, "changed", "is read a different number of times"),
        }
    }
    for path in old.keys().filter(|path| !new.contains_key(*path)) {
        push(path, "removed", "is gone");
    }
}

#[cfg(test)]
mod tests {
    use image::Digest;

    use super::super::facts::Input;
    use super::super::mark::mark;
    use super::*;

    fn facts() -> Facts {
        let mut facts = Facts {
            step: "[1/2] COPY a /$V".to_owned(),
            instruction: "COPY a /$V".to_owned(),
            key: "sha256:1".to_owned(),
            parent: true,
            ..Facts::default()
        };
        facts.args.insert("V".to_owned(), mark(b"1"));
        facts.args.insert("UNUSED".to_owned(), mark(b"1"));
        facts.settings.insert("the destination".to_owned(), mark(b"/1"));
        facts.images.insert("base".to_owned(), ("sha256:a".to_owned(), "sha256:b".to_owned()));
        let keys = [Digest::of(b"1"), Digest::of(b"2")];
        let (step, instruction) = ("[1/2] RUN x".to_owned(), "RUN x".to_owned());
        facts.inputs.push(Input { step, instruction, keys });
        let file =
            |path: &str, mode| FileFact { path: path.to_owned(), mode, owner: None, content: 7 };
        facts.files = vec![file("a", 0o100_644), file("b", 0o100_644)];
        facts
    }

    fn put(marks: &mut BTreeMap<String, u16>, name: &str, value: u16) {
        marks.insert(name.to_owned(), value);
    }

    #[test]
    fn each_kind_of_change_is_named_and_nothing_else() {
        type Change = fn(&mut Facts);
        let cases: &[(&str, Change, &[&str])] = &[
            (
                "an argument that is used, with what it decides",
                |f| {
                    f.args.insert("V".to_owned(), mark(b"2"));
                    f.settings.insert("the destination".to_owned(), mark(b"/2"));
                },
                &["build argument V changed"],
            ),
            (
                "an argument that is not used",
                |f| put(&mut f.args, "UNUSED", mark(b"2")),
                &["something else that it depends on changed"],
            ),
            (
                "a setting",
                |f| put(&mut f.settings, "the destination", mark(b"/2")),
                &["the destination changed"],
            ),
            ("a variable", |f| put(&mut f.env, "HOME", 1), &["variable HOME is new"]),
            (
                "the base",
                |f| drop(f.images.insert("base".to_owned(), ("sha256:c".into(), "d".into()))),
                &["image base changed from sha256:a to sha256:c"],
            ),
            (
                "another base",
                |f| {
                    let base = f.images.remove("base").unwrap();
                    f.images.insert("other".to_owned(), base);
                },
                &["image other replaces base"],
            ),
            (
                "the same files from a parent that was made otherwise",
                |f| f.inputs[0].keys[1] = Digest::of(b"3"),
                &["something else that it depends on changed"],
            ),
            (
                "the parent",
                |f| f.inputs[0].keys = [Digest::of(b"3"), Digest::of(b"4")],
                &["the step before it changed: [1/2] RUN x"],
            ),
            ("content", |f| f.files[0].content = 8, &["file a has other content"]),
            ("mode", |f| f.files[1].mode = 0o100_755, &["file b has mode 755, it was 644"]),
            ("kind", |f| f.files[1].mode = 0o120_777, &["file b is of another kind"]),
            ("owner", |f| f.files[0].owner = Some((1, 1)), &["file a has another owner"]),
            (
                "a new file",
                |f| f.files[1].path = "c".to_owned(),
                &["file c is new", "file b is gone"],
            ),
            (
                "the text",
                |f| {
                    f.instruction = "COPY a /b".to_owned();
                    f.settings.insert("the destination".to_owned(), mark(b"/b"));
                },
                &["the instruction changed, it was: COPY a /$V"],
            ),
        ];
        let before = facts();
        for (what, change, expected) in cases {
            let mut now = facts();
            now.key = "sha256:2".to_owned();
            change(&mut now);
            // What is written is what is read back.
            let now: Facts = serde_json::from_slice(&serde_json::to_vec(&now).unwrap()).unwrap();
            let found: Vec<String> =
                compare(Some(&before), &now).iter().map(ToString::to_string).collect();
            assert_eq!(found, *expected, "{what}");
        }
        assert_eq!(compare(Some(&before), &before)[0].kind, ReasonKind::Gone);
        assert_eq!(compare(None, &before)[0].kind, ReasonKind::New);
    }

    #[test]
    fn facts_hold_no_value() {
        let text = serde_json::to_string(&facts()).unwrap();
        assert!(!text.contains("/1"), "{text}");
        assert!(mentions("COPY $V /", "V") && mentions("COPY ${V:-x} /", "V"));
        assert!(!mentions("COPY $VERSION ${VX}", "V"));
    }
}
