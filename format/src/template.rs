//! Go templates over JSON values, as Docker and Podman take them.

use serde_json::Value;

use crate::error::Error;
use crate::span::go_span;
use crate::table::{headed, table};

/// Renders each value through a template, a line each. With `table` in front of the template the
/// parts between its tabs are columns, and `headers` says what fields are called at the top.
///
/// # Errors
/// As [`template`].
pub fn lines(
    source: &str,
    values: &[Value],
    headers: &[(&str, &str)],
    noheading: bool,
) -> Result<String, Error> {
    let Some(columns) = source.strip_prefix("table").filter(|rest| rest.starts_with([' ', '\\']))
    else {
        let lines = values.iter().map(|value| Ok(template(source, value)? + "\n"));
        return lines.collect();
    };
    let columns = columns.trim_start().trim_start_matches("\\t");
    let cells = |value: &Value| -> Result<Vec<String>, Error> {
        Ok(template(columns, value)?.split('\t').map(str::to_owned).collect())
    };
    let titles = headers.iter().map(|(field, title)| ((*field).to_owned(), (*title).into()));
    let header = cells(&Value::Object(titles.collect()))?;
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let rows = values.iter().map(cells).collect::<Result<Vec<_>, _>>()?;
    Ok(headed(table(&header, &rows), noheading))
}

/// Renders one value through a Go template; `json` is the whole value.
///
/// Functions beside Go's own, as Docker has them: `json`, `join`, `lower`, `upper`, `split`,
/// `truncate TEXT LENGTH`, `pad TEXT BEFORE AFTER`, and `.Label "KEY"`: the value among `LabelMap` or
/// `Labels`, or nothing.
///
/// # Errors
/// The template does not parse, or names what the value does not have.
pub fn template(template: &str, value: &Value) -> Result<String, Error> {
    if template == "json" {
        return Ok(from_template(Some(&to_template(value))).to_string());
    }
    let template = template.replace("\\n", "\n").replace("\\t", "\t");
    // A method in docker; a function here.
    let template = template.replace(".Label \"", "label . \"");
    let render = || {
        gotmpl::Template::new("format")
            .func("json", |args| Ok(text(from_template(args.first()).to_string())))
            .func("lower", |args| Ok(text(string(args.first()).to_lowercase())))
            .func("upper", |args| Ok(text(string(args.first()).to_uppercase())))
            .func("join", |args| Ok(text(join(args))))
            .func("split", |args| Ok(split(args)))
            .func("label", |args| Ok(label(args)))
            .func("truncate", |args| Ok(truncate(args)))
            .func("pad", |args| Ok(pad(args)))
            .func("printf", printf)
            .func("index", index)
            .missing_key(gotmpl::MissingKey::Error)
            .parse(&template)?
            .execute_to_string(&to_template(value))
    };
    // What is null prints as nothing; what is not there is an error.
    let rendered = render().map(|text| {
        with_spans(&without_go_names(text).replace("<no value>", "").replace(EMPTY_STRUCT, "{}"))
    });
    rendered.map_err(|error| Error { template: template.clone(), reason: error.to_string() })
}

