//! Changes of a configuration as they are written one by one: what is added, what is removed, and
//! how lines become words.

use std::collections::BTreeMap;

use serde_json::json;

/// The words of a line as a shell has them: blanks part, quotes and backslashes keep together.
///
/// # Errors
/// A quote that does not end.
pub fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' | '"' => {
                let kept = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(format!("{line:?} has a quote that does not end")),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => match chars.next() {
                            Some(next @ ('"' | '\\' | '$' | '`')) => kept.push(next),
                            next => {
                                kept.push('\\');
                                kept.extend(next);
                            }
                        },
                        Some(other) => kept.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// A JSON array of words, if it is one.
pub fn array(text: &str) -> Option<Vec<String>> {
    text.trim_start().starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// What a value of a flag that lists asks for.
enum Change<'a> {
    Clear,
    Remove(&'a str),
    Add(&'a str),
}

fn change(text: &str) -> Change<'_> {
    match text.strip_suffix('-') {
        Some("") => Change::Clear,
        Some(rest) if !text.contains('=') => Change::Remove(rest),
        _ => Change::Add(text),
    }
}

/// Sets and removes the entries of a map: `KEY=VALUE`, `KEY-` and `-`.
///
/// # Errors
/// A text without a key.
pub fn pairs(map: &mut BTreeMap<String, String>, texts: &[String]) -> Result<(), String> {
    for text in texts {
        match change(text) {
            Change::Clear => map.clear(),
            Change::Remove(key) => drop(map.remove(key)),
            Change::Add(text) => {
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                if key.is_empty() {
                    return Err(format!("{text:?} has no key"));
                }
                map.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    Ok(())
}

/// Adds and removes the keys of a set: `KEY`, `KEY-` and `-`.
pub fn set(map: &mut BTreeMap<String, serde_json::Value>, texts: &[String]) {
    for text in texts {
        match change(text) {
            Change::Clear => map.clear(),
            Change::Remove(key) => drop(map.remove(key)),
            Change::Add(key) => drop(map.insert(key.to_owned(), json!({}))),
        }
    }
}

/// Adds and removes the items of a list: `ITEM`, `ITEM-` and `-`.
pub fn list(list: &mut Vec<String>, texts: &[String]) {
    for text in texts {
        match change(text) {
            Change::Clear => list.clear(),
            Change::Remove(item) => list.retain(|known| known != item),
            Change::Add(item) => list.push(item.to_owned()),
        }
    }
}

/// Sets and removes variables. `$NAME` and `${NAME}` in a value are those set before it.
/// `outside` gives the values of names that stand alone, `unknown` hears of variables that have none.
///
/// # Errors
/// A text without a name, or a name without a value.
pub fn variables(
    env: &mut Vec<String>,
    texts: &[String],
    outside: &dyn Fn(&str) -> Option<String>,
    unknown: &dyn Fn(&str),
) -> Result<(), String> {
    let named = |line: &str, name: &str| line.split_once('=').is_some_and(|(n, _)| n == name);
    for text in texts {
        let (name, value) = match change(text) {
            Change::Clear => {
                env.clear();
                continue;
            }
            Change::Remove(name) => {
                env.retain(|line| !named(line, name));
                continue;
            }
            Change::Add(text) => match text.split_once('=') {
                Some(("", _)) => return Err(format!("{text:?} has no name")),
                Some((name, value)) => (name, expand(value, env, unknown)),
                None => match outside(text) {
                    Some(value) => (text, value),
                    None => return Err(format!("{text} has no value here; write {text}=VALUE")),
                },
            },
        };
        let line = format!("{name}={value}");
        match env.iter_mut().find(|line| named(line, name)) {
            Some(known) => *known = line,
            None => env.push(line),
        }
    }
    Ok(())
}

/// Replaces `$NAME` and `${NAME}`.
fn expand(value: &str, env: &[String], unknown: &dyn Fn(&str)) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let plain = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        let (name, end) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => {
                let end = after.find(plain).unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        match (name, env.iter().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))) {
            ("", _) => out.push('$'),
            (_, Some(value)) => out.push_str(value),
            (_, None) => unknown(name),
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parted_as_a_shell_parts_them() {
        let cases: [(&str, &[&str]); 6] = [
            ("a b", &["a", "b"]),
            (r#"sh -c "echo \"x\" '$y'""#, &["sh", "-c", r#"echo "x" '$y'"#]),
            (r"a\ b c", &["a b", "c"]),
            ("'a b'c ''", &["a bc", ""]),
            ("", &[]),
            (r#""\n""#, &[r"\n"]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        assert!(words("'a").is_err());
        assert_eq!(array(r#"["a","b"]"#), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(array("[x"), None);
    }

    #[test]
    fn lists_grow_and_shrink() {
        let mut env = vec!["A=1".to_owned(), "B=2".to_owned()];
        let texts = ["C=${A}x$B", "A-", "B=$NOPE.", "D=$", "E=a-"].map(str::to_owned);
        variables(&mut env, &texts, &|_| None, &|_| ()).unwrap();
        assert_eq!(env, ["B=.", "C=1x2", "D=$", "E=a-"]);
        variables(&mut env, &["-".to_owned()], &|_| None, &|_| ()).unwrap();
        assert!(env.is_empty());
        for bad in ["=x", "NAME"] {
            let texts = [bad.to_owned()];
            assert!(variables(&mut env, &texts, &|_| None, &|_| ()).is_err(), "{bad}");
        }
        let given = |_: &str| Some("given".to_owned());
        variables(&mut env, &["NAME".to_owned()], &given, &|_| ()).unwrap();
        assert_eq!(env, ["NAME=given"]);
        let mut ports = BTreeMap::new();
        set(&mut ports, &["80/tcp", "90", "80/tcp-"].map(str::to_owned));
        assert_eq!(ports.keys().collect::<Vec<_>>(), ["90"]);
    }
}
