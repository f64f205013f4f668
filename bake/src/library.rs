//! Functions of HCL's standard library, as docker buildx has them: of texts, numbers, lists and
//! objects.
#![allow(clippy::needless_pass_by_value, reason = "functions have the type that hcl wants")]

use hcl::eval::{Context, Func, FuncArgs, FuncDef, ParamType};
use hcl::{Map, Number, Value};
use regex::Regex;

use crate::functions::{FunctionResult, strings, text};

/// Functions by the number of their arguments; `None` for any number.
const FUNCTIONS: &[(&str, Option<usize>, Func)] = &[
    ("title", Some(1), |args| Ok(title(&text(&args, 0)?).into())),
    ("strlen", Some(1), |args| Ok(Value::from(text(&args, 0)?.chars().count()))),
    ("reverse", Some(1), reverse),
    ("substr", Some(3), substr),
    ("trim", Some(2), |args| {
        let cut = text(&args, 1)?;
        Ok(text(&args, 0)?.trim_matches(|c| cut.contains(c)).into())
    }),
    ("format", None, format),
    ("indent", Some(2), |args| {
        let blanks = " ".repeat(size(&args, 0)?);
        Ok(text(&args, 1)?.replace('\n', &format!("\n{blanks}")).into())
    }),
    ("regex", Some(2), |args| {
        let (pattern, text) = (pattern(&args, 0)?, text(&args, 1)?);
        let found = pattern.captures(&text).ok_or("regex: the pattern does not match")?;
        Ok(captured(&pattern, &found))
    }),
    ("regexall", Some(2), |args| {
        let (pattern, text) = (pattern(&args, 0)?, text(&args, 1)?);
        Ok(Value::Array(pattern.captures_iter(&text).map(|one| captured(&pattern, &one)).collect()))
    }),
    ("regex_replace", Some(3), |args| {
        let (text, with) = (text(&args, 0)?, text(&args, 2)?);
        Ok(pattern(&args, 1)?.replace_all(&text, &*with).as_ref().into())
    }),
    ("basename", Some(1), |args| {
        let path = text(&args, 0)?;
        Ok(path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().into())
    }),
    ("dirname", Some(1), |args| {
        let path = text(&args, 0)?;
        Ok(path.trim_end_matches('/').rsplit_once('/').map_or(".", |(above, _)| above).into())
    }),
    ("urlencode", Some(1), |args| Ok(urlencode(&text(&args, 0)?).into())),
    ("jsonencode", Some(1), |args| {
        serde_json::to_string(&args[0]).map(Value::from).map_err(|error| error.to_string())
    }),
    ("jsondecode", Some(1), |args| {
        serde_json::from_str(&text(&args, 0)?).map_err(|error| format!("jsondecode: {error}"))
    }),
    ("add", Some(2), |args| reckon(&args, |a, b| a + b)),
    ("subtract", Some(2), |args| reckon(&args, |a, b| a - b)),
    ("multiply", Some(2), |args| reckon(&args, |a, b| a * b)),
    ("divide", Some(2), |args| reckon(&args, |a, b| a / b)),
    ("modulo", Some(2), |args| reckon(&args, |a, b| a % b)),
    ("pow", Some(2), |args| reckon(&args, f64::powf)),
    ("negate", Some(1), |args| shown(-number(&args[0])?)),
    ("abs", Some(1), |args| shown(number(&args[0])?.abs())),
    ("absolute", Some(1), |args| shown(number(&args[0])?.abs())),
    ("ceil", Some(1), |args| shown(number(&args[0])?.ceil())),
    ("floor", Some(1), |args| shown(number(&args[0])?.floor())),
    ("int", Some(1), |args| shown(number(&args[0])?.trunc())),
    ("min", None, |args| extreme(&args, f64::min)),
    ("max", None, |args| extreme(&args, f64::max)),
    ("lessthan", Some(2), |args| Ok((number(&args[0])? < number(&args[1])?).into())),
    ("greaterthan", Some(2), |args| Ok((number(&args[0])? > number(&args[1])?).into())),
    ("lessthanorequalto", Some(2), |args| Ok((number(&args[0])? <= number(&args[1])?).into())),
    ("greaterthanorequalto", Some(2), |args| Ok((number(&args[0])? >= number(&args[1])?).into())),
    ("sort", Some(1), |args| {
        let mut all = strings(&args[0])?;
        all.sort();
        Ok(all.into_iter().map(Value::from).collect())
    }),
    ("compact", Some(1), |args| {
        let all = strings(&args[0])?.into_iter().filter(|item| !item.is_empty());
        Ok(all.map(Value::from).collect())
    }),
    ("flatten", Some(1), |args| {
        let mut all = Vec::new();
        flatten(&args[0], &mut all);
        Ok(Value::Array(all))
    }),
    ("slice", Some(3), |args| {
        let (from, to) = (size(&args, 1)?, size(&args, 2)?);
        let part = list(&args[0])?.get(from..to).ok_or("slice: the list is shorter")?;
        Ok(Value::Array(part.to_vec()))
    }),
    ("element", Some(2), |args| {
        let (all, at) = (list(&args[0])?, size(&args, 1)?);
        let at = at.checked_rem(all.len()).ok_or("element: the list is empty")?;
        Ok(all[at].clone())
    }),
    ("range", None, range),
    ("keys", Some(1), |args| Ok(object(&args[0])?.keys().map(|key| Value::from(&**key)).collect())),
    ("values", Some(1), |args| Ok(object(&args[0])?.values().cloned().collect())),
    ("lookup", Some(3), |args| {
        Ok(object(&args[0])?.get(&text(&args, 1)?).unwrap_or(&args[2]).clone())
    }),
    ("zipmap", Some(2), |args| {
        let keys = strings(&args[0])?;
        Ok(Value::Object(keys.into_iter().zip(list(&args[1])?.iter().cloned()).collect()))
    }),
    ("index", Some(2), |args| at(&args).ok_or_else(|| format!("{} has no {}", args[0], args[1]))),
    ("hasindex", Some(2), |args| Ok(at(&args).is_some().into())),
];