/// Lets templates call fields by the names that they have in Go, too; a field that is not there is
/// null, as in Go it is empty. JSON shows them once, by their own names.
pub fn name_fields(object: &mut Value, names: &[(&str, &str)]) {
    let Some(fields) = object.as_object_mut() else { return };
    let value = |own: &str| fields.get(own).cloned().unwrap_or_default();
    let named = names.iter().map(|(own, go)| (*go, value(own)));
    let named: Vec<(&str, Value)> = named.filter(|(go, _)| !fields.contains_key(*go)).collect();
    let mut listed: Vec<Value> = fields.remove(GO_NAMES).into_iter().flat_map(list).collect();
    listed.extend(named.iter().map(|(go, _)| Value::from(*go)));
    fields.insert(GO_NAMES.to_owned(), listed.into());
    fields.extend(named.into_iter().map(|(go, value)| (go.to_owned(), value)));
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// Leaves out what [`name_fields`] notes where a whole object is printed.
fn without_go_names(mut text: String) -> String {
    while let Some(at) = text.find(GO_NAMES) {
        let end = text[at..].find(']').map_or(text.len(), |end| at + end + 1);
        let end = end + usize::from(text[end..].starts_with(' '));
        text.replace_range(at..end, "");
    }
    text
}

/// Where the names are that an object has for templates only. No field is called so.
const GO_NAMES: &str = "\0go";

/// Stands for Go's empty struct, which prints as `{}` where an empty map prints as `map[]`. No text
/// of a document has this character, which Unicode reserves for such uses.
const EMPTY_STRUCT: &str = "\u{fdd0}";

/// Stands in front of nanoseconds that Go prints as a span of time; another such character.
const SPAN: char = '\u{fdd1}';

/// A span of time of a health check: Go keeps it as a number and prints it as text.
fn span(
    fields: &serde_json::Map<String, Value>,
    key: &str,
    value: &Value,
) -> Option<gotmpl::Value> {
    let spans = ["Interval", "Timeout", "StartPeriod", "StartInterval"];
    let is_span = spans.contains(&key) && fields.contains_key("Test");
    let nanoseconds = value.as_i64().filter(|_| is_span)?;
    Some(text(format!("{SPAN}{nanoseconds}")))
}

/// The nanoseconds of a [`span`].
fn nanoseconds(value: &gotmpl::Value) -> Option<i64> {
    let gotmpl::Value::String(text) = value else { return None };
    text.strip_prefix(SPAN)?.parse().ok()
}

/// The text with spans of time as Go prints them.
fn with_spans(text: &str) -> String {
    let mut parts = text.split(SPAN);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(part.len());
        let (number, rest) = part.split_at(digits);
        out += &go_span(number.parse().unwrap_or_default());
        out += rest;
    }
    out
}

/// Whether these are the fields of a Go `map[string]struct{}`, as of ports and volumes.
fn is_set(fields: &serde_json::Map<String, Value>) -> bool {
    let empty = |value: &Value| value.as_object().is_some_and(serde_json::Map::is_empty);
    !fields.is_empty() && fields.values().all(empty)
}

fn text(text: String) -> gotmpl::Value {
    gotmpl::Value::String(text.into())
}

