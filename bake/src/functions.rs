//! Functions that expressions of bake files may call.
#![allow(clippy::needless_pass_by_value, reason = "functions have the type that hcl wants")]

use hcl::Value;
use hcl::eval::{Context, Func, FuncArgs, FuncDef, ParamType};

pub(crate) type FunctionResult = Result<Value, String>;

/// Declares all of them.
pub(crate) fn declare(context: &mut Context<'_>) {
    let one: &[(&str, Func)] = &[
        ("upper", |args| text(&args, 0).map(|text| text.to_uppercase().into())),
        ("lower", |args| text(&args, 0).map(|text| text.to_lowercase().into())),
        ("trimspace", |args| text(&args, 0).map(|text| text.trim().into())),
        ("chomp", |args| text(&args, 0).map(|text| text.trim_end_matches(['\r', '\n']).into())),
        ("not", |args| truth(&args, 0).map(|truth| Value::from(!truth))),
        ("length", length),
        ("distinct", distinct),
        ("sanitize", sanitize),
    ];
    let two: &[(&str, Func)] = &[
        ("trimprefix", |args| {
            let (text, with) = (text(&args, 0)?, text(&args, 1)?);
            Ok(text.strip_prefix(&*with).unwrap_or(&text).into())
        }),
        ("trimsuffix", |args| {
            let (text, with) = (text(&args, 0)?, text(&args, 1)?);
            Ok(text.strip_suffix(&*with).unwrap_or(&text).into())
        }),
        ("equal", |args| Ok(Value::from(args[0] == args[1]))),
        ("notequal", |args| Ok(Value::from(args[0] != args[1]))),
        ("and", |args| Ok(Value::from(truth(&args, 0)? && truth(&args, 1)?))),
        ("or", |args| Ok(Value::from(truth(&args, 0)? || truth(&args, 1)?))),
        ("split", |args| {
            let (by, text) = (text(&args, 0)?, text(&args, 1)?);
            Ok(Value::Array(text.split(&*by).map(Value::from).collect()))
        }),
        ("join", |args| Ok(strings(&args[1])?.join(&text(&args, 0)?).into())),
        ("contains", |args| {
            let items = args[0].as_array().ok_or("contains takes a list and a value")?;
            Ok(Value::from(items.contains(&args[1])))
        }),
    ];
    for (functions, count) in [(one, 1), (two, 2)] {
        for (name, function) in functions {
            let any = std::iter::repeat_n(ParamType::Any, count);
            context.declare_func(*name, FuncDef::builder().params(any).build(*function));
        }
    }
    let any = std::iter::repeat_n(ParamType::Any, 3);
    context.declare_func("replace", FuncDef::builder().params(any).build(replace));
    for (name, function) in [("concat", concat as Func), ("coalesce", coalesce), ("merge", merge)] {
        let many = FuncDef::builder().variadic_param(ParamType::Any).build(function);
        context.declare_func(name, many);
    }
}

pub(crate) fn text(args: &FuncArgs, at: usize) -> Result<String, String> {
    match &args[at] {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        other => Err(format!("{other} is no text")),
    }
}

fn truth(args: &FuncArgs, at: usize) -> Result<bool, String> {
    args[at].as_bool().ok_or_else(|| format!("{} is neither true nor false", args[at]))
}

pub(crate) fn strings(value: &Value) -> Result<Vec<String>, String> {
    let items = value.as_array().ok_or_else(|| format!("{value} is no list"))?;
    Ok(items
        .iter()
        .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
        .collect())
}

fn length(args: FuncArgs) -> FunctionResult {
    match &args[0] {
        Value::Array(items) => Ok(Value::from(items.len())),
        Value::Object(fields) => Ok(Value::from(fields.len())),
        Value::String(text) => Ok(Value::from(text.chars().count())),
        other => Err(format!("{other} has no length")),
    }
}

fn distinct(args: FuncArgs) -> FunctionResult {
    let mut seen: Vec<Value> = Vec::new();
    for item in args[0].as_array().ok_or("distinct takes a list")? {
        if !seen.contains(item) {
            seen.push(item.clone());
        }
    }
    Ok(Value::Array(seen))
}

/// A text as the name of a target: other characters become `_`.
fn sanitize(args: FuncArgs) -> FunctionResult {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    Ok(text(&args, 0)?.chars().map(plain).collect::<String>().into())
}

fn replace(args: FuncArgs) -> FunctionResult {
    Ok(text(&args, 0)?.replace(&text(&args, 1)?, &text(&args, 2)?).into())
}

fn concat(args: FuncArgs) -> FunctionResult {
    let mut all = Vec::new();
    for list in args.iter() {
        all.extend_from_slice(list.as_array().ok_or("concat takes lists")?);
    }
    Ok(Value::Array(all))
}

fn coalesce(args: FuncArgs) -> FunctionResult {
    let empty = |value: &&Value| !value.is_null() && value.as_str() != Some("");
    args.iter().find(empty).cloned().ok_or_else(|| "coalesce finds no value".to_owned())
}

fn merge(args: FuncArgs) -> FunctionResult {
    let mut all = hcl::Map::new();
    for object in args.iter() {
        let fields = object.as_object().ok_or("merge takes objects")?;
        all.extend(fields.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    Ok(Value::Object(all))
}