/// Declares all of them.
pub(crate) fn declare(context: &mut Context<'_>) {
    for (name, count, function) in FUNCTIONS {
        let builder = FuncDef::builder();
        let function = match count {
            Some(count) => {
                builder.params(std::iter::repeat_n(ParamType::Any, *count)).build(*function)
            }
            None => builder.variadic_param(ParamType::Any).build(*function),
        };
        context.declare_func(*name, function);
    }
}

fn list(value: &Value) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("{value} is no list"))
}

fn object(value: &Value) -> Result<&Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{value} is no object"))
}

fn number(value: &Value) -> Result<f64, String> {
    let read = match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_number().and_then(Number::as_f64),
    };
    read.ok_or_else(|| format!("{value} is no number"))
}

/// A number that counts something.
fn size(args: &FuncArgs, at: usize) -> Result<usize, String> {
    let number = number(&args[at])?;
    let whole = number.fract() == 0.0 && (0.0..1e9).contains(&number);
    if whole { Ok(number as usize) } else { Err(format!("{number} counts nothing")) }
}

/// A number, without a fraction if it has none.
fn shown(number: f64) -> FunctionResult {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        return Ok(Value::from(number as i64));
    }
    Number::from_f64(number).map(Value::Number).ok_or_else(|| "the result is no number".to_owned())
}

fn reckon(args: &FuncArgs, with: fn(f64, f64) -> f64) -> FunctionResult {
    shown(with(number(&args[0])?, number(&args[1])?))
}

fn extreme(args: &FuncArgs, with: fn(f64, f64) -> f64) -> FunctionResult {
    let numbers = args.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    numbers.into_iter().reduce(with).map_or_else(|| Err("there is no number".to_owned()), shown)
}