fn string(value: Option<&gotmpl::Value>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn join(args: &[gotmpl::Value]) -> String {
    let separator = string(args.get(1));
    match args.first() {
        Some(gotmpl::Value::List(items)) => {
            items.iter().map(ToString::to_string).collect::<Vec<_>>().join(&separator)
        }
        other => string(other),
    }
}

/// Go's `printf`; `%q` quotes the texts in lists and maps as well.
fn printf(args: &[gotmpl::Value]) -> Result<gotmpl::Value, gotmpl::TemplateError> {
    let (form, mut values) = (string(args.first()), args.get(1..).unwrap_or_default().to_vec());
    let (mut changed, mut at, mut verb) = (String::new(), 0, false);
    for c in form.chars() {
        let ends = verb && (c.is_ascii_alphabetic() || c == '%');
        let composite = values
            .get(at)
            .is_some_and(|value| matches!(value, gotmpl::Value::List(_) | gotmpl::Value::Map(_)));
        let span = values.get(at).and_then(nanoseconds).filter(|_| ends && c == 'd');
        if let Some(span) = span {
            values[at] = gotmpl::Value::Int(span);
        }
        if ends && c == 'q' && composite {
            values[at] = text(quoted(&values[at]));
            changed.push('s');
        } else {
            changed.push(c);
        }
        at += usize::from(ends && c != '%');
        verb = if verb { !ends } else { c == '%' };
    }
    // Go's own, which a function of that name hides.
    let names: Vec<String> = (0..values.len()).map(|number| format!("v{number}")).collect();
    let call = names.iter().fold("{{printf .form".to_owned(), |call, name| call + " ." + name);
    let fields = names.iter().map(|name| name.as_str().into()).zip(values);
    let form = std::iter::once(("form".into(), text(changed)));
    let all: std::collections::BTreeMap<_, _> = form.chain(fields).collect();
    let all = gotmpl::Value::Map(all.into());
    Ok(text(gotmpl::Template::new("printf").parse(&(call + "}}"))?.execute_to_string(&all)?))
}

/// Go's `index`; of a value alone it is the value.
fn index(args: &[gotmpl::Value]) -> Result<gotmpl::Value, gotmpl::TemplateError> {
    let [whole, keys @ ..] = args else { return Ok(gotmpl::Value::Nil) };
    keys.iter().try_fold(whole.clone(), |value, key| value.index(key))
}

/// A value as `%q` prints it.
fn quoted(value: &gotmpl::Value) -> String {
    match value {
        gotmpl::Value::String(text) if &**text == EMPTY_STRUCT => EMPTY_STRUCT.to_owned(),
        gotmpl::Value::String(text) => format!("{:?}", &**text),
        gotmpl::Value::List(items) => {
            format!("[{}]", items.iter().map(quoted).collect::<Vec<_>>().join(" "))
        }
        gotmpl::Value::Map(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{key:?}:{}", quoted(value)));
            format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

fn split(args: &[gotmpl::Value]) -> gotmpl::Value {
    let (whole, separator) = (string(args.first()), string(args.get(1)));
    let parts: Vec<_> = whole.split(&separator).map(|part| text(part.to_owned())).collect();
    gotmpl::Value::List(parts.into())
}

fn label(args: &[gotmpl::Value]) -> gotmpl::Value {
    let key = string(args.get(1));
    let labels = match args.first() {
        Some(gotmpl::Value::Map(row)) => row.get("LabelMap").or_else(|| row.get("Labels")),
        _ => None,
    };
    match labels {
        Some(gotmpl::Value::Map(labels)) => labels.get(key.as_str()).cloned(),
        _ => None,
    }
    .unwrap_or_else(|| text(String::new()))
}

fn number(value: Option<&gotmpl::Value>) -> usize {
    match value {
        Some(gotmpl::Value::Int(number)) => usize::try_from(*number).unwrap_or(0),
        _ => 0,
    }
}

fn truncate(args: &[gotmpl::Value]) -> gotmpl::Value {
    text(string(args.first()).chars().take(number(args.get(1))).collect())
}

fn pad(args: &[gotmpl::Value]) -> gotmpl::Value {
    // No more than a screen is wide.
    let blanks = |index| " ".repeat(number(args.get(index)).min(1_000));
    match string(args.first()) {
        empty if empty.is_empty() => text(empty),
        some => text(format!("{}{some}{}", blanks(1), blanks(2))),
    }
}

fn to_template(value: &Value) -> gotmpl::Value {
    match value {
        Value::Null => gotmpl::Value::Nil,
        Value::Bool(value) => gotmpl::Value::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => gotmpl::Value::Int(value),
            (None, Some(value)) => gotmpl::Value::Uint(value),
            (None, None) => gotmpl::Value::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(value) => gotmpl::Value::String(value.as_str().into()),
        Value::Array(items) => {
            gotmpl::Value::List(items.iter().map(to_template).collect::<Vec<_>>().into())
        }
        Value::Object(fields) => gotmpl::Value::Map(
            fields
                .iter()
                .map(|(key, value)| match (is_set(fields), span(fields, key, value)) {
                    (true, _) => (key.as_str().into(), text(EMPTY_STRUCT.to_owned())),
                    (false, Some(span)) => (key.as_str().into(), span),
                    (false, None) => (key.as_str().into(), to_template(value)),
                })
                .collect::<std::collections::BTreeMap<_, _>>()
                .into(),
        ),
    }
}

fn from_template(value: Option<&gotmpl::Value>) -> Value {
    match value {
        Some(gotmpl::Value::Bool(value)) => (*value).into(),
        Some(gotmpl::Value::Int(value)) => (*value).into(),
        Some(gotmpl::Value::Uint(value)) => (*value).into(),
        Some(gotmpl::Value::Float(value)) => (*value).into(),
        Some(gotmpl::Value::String(value)) if &**value == EMPTY_STRUCT => {
            Value::Object(serde_json::Map::new())
        }
        Some(value @ gotmpl::Value::String(content)) => match nanoseconds(value) {
            Some(span) => span.into(),
            None => content.to_string().into(),
        },
        Some(gotmpl::Value::List(items)) => {
            items.iter().map(|item| from_template(Some(item))).collect()
        }
        Some(gotmpl::Value::Map(fields)) => {
            let all =
                fields.iter().map(|(key, value)| (key.to_string(), from_template(Some(value))));
            let mut all: serde_json::Map<String, Value> = all.collect();
            let go_names = all.remove(GO_NAMES).into_iter().flat_map(list);
            go_names.for_each(|name| drop(name.as_str().and_then(|name| all.remove(name))));
            Value::Object(all)
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_read_as_docker_reads_them() {
        let value = json!({"Id": "x", "Size": 7, "Env": ["A=1", "B=2"], "Labels": {"a": "b"},
            "Ports": {"80/tcp": {}}, "None": {}});
        let cases = [
            ("{{.Id}}", "x"),
            (
                "{{printf \"%q %s %q %5d%%\" .Env .Id .Labels .Size}}",
                "[\"A=1\" \"B=2\"] x map[\"a\":\"b\"]     7%",
            ),
            ("{{index .Env}} {{index .Env 1}} {{index .Labels \"a\"}}", "[A=1 B=2] B=2 b"),
            ("{{printf \"%q\" .Id}}", "\"x\""),
            (
                "{{.Ports}} {{json .Ports}} {{printf \"%q\" .None}} {{.None}}",
                "map[80/tcp:{}] {\"80/tcp\":{}} map[] map[]",
            ),
            ("{{ .Size }}\\n", "7\n"),
            ("{{json .Labels}}", r#"{"a":"b"}"#),
            ("{{range .Env}}{{.}};{{end}}", "A=1;B=2;"),
            (r#"{{join .Env ","}}"#, "A=1,B=2"),
            (r#"{{index .Labels "a"}}"#, "b"),
            ("{{upper .Id}}", "X"),
            (r#"{{.Label "a"}}{{.Label "z"}}"#, "b"),
            (r#"{{truncate "docker" 3}}|{{pad "x" 1 2}}"#, "doc| x  "),
        ];
        for (source, expected) in cases {
            assert_eq!(template(source, &value).unwrap(), expected, "{source}");
        }
        assert!(template("{{.Id", &value).is_err());
        let nothing = json!({"Id": null, "Labels": {}});
        assert_eq!(template("<{{.Id}}>", &nothing).unwrap(), "<>");
        for missing in ["{{.Nope}}", "{{.Labels.nope}}", "{{if .Nope}}x{{end}}"] {
            assert!(template(missing, &nothing).is_err(), "{missing}");
        }
    }

    #[test]
    fn templates_give_lines_or_tables() {
        let values = [json!({"Id": "x", "Size": 7}), json!({"Id": "longer", "Size": 8})];
        let headers = [("Id", "IMAGE ID"), ("Size", "SIZE")];
        let show = |source, noheading| lines(source, &values, &headers, noheading).unwrap();
        assert_eq!(show("{{.Id}}", false), "x\nlonger\n");
        let table = "IMAGE ID  SIZE\nx         7\nlonger    8\n";
        assert_eq!(show("table {{.Id}}\\t{{.Size}}", false), table);
        assert_eq!(show("table {{.Id}}", true), "x\nlonger\n");
        assert!(lines("table {{.Id", &values, &headers, false).is_err());
    }

    #[test]
    fn fields_have_their_names_of_go_in_templates_only() {
        let mut value = json!({"mediaType": "a", "Size": 1, "size": 2});
        name_fields(&mut value, &[("mediaType", "MediaType"), ("size", "Size"), ("none", "None")]);
        name_fields(&mut value, &[("size", "Length")]);
        let document = json!({"Manifest": value});
        let rendered = |source: &str| template(source, &document).unwrap();
        assert_eq!(
            rendered("{{.Manifest.MediaType}} {{.Manifest.Size}} {{.Manifest.Length}}"),
            "a 1 2"
        );
        let own = r#"{"Size":1,"mediaType":"a","size":2}"#;
        assert_eq!(rendered("{{json .Manifest}}"), own);
        assert_eq!(rendered("json"), format!(r#"{{"Manifest":{own}}}"#));
        assert_eq!(
            rendered("{{.Manifest}} {{.Manifest}}"),
            "map[Length:2 MediaType:a None:<nil> Size:1 mediaType:a size:2] ".repeat(2).trim_end()
        );
        assert_eq!(rendered("{{.Manifest.None}}"), "");
        assert!(template("{{.Manifest.Other}}", &document).is_err());
    }
}
