//! The flags of one instruction, checked against those it knows.

use crate::diagnostic::Diagnostic;
use crate::span::Word;
use crate::suggest::did_you_mean;
use crate::words::RawFlag;

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagKind {
    Text,
    /// May be given several times.
    List,
    Bool,
}

/// The flags of an instruction.
pub(super) type FlagTable = &'static [(&'static str, FlagKind)];

/// The flags that were given and are good.
pub(super) struct Flags(Vec<(&'static str, Word)>);

impl Flags {
    pub(super) fn read(
        raw: Vec<RawFlag>,
        instruction: &str,
        table: FlagTable,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut flags = Self(Vec::new());
        for flag in raw {
            if let Err(diagnostic) = flags.take(flag, instruction, table) {
                diagnostics.push(diagnostic);
            }
        }
        flags
    }

    fn take(
        &mut self,
        flag: RawFlag,
        instruction: &str,
        table: FlagTable,
    ) -> Result<(), Diagnostic> {
        let name = &flag.name;
        let bad = |message: String| Diagnostic::error("bad-flag", message, flag.span);
        let Some((name, kind)) = table.iter().copied().find(|(known, _)| known == name) else {
            let message = format!("unknown flag --{name} of {instruction}");
            let all = match table {
                [] => format!("{instruction} takes no flags"),
                _ => {
                    let names: Vec<_> = table.iter().map(|(name, _)| format!("--{name}")).collect();
                    format!("{instruction} takes {}", names.join(", "))
                }
            };
            let near = did_you_mean(name, table.iter().map(|(name, _)| *name))
                .map(|text| text.replacen('"', "\"--", 1));
            return Err(
                Diagnostic::error("unknown-flag", message, flag.span).with_help(near.or(Some(all)))
            );
        };
        if kind != FlagKind::List && self.0.iter().any(|(seen, _)| *seen == name) {
            return Err(bad(format!("flag --{name} is given twice")));
        }
        let value = match (flag.value, kind) {
            (Some(value), FlagKind::Bool) => {
                let text = value.text.to_lowercase();
                if text != "true" && text != "false" {
                    return Err(bad(format!("flag --{name} is true or false, not {text:?}")));
                }
                Word { text, ..value }
            }
            (Some(value), _) => value,
            (None, FlagKind::Bool) => Word { span: flag.span, ..Word::new("true") },
            (None, _) => {
                return Err(bad(format!("flag --{name} needs a value"))
                    .with_help(format!("write --{name}=VALUE")));
            }
        };
        self.0.push((name, value));
        Ok(())
    }

    pub(super) fn text(&mut self, name: &str) -> Option<Word> {
        let index = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.remove(index).1)
    }

    pub(super) fn list(&mut self, name: &str) -> Vec<Word> {
        let (named, rest) =
            std::mem::take(&mut self.0).into_iter().partition(|(known, _)| *known == name);
        self.0 = rest;
        let named: Vec<(&str, Word)> = named;
        named.into_iter().map(|(_, word)| word).collect()
    }

    pub(super) fn boolean(&mut self, name: &str) -> Option<bool> {
        self.text(name).map(|word| word.text == "true")
    }
}