fn range(args: FuncArgs) -> FunctionResult {
    let given = args.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    let (from, to, step) = match given[..] {
        [to] => (0.0, to, if to < 0.0 { -1.0 } else { 1.0 }),
        [from, to] => (from, to, if to < from { -1.0 } else { 1.0 }),
        [from, to, step] => (from, to, step),
        _ => return Err("range takes one to three numbers".to_owned()),
    };
    let count = ((to - from) / step).ceil();
    if !(0.0..=1024.0).contains(&count) {
        return Err("range: it would have more than 1024 numbers".to_owned());
    }
    (0..count as u32).map(|at| shown(from + f64::from(at) * step)).collect()
}

fn title(text: &str) -> String {
    let mut first = true;
    let upper = |c: char| {
        let upper = std::mem::replace(&mut first, c.is_whitespace()) && c.is_lowercase();
        if upper { c.to_uppercase().to_string() } else { c.to_string() }
    };
    text.chars().map(upper).collect()
}

fn reverse(args: FuncArgs) -> FunctionResult {
    match &args[0] {
        Value::Array(items) => Ok(items.iter().rev().cloned().collect()),
        _ => Ok(text(&args, 0)?.chars().rev().collect::<String>().into()),
    }
}

/// A part of a text; a negative start counts from the end, a negative length is the rest.
fn substr(args: FuncArgs) -> FunctionResult {
    let all: Vec<char> = text(&args, 0)?.chars().collect();
    let (from, length) = (number(&args[1])? as i64, number(&args[2])? as i64);
    let count = i64::try_from(all.len()).unwrap_or(i64::MAX);
    let from = if from < 0 { (count + from).max(0) } else { from.min(count) };
    let to = if length < 0 { count } else { (from + length).min(count) };
    Ok(all[from as usize..to as usize].iter().collect::<String>().into())
}

/// `format`: `%s`, `%v`, `%d`, `%q`, `%%`, with a width and leading zeros.
fn format(args: FuncArgs) -> FunctionResult {
    let mut left = args.iter();
    let pattern = left.next().and_then(Value::as_str).ok_or("format takes a text first")?;
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut width = String::new();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            width.push(digit);
        }
        let verb = chars.next().ok_or("format: nothing follows %")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = left.next().ok_or("format: there are too few values")?;
        let shown = match (verb, value) {
            ('s' | 'v', Value::String(text)) => text.clone(),
            ('s' | 'v', value) => {
                serde_json::to_string(value).map_err(|error| error.to_string())?
            }
            ('d', value) => shown(number(value)?.trunc())?.to_string(),
            ('q', value) => serde_json::to_string(value).map_err(|error| error.to_string())?,
            (other, _) => return Err(format!("format: %{other} is not supported")),
        };
        let fill = if width.starts_with('0') { '0' } else { ' ' };
        let missing = width.parse().unwrap_or(0_usize).min(1024);
        out.extend(std::iter::repeat_n(fill, missing.saturating_sub(shown.chars().count())));
        out.push_str(&shown);
    }
    Ok(out.into())
}

fn pattern(args: &FuncArgs, at: usize) -> Result<Regex, String> {
    let source = text(args, at)?;
    Regex::new(&source).map_err(|error| format!("{source:?} is no pattern: {error}"))
}

/// What a pattern found: the whole, its groups as a list, or its named groups as an object.
fn captured(pattern: &Regex, found: &regex::Captures<'_>) -> Value {
    let one =
        |part: Option<regex::Match<'_>>| part.map_or(Value::Null, |part| part.as_str().into());
    let named = pattern.capture_names().flatten();
    let named: Map<String, Value> =
        named.map(|name| (name.to_owned(), one(found.name(name)))).collect();
    match found.len() {
        _ if !named.is_empty() => Value::Object(named),
        1 => one(found.get(0)),
        count => (1..count).map(|at| one(found.get(at))).collect(),
    }
}

fn urlencode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let one = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

fn flatten(value: &Value, into: &mut Vec<Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        other => into.push(other.clone()),
    }
}

