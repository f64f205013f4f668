//! The arguments of `HEALTHCHECK`.

use std::time::Duration;

use super::flags::Flags;
use super::instructions::{InstructionParts, Reader};
use crate::diagnostic::Diagnostic;
use crate::duration;
use crate::instruction::{CommandLine, Healthcheck};
use crate::suggest::did_you_mean;

impl Reader<'_, '_> {
    pub(super) fn healthcheck(&mut self, parts: &mut InstructionParts) -> Option<Healthcheck> {
        let joined = self.joined();
        let text = &joined.text[parts.arguments.clone()];
        let end = parts.arguments.start + text.find(char::is_whitespace).unwrap_or(text.len());
        let keyword = parts.arguments.start..end;
        let rest = joined.trim(end..parts.arguments.end);
        match joined.text[keyword.clone()].to_uppercase().as_str() {
            "" => {
                self.missing(parts, "CMD or NONE");
                self.help("HEALTHCHECK CMD command, or HEALTHCHECK NONE");
                None
            }
            "NONE" if rest.is_empty() => Some(Healthcheck::None),
            "NONE" => {
                self.error(
                    "bad-healthcheck",
                    "HEALTHCHECK NONE takes no arguments".to_owned(),
                    rest,
                );
                None
            }
            "CMD" => {
                let flags = &mut parts.flags;
                let interval = self.interval(flags, "interval");
                let timeout = self.interval(flags, "timeout");
                let start_period = self.interval(flags, "start-period");
                let start_interval = self.interval(flags, "start-interval");
                let retries = self.retries(flags);
                let command = self.command_in("HEALTHCHECK", rest.clone());
                if rest.is_empty() || command == CommandLine::Exec(Vec::new()) {
                    self.error(
                        "missing-arguments",
                        "HEALTHCHECK CMD needs a command".to_owned(),
                        keyword,
                    );
                    return None;
                }
                Some(Healthcheck::Cmd {
                    command,
                    interval,
                    timeout,
                    start_period,
                    start_interval,
                    retries,
                })
            }
            other => {
                let message = format!("unknown kind of HEALTHCHECK {other:?}");
                let near = did_you_mean(other, ["CMD", "NONE"]);
                self.error("bad-healthcheck", message, keyword);
                self.help(near.unwrap_or_else(|| format!("HEALTHCHECK CMD {text}")));
                None
            }
        }
    }

    /// A duration of at least a millisecond; 0 leaves the default.
    fn interval(&mut self, flags: &mut Flags, name: &str) -> Option<Duration> {
        let word = flags.text(name).filter(|word| !word.text.is_empty())?;
        let problem = match duration::parse(&word.text) {
            Ok(Duration::ZERO) => return None,
            Ok(length) if length >= Duration::from_millis(1) => return Some(length),
            Ok(_) => format!("--{name} must be at least 1ms"),
            Err(problem) => format!("--{name}: {problem}"),
        };
        self.diagnostics.push(Diagnostic::error("bad-duration", problem, word.span));
        None
    }

    fn retries(&mut self, flags: &mut Flags) -> Option<u32> {
        let word = flags.text("retries").filter(|word| !word.text.is_empty())?;
        match word.text.parse::<i32>().map(u32::try_from) {
            Ok(Ok(retries)) => (retries > 0).then_some(retries),
            _ => {
                let message = format!("--retries={:?} is not a count", word.text);
                self.diagnostics.push(Diagnostic::error("bad-flag", message, word.span));
                None
            }
        }
    }
}
