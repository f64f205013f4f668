//! Queries about a Dockerfile instead of a build: `--check`, `--call`.

use base64::Engine;
use builder::{Checked, Request, SourceFile};
use clap::{Args, ValueEnum};
use dockerfile::lint::RULES;
use dockerfile::outline::{Outline, Target};
use dockerfile::{Diagnostic, Dockerfile, LineIndex, Severity, Span};
use serde_json::{Value, json};
use task::Kind;

use super::Bud;
use crate::app::{App, observed};
use crate::format::table;
use crate::render::Progress;
use crate::report::Failure;

/// Queries instead of a build.
#[derive(Debug, Args)]
#[command(next_help_heading = "Questions")]
pub(super) struct CallFlags {
    /// Do not build: check the Dockerfile, list its targets, or outline the target's inputs
    #[arg(long, value_name = "build|check|outline|targets[,format=FORMAT]")]
    call: Option<String>,
    /// Check the Dockerfile without building; exit with 1 if there are findings (as --call=check)
    #[arg(long, conflicts_with = "call")]
    check: bool,
    /// Print the result as text, json or, for checks, sarif
    #[arg(long, value_enum, value_name = "FORMAT")]
    check_format: Option<Form>,
}

/// How to print a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
    Sarif,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Check,
    Outline,
    Targets,
}

/// A query, the format of its result, and whether findings are ignored.
type Asked = (Question, Form, bool);

impl CallFlags {
    fn asked(&self) -> Result<Option<Asked>, Failure> {
        let default = self.check_format.unwrap_or(Form::Text);
        let Some(text) = &self.call else {
            if self.check_format.is_some() && !self.check {
                return Err(Failure::usage("--check-format: there is no --check or --call"));
            }
            return Ok(self.check.then_some((Question::Check, default, false)));
        };
        let refuse = |why: String| Failure::usage(format!("--call {text:?}: {why}"));
        let mut parts = text.split(',');
        let question = match parts.next().unwrap_or_default() {
            "build" => None,
            "check" | "lint" => Some(Question::Check),
            "outline" => Some(Question::Outline),
            "targets" => Some(Question::Targets),
            other => {
                return Err(refuse(format!("there is no method {other:?}"))
                    .hint("the methods are build, check, outline and targets"));
            }
        };
        let (mut form, mut lenient) = (default, false);
        for part in parts {
            match part.split_once('=').unwrap_or((part, "true")) {
                ("format", "text") => form = Form::Text,
                ("format", "json") => form = Form::Json,
                ("format", "sarif") => form = Form::Sarif,
                ("ignorestatus", value @ ("true" | "false")) => lenient = value == "true",
                (key, value) => return Err(refuse(format!("{key}={value} is not supported"))),
            }
        }
        match question {
            None if text != "build" => Err(refuse("a build takes no options here".to_owned())),
            Some(Question::Outline | Question::Targets) if form == Form::Sarif => {
                Err(refuse("only checks can be written as SARIF".to_owned()))
            }
            question => Ok(question.map(|question| (question, form, lenient))),
        }
    }
}

impl Bud {
    /// Answers the question there is, if there is one; gives the exit code.
    pub(super) fn answer(&self, app: &App, request: &Request) -> Result<Option<u8>, Failure> {
        let Some((question, form, lenient)) = self.call.asked()? else { return Ok(None) };
        let request = &self.complete(app, request.clone())?;
        if question == Question::Check {
            let checked = builder::check(request, &self.env(app)?)?;
            let text = match form {
                Form::Text => findings(&checked),
                Form::Json => pretty(&findings_json(&checked)),
                Form::Sarif => pretty(&sarif(&checked)),
            };
            outln!("{text}");
            return Ok(Some(u8::from(!checked.diagnostics.is_empty() && !lenient)));
        }
        let file = &request.dockerfile;
        let (dockerfile, diagnostics) = dockerfile::parse(&file.text);
        if diagnostics.iter().any(|found| found.severity == Severity::Error) {
            let file = std::sync::Arc::new(file.clone());
            return Err(super::failure(builder::Error::Dockerfile { file, diagnostics }));
        }
        let text = if question == Question::Targets {
            let targets = dockerfile.targets();
            match form {
                Form::Json => pretty(&targets_json(&targets, &dockerfile, file)),
                _ => targets_text(&targets),
            }
        } else {
            let target = target(&dockerfile, request.target.as_deref())?;
            let args: Vec<_> = request.build_args.clone().into_iter().collect();
            let outline = dockerfile.outline(target, &args);
            let named = &dockerfile.targets()[target];
            match form {
                Form::Json => pretty(&outline_json(&outline, named, file)),
                _ => outline_text(&outline, named),
            }
        };
        outln!("{}", text.trim_end());
        Ok(Some(0))
    }
}