/// The item of a list at a place, or of an object at a key.
fn at(args: &FuncArgs) -> Option<Value> {
    match &args[0] {
        Value::Array(items) => items.get(size(args, 1).ok()?).cloned(),
        Value::Object(fields) => fields.get(&text(args, 1).ok()?).cloned(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hcl::eval::Evaluate;

    use super::*;

    fn value(expression: &str) -> Result<serde_json::Value, String> {
        let mut context = Context::new();
        declare(&mut context);
        crate::functions::declare(&mut context);
        let body = hcl::parse(&format!("x = {expression}")).map_err(|error| error.to_string())?;
        let attribute = body.into_attributes().next().ok_or("no attribute")?;
        let read = attribute.expr.evaluate(&context).map_err(|error| error.to_string())?;
        serde_json::to_value(read).map_err(|error| error.to_string())
    }

    #[test]
    fn functions_are_those_of_the_standard_library() {
        for (expression, wanted) in [
            (r#"title("hello big world")"#, r#""Hello Big World""#),
            (r#"substr("hello", 1, 3)"#, r#""ell""#),
            (r#"substr("hello", -3, -1)"#, r#""llo""#),
            (r#"reverse([1, 2])"#, "[2,1]"),
            (r#"trim("--x-", "-")"#, r#""x""#),
            (r#"format("%s-%03d%%", "v", 7)"#, r#""v-007%""#),
            (r#"format("%v", [1])"#, r#""[1]""#),
            (r#"regex("v([0-9]+)[.]([0-9]+)", "v12.3")"#, r#"["12","3"]"#),
            (r#"regex("(?P<major>[0-9]+)", "v12")"#, r#"{"major":"12"}"#),
            (r#"regexall("[0-9]+", "1a22")"#, r#"["1","22"]"#),
            (r#"regex_replace("a-b.c", "[-.]", "_")"#, r#""a_b_c""#),
            (r#"basename("a/b/")"#, r#""b""#),
            (r#"dirname("a/b")"#, r#""a""#),
            (r#"urlencode("a b/ä")"#, r#""a+b%2F%C3%A4""#),
            (r#"jsondecode("{\"a\": [1]}")"#, r#"{"a":[1]}"#),
            (r#"jsonencode({a = [1]})"#, r#""{\"a\":[1]}""#),
            ("add(1, 2)", "3"),
            ("divide(1, 4)", "0.25"),
            (r#"modulo("7", 4)"#, "3"),
            ("max(1, 5, 3)", "5"),
            ("floor(1.7)", "1"),
            ("greaterthan(2, 1)", "true"),
            (r#"sort(["b", "a"])"#, r#"["a","b"]"#),
            (r#"compact(["", "a"])"#, r#"["a"]"#),
            ("flatten([[1], [[2]], 3])", "[1,2,3]"),
            ("slice([1, 2, 3], 1, 3)", "[2,3]"),
            ("element([1, 2], 3)", "2"),
            ("range(1, 4)", "[1,2,3]"),
            ("keys({a = 1, b = 2})", r#"["a","b"]"#),
            ("values({a = 1, b = 2})", "[1,2]"),
            (r#"lookup({a = 1}, "b", 9)"#, "9"),
            (r#"zipmap(["a"], [1])"#, r#"{"a":1}"#),
            (r#"index({a = 1}, "a")"#, "1"),
            ("hasindex([1], 1)", "false"),
        ] {
            let wanted: serde_json::Value = serde_json::from_str(wanted).unwrap();
            assert_eq!(value(expression), Ok(wanted), "{expression}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_an_error() {
        for expression in [
            "divide(1, 0)",
            "range(0, 1, 0)",
            "range(9999)",
            r#"regex("(", "x")"#,
            r#"regex("y", "x")"#,
            r#"format("%s")"#,
            r#"format("%z", 1)"#,
            "element([], 0)",
            "slice([1], 0, 2)",
            r#"add("x", 1)"#,
            "element([1], 0.5)",
            "max()",
        ] {
            assert!(value(expression).is_err(), "{expression}");
        }
    }
}
