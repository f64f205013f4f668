//! Functions that bake files declare, and those of the clock.
//!
//! A function of `hcl` is a plain function pointer: it has no state. What these need is kept for the
//! thread while a model is evaluated, and each declared function has a place with a pointer of its
//! own.
#![allow(clippy::needless_pass_by_value, reason = "functions have the type that hcl wants")]

use std::cell::{Cell, RefCell};

use hcl::eval::{Context, Evaluate, Func, FuncArgs, FuncDef, ParamType};
use hcl::{Expression, Identifier, Value};
use jiff::{SignedDuration, Timestamp};

use crate::functions::{FunctionResult, text};

/// How many functions files may declare.
const MOST: usize = 32;
/// How deep they may call each other.
const DEPTH: usize = 64;

/// A `function` block of a bake file.
#[derive(Debug, Clone)]
pub(crate) struct UserFunction {
    pub(crate) name: String,
    pub(crate) params: Vec<String>,
    pub(crate) variadic: Option<String>,
    pub(crate) result: Expression,
}

#[derive(Default)]
struct Evaluation {
    now: String,
    functions: Vec<UserFunction>,
    context: Option<Context<'static>>,
}

thread_local! {
    static STATE: RefCell<Evaluation> = RefCell::default();
    static DEEP: Cell<usize> = const { Cell::new(0) };
}

/// Functions can be called on this thread until this is dropped.
pub(crate) struct Callable;

impl Drop for Callable {
    fn drop(&mut self) {
        STATE.take();
    }
}

impl UserFunction {
    /// A function of the attributes of its block.
    pub(crate) fn new(
        name: &str,
        mut attributes: crate::file::Attributes,
    ) -> Result<UserFunction, String> {
        let wrong = |what: &str| format!("function {name:?}: {what}");
        let params = match attributes.remove("params") {
            Some(Expression::Array(params)) => params,
            None => Vec::new(),
            Some(_) => return Err(wrong("params is no list")),
        };
        let params = params.iter().map(word).collect::<Option<Vec<_>>>();
        let params = params.ok_or_else(|| wrong("a parameter is no name"))?;
        let variadic = match attributes.remove("variadic_params") {
            Some(name) => Some(word(&name).ok_or_else(|| wrong("variadic_params is no name"))?),
            None => None,
        };
        let result = attributes.remove("result").ok_or_else(|| wrong("it has no result"))?;
        match attributes.keys().next() {
            Some(key) => Err(wrong(&format!("{key} is not known"))),
            None => Ok(UserFunction { name: name.to_owned(), params, variadic, result }),
        }
    }
}

fn word(expression: &Expression) -> Option<String> {
    match expression {
        Expression::Variable(name) => Some(name.to_string()),
        Expression::String(name) => Some(name.clone()),
        _ => None,
    }
}

/// Declares the functions of the clock, and those of the files.
///
/// # Errors
/// There are too many.
pub(crate) fn declare(
    context: &mut Context<'static>,
    functions: &[UserFunction],
    now: Timestamp,
) -> Result<Callable, String> {
    if functions.len() > MOST {
        return Err(format!("more than {MOST} functions are declared"));
    }
    context.declare_func("timestamp", FuncDef::builder().build(timestamp));
    let two = FuncDef::builder().params([ParamType::Any, ParamType::Any]);
    context.declare_func("timeadd", two.build(timeadd));
    for (declared, function) in functions.iter().zip(PLACES) {
        let params = declared.params.iter().map(|_| ParamType::Any);
        let builder = FuncDef::builder().params(params);
        let name = Identifier::sanitized(&declared.name);
        context.declare_func(
            name,
            match declared.variadic {
                Some(_) => builder.variadic_param(ParamType::Any).build(function),
                None => builder.build(function),
            },
        );
    }
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    STATE.set(Evaluation { now, functions: functions.to_vec(), context: None });
    know(context);
    Ok(Callable)
}

/// Lets functions see the variables that there are by now.
pub(crate) fn know(context: &Context<'static>) {
    STATE.with_borrow_mut(|state| state.context = Some(context.clone()));
}

fn call<const AT: usize>(args: FuncArgs) -> FunctionResult {
    let known =
        STATE.with_borrow(|state| Some((state.functions.get(AT)?.clone(), state.context.clone()?)));
    let (declared, mut context) = known.ok_or("the function is not declared")?;
    let mut args = args.iter().cloned();
    for (param, value) in declared.params.iter().zip(args.by_ref()) {
        context.declare_var(Identifier::sanitized(param), value);
    }
    if let Some(param) = &declared.variadic {
        context.declare_var(Identifier::sanitized(param), Value::Array(args.collect()));
    }
    if DEEP.get() >= DEPTH {
        return Err("it calls itself without an end".to_owned());
    }
    DEEP.set(DEEP.get() + 1);
    let result = declared.result.evaluate(&context);
    DEEP.set(DEEP.get() - 1);
    result.map_err(|error| error.to_string())
}

macro_rules! places {
    ($($at:literal)*) => { [$(call::<$at>),*] };
}

/// One function for each place.
const PLACES: [Func; MOST] = places!(
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
);

/// The time of the evaluation, in UTC; all calls give the same.
fn timestamp(_args: FuncArgs) -> FunctionResult {
    Ok(STATE.with_borrow(|state| state.now.clone()).into())
}

/// A time and a duration as Go writes it: `timeadd(timestamp(), "-1h30m")`.
fn timeadd(args: FuncArgs) -> FunctionResult {
    let (time, duration) = (text(&args, 0)?, text(&args, 1)?);
    let time: Timestamp = time.parse().map_err(|_| format!("{time:?} is no time"))?;
    let duration: SignedDuration =
        duration.parse().map_err(|_| format!("{duration:?} is no duration"))?;
    let sum = time.checked_add(duration);
    Ok(sum.map_err(|_| "the time is out of range")?.to_string().into())
}
