//! Answers to questions about a Dockerfile: what the linter found, which targets there are, what a
//! target takes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dockerfile::lint::RULES;
use dockerfile::outline::{Outline, Target};
use dockerfile::{Diagnostic, Dockerfile, LineIndex, Severity, Span};
use serde_json::{Value, json};

use crate::{CheckReport, SourceFile};

/// Findings as people read them, each with its place in the file.
pub fn findings(report: &CheckReport) -> String {
    let file = &report.file;
    let mut text = String::new();
    for found in &report.diagnostics {
        text += &dockerfile::render(&file.text, &file.name, found);
        text += "\n";
    }
    let count = |severity| report.diagnostics.iter().filter(|d| d.severity == severity).count();
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

fn name_of(target: &Target) -> String {
    target.name.clone().unwrap_or_else(|| match target.default {
        true => "default".to_owned(),
        false => target.stage.to_string(),
    })
}

/// Targets as people read them.
pub fn targets(targets: &[Target]) -> String {
    let rows = targets.iter().map(|target| {
        let name = name_of(target);
        let mark = if target.default && target.name.is_some() { " (default)" } else { "" };
        let description = target.description.clone().unwrap_or_default();
        vec![format!("{name}{mark}"), target.base.clone(), description]
    });
    format::table(&["TARGET", "BASE", "DESCRIPTION"], &rows.collect::<Vec<_>>())
}

/// What a target takes, as people read it.
pub fn outline(outline: &Outline, target: &Target) -> String {
    let mut text = format!("TARGET: {}\n", name_of(target));
    if let Some(description) = &target.description {
        text += &format!("DESCRIPTION: {description}\n");
    }
    let mut add = |head: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            text += "\n";
            text += &format::table(head, &rows);
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

/// Lines of a span, as BuildKit's answers have them.
fn ranges(index: &LineIndex<'_>, span: Span) -> Value {
    let start = index.position(span.start);
    let end = index.position(span.end.max(span.start));
    let at = |position: dockerfile::span::Position| json!({ "line": position.line, "character": position.column - 1 });
    json!({ "ranges": [{ "start": at(start), "end": at(end) }] })
}

fn source(file: &SourceFile) -> Value {
    let data = BASE64.encode(&file.text);
    json!({ "filename": file.name, "language": "Dockerfile", "data": data })
}

fn summary(rule: &str) -> Option<&'static str> {
    RULES.iter().find(|known| known.name == rule).map(|known| known.summary)
}

/// Findings in the fields of BuildKit's answer.
pub fn findings_json(report: &CheckReport) -> Value {
    let index = LineIndex::new(&report.file.text);
    let (errors, warnings): (Vec<&Diagnostic>, Vec<&Diagnostic>) =
        report.diagnostics.iter().partition(|found| found.severity == Severity::Error);
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
        "sources": [source(&report.file)],
    });
    if let Some(error) = errors.first() {
        answer["buildError"] =
            json!({ "message": error.message, "location": ranges(&index, error.span) });
    }
    answer
}

/// Findings as SARIF 2.1.0, which code hosts show beside the lines. `version` is that of this
/// program.
pub fn sarif(report: &CheckReport, version: &str) -> Value {
    let index = LineIndex::new(&report.file.text);
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
                "artifactLocation": { "uri": report.file.name },
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
    let mut others: Vec<&str> = report.diagnostics.iter().map(|found| found.rule).collect();
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
                "version": version,
                "rules": rules,
            } },
            "columnKind": "unicodeCodePoints",
            "results": report.diagnostics.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

/// The targets of a Dockerfile in the fields of BuildKit's answer.
pub fn targets_json(targets: &[Target], dockerfile: &Dockerfile, file: &SourceFile) -> Value {
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

/// What a target takes, in the fields of BuildKit's answer.
pub fn outline_json(outline: &Outline, target: &Target, file: &SourceFile) -> Value {
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

    #[test]
    fn findings_have_rule_place_and_text_in_every_form() {
        let text = "from scratch as A\nCMD echo hi\n".to_owned();
        let (file, _) = dockerfile::parse(&text);
        let diagnostics = dockerfile::lint(&file, &dockerfile::LintContext::default());
        let file = Arc::new(SourceFile { name: "Dockerfile".to_owned(), text });
        let checked = CheckReport { file, diagnostics };
        assert!(findings(&checked).ends_with("checked Dockerfile: 3 warnings"), "{checked:?}");
        let json = findings_json(&checked);
        let rules: Vec<_> =
            json["warnings"].as_array().unwrap().iter().map(|one| &one["ruleName"]).collect();
        assert!(rules.contains(&&json!("StageNameCasing")), "{json}");
        assert_eq!(json["warnings"][2]["location"]["ranges"][0]["start"]["line"], 2);
        let sarif = sarif(&checked, "1");
        let results = sarif["runs"][0]["results"].as_array().unwrap();
        assert_eq!(results.len(), 3);
        assert_eq!(results[2]["ruleId"], "JSONArgsRecommended");
        assert_eq!(results[2]["locations"][0]["physicalLocation"]["region"]["startLine"], 2);
        assert_eq!(sarif["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap().len(), 22);
    }
}
