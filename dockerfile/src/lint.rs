//! Style and likely mistakes: one rule, one file.

mod consistent_instruction_casing;
mod copy_ignored_file;
mod duplicate_stage_name;
mod expose_invalid_format;
mod expose_proto_casing;
mod from_as_casing;
mod from_platform_flag_const_disallowed;
mod invalid_base_image_platform;
mod invalid_default_arg_in_from;
mod invalid_definition_description;
mod json_args_recommended;
mod legacy_key_value_format;
mod maintainer_deprecated;
mod multiple_instructions_disallowed;
mod no_empty_continuation;
mod redundant_target_platform;
mod reserved_stage_name;
mod secrets_used_in_arg_or_env;
mod stage_name_casing;
mod undefined_arg_in_from;
mod undefined_var;
mod workdir_relative_path;

use crate::diagnostic::Diagnostic;
use crate::directive::Check;
use crate::ignore::Ignore;
use crate::instruction::{Dockerfile, Instruction};
use crate::span::Span;
use crate::variables::{BuildVariables, Variables, Walk, stage_bases};

/// Looks up a fact about a base image, by the name `FROM` gives it.
pub type BaseQuery<'a, T> = &'a dyn Fn(&str) -> Option<T>;

/// What the linter may know besides the Dockerfile. `None` switches off the rules that need it.
#[derive(Clone, Copy, Default)]
pub struct LintContext<'a> {
    /// The context's `.dockerignore`.
    pub ignore: Option<&'a Ignore>,
    /// The platform that is built for, `os/arch[/variant]`.
    pub target_platform: Option<&'a str>,
    /// The platform of a base image, as its configuration says: `os/arch[/variant]`.
    pub base_platform: Option<BaseQuery<'a, String>>,
    /// The environment of a base image: names of its variables.
    pub base_environment: Option<BaseQuery<'a, Vec<String>>>,
    /// Values given with `--build-arg`.
    pub build_args: &'a [(String, String)],
}

/// A rule of the linter.
pub struct Rule {
    /// Its name, as `# check=skip=` takes it.
    pub name: &'static str,
    /// What it asks for, one sentence.
    pub summary: &'static str,
    /// It runs only when `# check=experimental=` names it.
    pub experimental: bool,
    check: fn(&Input<'_>, &mut Findings<'_>),
}

/// Every rule.
pub const RULES: [Rule; 22] = [
    stage_name_casing::RULE,
    from_as_casing::RULE,
    no_empty_continuation::RULE,
    consistent_instruction_casing::RULE,
    duplicate_stage_name::RULE,
    reserved_stage_name::RULE,
    json_args_recommended::RULE,
    maintainer_deprecated::RULE,
    undefined_arg_in_from::RULE,
    workdir_relative_path::RULE,
    undefined_var::RULE,
    multiple_instructions_disallowed::RULE,
    legacy_key_value_format::RULE,
    invalid_base_image_platform::RULE,
    redundant_target_platform::RULE,
    secrets_used_in_arg_or_env::RULE,
    invalid_default_arg_in_from::RULE,
    from_platform_flag_const_disallowed::RULE,
    copy_ignored_file::RULE,
    invalid_definition_description::RULE,
    expose_proto_casing::RULE,
    expose_invalid_format::RULE,
];

/// What a rule looks at.
struct Input<'a> {
    file: &'a Dockerfile,
    context: &'a LintContext<'a>,
    /// For each stage, the earlier stage it is built on.
    bases: Vec<Option<usize>>,
}

impl<'a> Input<'a> {
    fn given(&self) -> BuildVariables<'a> {
        let LintContext { build_args, target_platform, base_environment, .. } = *self.context;
        BuildVariables { build_args, target_platform, base_environment }
    }

    /// What `FROM` lines see.
    fn globals(&self) -> Variables {
        Variables::global(self.file, self.given())
    }

    /// Every instruction of every stage, with the variables before it.
    fn walk(&self) -> Walk<'a> {
        Walk::new(self.file, self.given())
    }
}

/// Where a rule puts what it finds.
struct Findings<'a> {
    rule: &'a Rule,
    check: &'a Check,
    found: Vec<Diagnostic>,
}

impl Findings<'_> {
    /// A finding about an instruction, unless the comment above it switches the rule off.
    fn add(&mut self, instruction: &Instruction, span: Span, message: String) {
        self.add_with_help(instruction, span, message, None);
    }

    fn add_with_help(
        &mut self,
        instruction: &Instruction,
        span: Span,
        message: String,
        help: Option<String>,
    ) {
        let here = instruction.comments.iter().find_map(|comment| inline_check(comment));
        let check = here.map_or_else(|| self.check.clone(), |here| self.check.with(&here));
        if check.allows(self.rule.name, self.rule.experimental) {
            self.found.push(Diagnostic::warning(self.rule.name, message, span).with_help(help));
        }
    }

    /// A finding about no instruction in particular.
    fn add_here(&mut self, span: Span, message: String, help: Option<String>) {
        if self.check.allows(self.rule.name, self.rule.experimental) {
            self.found.push(Diagnostic::warning(self.rule.name, message, span).with_help(help));
        }
    }
}

/// The options of a comment `check=skip=...`.
fn inline_check(comment: &str) -> Option<Check> {
    let (key, value) = comment.split_once('=')?;
    let options = value.trim().split(' ').next()?;
    key.trim().eq_ignore_ascii_case("check").then(|| Check::parse(options).ok()).flatten()
}

/// Runs every rule the file's `check` directive allows; findings come in the order of the file.
#[must_use]
pub fn lint(file: &Dockerfile, context: &LintContext<'_>) -> Vec<Diagnostic> {
    let mut input = Input { file, context, bases: Vec::new() };
    input.bases = stage_bases(file, &input.globals());
    let mut all = Vec::new();
    for rule in &RULES {
        let mut findings = Findings { rule, check: &file.directives.check, found: Vec::new() };
        (rule.check)(&input, &mut findings);
        all.append(&mut findings.found);
    }
    all.sort_by_key(|diagnostic| diagnostic.span.start);
    all
}

#[cfg(test)]
mod tests;
