//! Queries about a Dockerfile instead of a build: `--check`, `--call`.

use app::App;
use builder::{Request, answer};
use clap::{Args, ValueEnum};
use dockerfile::{Dockerfile, Severity};
use serde_json::Value;
use task::Kind;

use super::BuildResources;
use options::Failure;
use options::flags;

/// Queries instead of a build.
#[derive(Debug, Args)]
#[command(next_help_heading = "Questions")]
pub(crate) struct CallFlags {
    /// Do not build: check the Dockerfile, list its targets, or outline the inputs of the target
    #[arg(long, value_name = "METHOD[,format=FORM]")]
    call: Option<String>,
    /// Check the Dockerfile without building; exit with 1 if there are findings (as --call=check)
    #[arg(long, conflicts_with = "call")]
    check: bool,
    /// Print the result as text, json or, for checks, sarif
    #[arg(long, value_enum, value_name = "FORMAT")]
    check_format: Option<AnswerFormat>,
}

/// How to print a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AnswerFormat {
    Text,
    Json,
    Sarif,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Check,
    Outline,
    Targets,
}

/// A query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    subject: Subject,
    form: AnswerFormat,
    /// Whether findings are no failure.
    lenient: bool,
}

impl CallFlags {
    /// The question there is, if there is one.
    ///
    /// # Errors
    /// It is not understood.
    pub(super) fn asked(&self) -> Result<Option<Question>, Failure> {
        let form = self.check_format.unwrap_or(AnswerFormat::Text);
        match &self.call {
            Some(text) => Question::parse(text, form),
            None if self.check_format.is_some() && !self.check => {
                Err(Failure::usage("--check-format: there is no --check or --call"))
            }
            None => {
                let check = Question { subject: Subject::Check, form, lenient: false };
                Ok(self.check.then_some(check))
            }
        }
    }
}

impl Question {
    /// The value of `--call`; nothing for a build.
    ///
    /// # Errors
    /// It is not understood.
    pub(crate) fn of(text: &str) -> Result<Option<Question>, Failure> {
        Question::parse(text, AnswerFormat::Text)
    }

    fn parse(text: &str, default: AnswerFormat) -> Result<Option<Question>, Failure> {
        let refuse = |why: String| Failure::usage(format!("--call {text:?}: {why}"));
        let parts = flags::fields(text).map_err(flags::of_flag("--call", text))?;
        let mut parts = parts.iter().map(String::as_str);
        let question = match parts.next().unwrap_or_default() {
            "build" => None,
            "check" | "lint" => Some(Subject::Check),
            "outline" => Some(Subject::Outline),
            "targets" => Some(Subject::Targets),
            other => {
                return Err(refuse(format!("there is no method {other:?}"))
                    .hint("the methods are build, check, outline and targets"));
            }
        };
        let (mut form, mut lenient) = (default, false);
        for part in parts {
            match part.split_once('=').unwrap_or((part, "true")) {
                ("format", "text") => form = AnswerFormat::Text,
                ("format", "json") => form = AnswerFormat::Json,
                ("format", "sarif") => form = AnswerFormat::Sarif,
                ("ignorestatus", value @ ("true" | "false")) => lenient = value == "true",
                (key, value) => return Err(refuse(format!("{key}={value} is not supported"))),
            }
        }
        match question {
            None if text != "build" => Err(refuse("a build takes no options here".to_owned())),
            Some(Subject::Outline | Subject::Targets) if form == AnswerFormat::Sarif => {
                Err(refuse("only checks can be written as SARIF".to_owned()))
            }
            question => Ok(question.map(|subject| Question { subject, form, lenient })),
        }
    }

    /// Answers; gives the exit code.
    ///
    /// # Errors
    /// The Dockerfile cannot be had or read; there is no such target.
    pub(crate) fn answer(
        self,
        app: &App,
        request: Request,
        resources: &BuildResources,
    ) -> Result<u8, Failure> {
        let Question { subject, form, lenient } = self;
        let request = &resources.complete(app, request)?;
        if subject == Subject::Check {
            let checked = builder::check(request, &resources.env(app)?)?;
            let text = match form {
                AnswerFormat::Text => answer::findings(&checked),
                AnswerFormat::Json => pretty(&answer::findings_json(&checked)),
                AnswerFormat::Sarif => pretty(&answer::sarif(&checked, env!("CARGO_PKG_VERSION"))),
            };
            outln!("{text}");
            return Ok(u8::from(!checked.diagnostics.is_empty() && !lenient));
        }
        let file = &request.dockerfile;
        let (dockerfile, diagnostics) = dockerfile::parse(&file.text);
        if diagnostics.iter().any(|found| found.severity == Severity::Error) {
            let file = std::sync::Arc::new(file.clone());
            return Err(super::failure(builder::Error::Dockerfile { file, diagnostics }));
        }
        let text = if subject == Subject::Targets {
            let targets = dockerfile.targets();
            match form {
                AnswerFormat::Json => pretty(&answer::targets_json(&targets, &dockerfile, file)),
                _ => answer::targets(&targets),
            }
        } else {
            let target = target(&dockerfile, request.target.as_deref())?;
            let args: Vec<_> = request.build_args.clone().into_iter().collect();
            let outline = dockerfile.outline(target, &args);
            let named = &dockerfile.targets()[target];
            match form {
                AnswerFormat::Json => pretty(&answer::outline_json(&outline, named, file)),
                _ => answer::outline(&outline, named),
            }
        };
        outln!("{}", text.trim_end());
        Ok(0)
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

fn target(dockerfile: &Dockerfile, name: Option<&str>) -> Result<usize, Failure> {
    let missing = |message: String| Failure::new(Kind::NotFound, message);
    match name {
        Some(name) => dockerfile
            .stage(name)
            .ok_or_else(|| missing(format!("there is no target stage {name:?}"))),
        None => (dockerfile.stages.len().checked_sub(1))
            .ok_or_else(|| missing("the Dockerfile has no FROM instruction".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(call: &str) -> Result<Option<Question>, Failure> {
        CallFlags { call: Some(call.to_owned()), check: false, check_format: None }.asked()
    }

    #[test]
    fn questions_are_read() {
        let check = |form, lenient| Question { subject: Subject::Check, form, lenient };
        assert_eq!(asked("build").unwrap(), None);
        assert_eq!(asked("check").unwrap(), Some(check(AnswerFormat::Text, false)));
        let json = Some(check(AnswerFormat::Json, true));
        assert_eq!(asked("lint,format=json,ignorestatus").unwrap(), json);
        for text in ["", "test", "outline,format=sarif", "check,format=xml", "build,format=json"] {
            assert!(asked(text).unwrap_err().usage, "{text}");
        }
        let alone = CallFlags { call: None, check: false, check_format: Some(AnswerFormat::Json) };
        assert!(alone.asked().is_err());
    }
}