impl Bud {
    /// Fetches the Dockerfile if it is elsewhere.
    fn complete(&self, app: &App, request: Request) -> Result<Request, Failure> {
        if request.sources.dockerfile == builder::DockerfileAt::Given {
            return Ok(request);
        }
        observed("read", Progress::Quiet, |task| {
            let env = self.env(app)?;
            app.wait(builder::complete(request, &env, task))?.map_err(super::failure)
        })
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

fn findings(checked: &Checked) -> String {
    let file = &checked.file;
    let mut text = String::new();
    for found in &checked.diagnostics {
        text += &dockerfile::render(&file.text, &file.name, found);
        text += "\n";
    }
    let count = |severity| checked.diagnostics.iter().filter(|d| d.severity == severity).count();
    let number = |count: usize, what: &str| match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        many => format!("{many} {what}s"),
    };
    let errors = match count(Severity::Error) {
        0 => String::new(),
        errors => format!("{}, ", number(errors, "error")),
    };
    text + &format!(
        "checked {}: {errors}{}",
        file.name,
        number(count(Severity::Warning), "warning")
    )
}

/// Lines of a span, as BuildKit's answers have them.
fn ranges(index: &LineIndex<'_>, span: Span) -> Value {
    let start = index.position(span.start);
    let end = index.position(span.end.max(span.start));
    let at = |position: dockerfile::span::Position| json!({ "line": position.line, "character": position.column - 1 });
    json!({ "ranges": [{ "start": at(start), "end": at(end) }] })
}

fn source(file: &SourceFile) -> Value {
    let data = base64::engine::general_purpose::STANDARD.encode(&file.text);
    json!({ "filename": file.name, "language": "Dockerfile", "data": data })
}

fn summary(rule: &str) -> Option<&'static str> {
    RULES.iter().find(|known| known.name == rule).map(|known| known.summary)
}

/// The answer in the fields of BuildKit's.
fn findings_json(checked: &Checked) -> Value {
    let index = LineIndex::new(&checked.file.text);
    let (errors, warnings): (Vec<&Diagnostic>, Vec<&Diagnostic>) =
        checked.diagnostics.iter().partition(|found| found.severity == Severity::Error);
    let warning = |found: &&Diagnostic| {
        let mut warning = json!({
            "ruleName": found.rule,
            "detail": found.message,
            "location": ranges(&index, found.span),
        });
        if let Some(summary) = summary(found.rule) {
            warning["description"] = json!(summary);
        }
        if let Some(help) = &found.help {
            warning["help"] = json!(help);
        }
        warning
    };
    let mut answer = json!({
        "warnings": warnings.iter().map(warning).collect::<Vec<_>>(),
        "sources": [source(&checked.file)],
    });
    if let Some(error) = errors.first() {
        answer["buildError"] =
            json!({ "message": error.message, "location": ranges(&index, error.span) });
    }
    answer
}

/// The answer as SARIF 2.1.0, which code hosts show beside the lines.
fn sarif(checked: &Checked) -> Value {
    let index = LineIndex::new(&checked.file.text);
    let result = |found: &Diagnostic| {
        let (start, end) = (index.position(found.span.start), index.position(found.span.end));
        let text = match &found.help {
            Some(help) => format!("{}: {help}", found.message),
            None => found.message.clone(),
        };
        json!({
            "ruleId": found.rule,
            "level": found.severity.to_string(),
            "message": { "text": text },
            "locations": [{ "physicalLocation": {
                "artifactLocation": { "uri": checked.file.name },
                "region": {
                    "startLine": start.line, "startColumn": start.column,
                    "endLine": end.line, "endColumn": end.column.max(start.column),
                },
            } }],
        })
    };
    let mut rules: Vec<Value> = RULES
        .iter()
        .map(|rule| json!({ "id": rule.name, "shortDescription": { "text": rule.summary } }))
        .collect();
    let mut others: Vec<&str> = checked.diagnostics.iter().map(|found| found.rule).collect();
    others.retain(|rule| summary(rule).is_none());
    others.sort_unstable();
    others.dedup();
    rules.extend(others.into_iter().map(|rule| json!({ "id": rule })));
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "rbuild",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "columnKind": "unicodeCodePoints",
            "results": checked.diagnostics.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

fn name_of(target: &Target) -> String {
    target.name.clone().unwrap_or_else(|| match target.default {
        true => "default".to_owned(),
        false => target.stage.to_string(),
    })
}

fn targets_text(targets: &[Target]) -> String {
    let rows = targets.iter().map(|target| {
        let name = name_of(target);
        let mark = if target.default && target.name.is_some() { " (default)" } else { "" };
        let description = target.description.clone().unwrap_or_default();
        vec![format!("{name}{mark}"), target.base.clone(), description]
    });
    table(&["TARGET", "BASE", "DESCRIPTION"], &rows.collect::<Vec<_>>())
}

fn targets_json(targets: &[Target], dockerfile: &Dockerfile, file: &SourceFile) -> Value {
    let index = LineIndex::new(&file.text);
    let target = |target: &Target| {
        let stage = &dockerfile.stages[target.stage];
        let mut one = json!({
            "base": target.base,
            "location": ranges(&index, stage.from.span),
        });
        let platform = stage.platform.as_ref().map(|word| word.text.clone());
        for (key, value) in [
            ("name", target.name.clone()),
            ("description", target.description.clone()),
            ("platform", platform),
        ] {
            if let Some(value) = value {
                one[key] = json!(value);
            }
        }
        if target.default {
            one["default"] = json!(true);
        }
        one
    };
    json!({
        "targets": targets.iter().map(target).collect::<Vec<_>>(),
        "sources": [source(file)],
    })
}

fn outline_text(outline: &Outline, target: &Target) -> String {
    let mut text = format!("TARGET: {}\n", name_of(target));
    if let Some(description) = &target.description {
        text += &format!("DESCRIPTION: {description}\n");
    }
    let mut add = |head: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            text += "\n";
            text += &table(head, &rows);
        }
    };
    let args = outline.args.iter().map(|arg| {
        let value = arg.value.clone().unwrap_or_default();
        vec![arg.name.clone(), value, arg.description.clone().unwrap_or_default()]
    });
    add(&["BUILD ARG", "VALUE", "DESCRIPTION"], args.collect());
    for (head, needs) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        let rows = needs.iter().map(|need| {
            vec![need.name.clone(), if need.required { "required" } else { "" }.to_owned()]
        });
        add(&[head, "REQUIRED"], rows.collect());
    }
    add(&["CACHE MOUNT"], outline.caches.iter().map(|id| vec![id.clone()]).collect());
    text
}

