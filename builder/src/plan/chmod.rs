//! `--chmod`: an octal mode, or clauses as of chmod(1).

use serde::Serialize;

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Chmod {
    /// Exactly these bits.
    Octal(u32),
    /// Clauses, applied in order.
    Clauses(Vec<Clause>),
}

/// `[ugoa]*[-+=][rwxXst]*` or `[ugoa]*[-+=][ugo]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Clause {
    /// The bits of `07777` that may change.
    who: u32,
    action: Action,
    perms: Perms,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Action {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Perms {
    /// Bits for all three classes, and whether `X` was among them.
    Bits { bits: u32, execute_if: bool },
    /// The bits of a class, by its shift.
    Like(u32),
}

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

impl Chmod {
    /// Reads the value of `--chmod`; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Chmod, String> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode
                .map(Chmod::Octal)
                .ok_or_else(|| format!("{text:?} is not an octal mode of up to 7777"));
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            clauses_of(part, &mut clauses)
                .ok_or_else(|| format!("{part:?} is not a mode such as 755 or u=rwX,go=rX"))?;
        }
        Ok(Chmod::Clauses(clauses))
    }

    /// As it is written into keys; never to be changed.
    pub(crate) fn encoded(&self) -> String {
        let clause = |clause: &Clause| {
            let action = match clause.action {
                Action::Add => '+',
                Action::Remove => '-',
                Action::Set => '=',
            };
            let perms = match clause.perms {
                Perms::Bits { bits, execute_if } => {
                    format!("{bits:o}{}", if execute_if { "X" } else { "" })
                }
                Perms::Like(shift) => format!("like {shift}"),
            };
            format!("{:o}{action}{perms}", clause.who)
        };
        match self {
            Chmod::Octal(mode) => format!("{mode:o}"),
            Chmod::Clauses(clauses) => clauses.iter().map(clause).collect::<Vec<_>>().join(","),
        }
    }

    /// The new permission bits of a file with this `st_mode`.
    pub fn apply(&self, st_mode: u32) -> u32 {
        let clauses = match self {
            Chmod::Octal(mode) => return *mode,
            Chmod::Clauses(clauses) => clauses,
        };
        let directory = st_mode & 0o170_000 == 0o040_000;
        clauses.iter().fold(st_mode & 0o7777, |mode, clause| clause.apply(mode, directory))
    }
}

impl Clause {
    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let bits = match self.perms {
            Perms::Bits { bits, execute_if } => {
                let execute = execute_if && (directory || mode & 0o111 != 0);
                bits | if execute { 0o111 } else { 0 }
            }
            Perms::Like(shift) => {
                let class = (mode >> shift) & 0o7;
                class | class << 3 | class << 6
            }
        } & self.who;
        match self.action {
            Action::Add => mode | bits,
            Action::Remove => mode & !bits,
            // A directory keeps set-user-id and set-group-id unless they are named.
            Action::Set => {
                let kept = if directory { SETUID | SETGID } else { 0 };
                mode & !(self.who & !kept) | bits
            }
        }
    }
}

fn clauses_of(text: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let first = text.find(['+', '-', '='])?;
    let mut who = 0;
    for class in text[..first].chars() {
        who |= match class {
            'u' => 0o700 | SETUID,
            'g' => 0o070 | SETGID,
            'o' => 0o007 | STICKY,
            'a' => 0o7777,
            _ => return None,
        };
    }
    let who = if who == 0 { 0o7777 } else { who };
    let mut rest = &text[first..];
    while let Some(sign) = rest.chars().next() {
        let action = match sign {
            '+' => Action::Add,
            '-' => Action::Remove,
            _ => Action::Set,
        };
        rest = &rest[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        clauses.push(Clause { who, action, perms: perms_of(word)? });
        rest = tail;
    }
    Some(())
}

fn perms_of(word: &str) -> Option<Perms> {
    match word {
        "u" => return Some(Perms::Like(6)),
        "g" => return Some(Perms::Like(3)),
        "o" => return Some(Perms::Like(0)),
        _ => {}
    }
    let (mut bits, mut execute_if) = (0, false);
    for perm in word.chars() {
        match perm {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => execute_if = true,
            's' => bits |= SETUID | SETGID,
            't' => bits |= STICKY,
            _ => return None,
        }
    }
    Some(Perms::Bits { bits, execute_if })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_chmod_changes_them() {
        let (file, dir) = (0o100_000, 0o040_000);
        let cases = [
            ("755", file | 0o644, 0o755),
            ("0640", file | 0o777, 0o640),
            ("4755", file | 0o644, 0o4755),
            ("+x", file | 0o644, 0o755),
            ("u+x", file | 0o644, 0o744),
            ("go-rwx", file | 0o755, 0o700),
            ("u=rwX,go=rX", file | 0o600, 0o644),
            ("u=rwX,go=rX", file | 0o700, 0o755),
            ("u=rwX,go=rX", dir | 0o700, 0o755),
            ("g=u", file | 0o740, 0o770),
            ("a=r", file | 0o777, 0o444),
            ("u+s", file | 0o755, 0o4755),
            ("g+s", dir | 0o755, 0o2755),
            ("+t", dir | 0o777, 0o1777),
            ("=rx", dir | 0o2700, 0o2555),
            ("u-x+w", file | 0o500, 0o600),
        ];
        for (text, mode, expected) in cases {
            let chmod = Chmod::parse(text).unwrap();
            assert_eq!(
                chmod.apply(mode),
                expected,
                "{text} on {mode:o} gives {:o}",
                chmod.apply(mode)
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "8", "77777", "u", "z+x", "u+q", "u=rw,", "0x1ff", "-", "999"] {
            let read = Chmod::parse(text);
            assert!(read.is_err() || text == "-", "{text:?} was read as {read:?}");
        }
    }
}