fn outline_json(outline: &Outline, target: &Target, file: &SourceFile) -> Value {
    let index = LineIndex::new(&file.text);
    let args = outline.args.iter().map(|arg| {
        let mut one = json!({ "name": arg.name, "location": ranges(&index, arg.span) });
        for (key, value) in [("description", &arg.description), ("value", &arg.value)] {
            if let Some(value) = value {
                one[key] = json!(value);
            }
        }
        one
    });
    let mut answer = json!({ "args": args.collect::<Vec<_>>(), "sources": [source(file)] });
    for (key, needs) in [("secrets", &outline.secrets), ("ssh", &outline.ssh)] {
        let list = needs.iter().map(|need| match need.required {
            true => json!({ "name": need.name, "required": true }),
            false => json!({ "name": need.name }),
        });
        answer[key] = list.collect();
    }
    answer["cache"] = outline.caches.iter().map(|id| json!({ "id": id })).collect();
    for (key, value) in [("name", &target.name), ("description", &target.description)] {
        if let Some(value) = value {
            answer[key] = json!(value);
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn asked(call: &str) -> Result<Option<Asked>, Failure> {
        CallFlags { call: Some(call.to_owned()), check: false, check_format: None }.asked()
    }

    #[test]
    fn questions_are_read() {
        assert_eq!(asked("build").unwrap(), None);
        assert_eq!(asked("check").unwrap(), Some((Question::Check, Form::Text, false)));
        let json = Some((Question::Check, Form::Json, true));
        assert_eq!(asked("lint,format=json,ignorestatus").unwrap(), json);
        for text in ["", "test", "outline,format=sarif", "check,format=xml", "build,format=json"] {
            assert_eq!(asked(text).unwrap_err().exit_code(), 2, "{text}");
        }
        let alone = CallFlags { call: None, check: false, check_format: Some(Form::Json) };
        assert!(alone.asked().is_err());
    }

    #[test]
    fn findings_have_rule_place_and_text_in_every_form() {
        let text = "from scratch as A\nCMD echo hi\n".to_owned();
        let (file, _) = dockerfile::parse(&text);
        let diagnostics = dockerfile::lint(&file, &dockerfile::LintContext::default());
        let file = Arc::new(SourceFile { name: "Dockerfile".to_owned(), text });
        let checked = Checked { file, diagnostics };
        assert!(findings(&checked).ends_with("checked Dockerfile: 3 warnings"), "{checked:?}");
        let json = findings_json(&checked);
        let rules: Vec<_> =
            json["warnings"].as_array().unwrap().iter().map(|one| &one["ruleName"]).collect();
        assert!(rules.contains(&&json!("StageNameCasing")), "{json}");
        assert_eq!(json["warnings"][2]["location"]["ranges"][0]["start"]["line"], 2);
        let sarif = sarif(&checked);
        let results = sarif["runs"][0]["results"].as_array().unwrap();
        assert_eq!(results.len(), 3);
        assert_eq!(results[2]["ruleId"], "JSONArgsRecommended");
        assert_eq!(results[2]["locations"][0]["physicalLocation"]["region"]["startLine"], 2);
        assert_eq!(sarif["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap().len(), 22);
    }
}
