//! The Dockerfile language: text in, instructions and diagnostics out.
//!
//! This crate reads no file, no environment and no network. [`parse`] turns a source text into a
//! [`Dockerfile`] and never fails; [`expand()`] replaces variables in one [`Word`]; [`lint()`] checks
//! style and likely mistakes; [`ignore`] and [`glob`] match paths; [`outline`] says what a target
//! takes; [`diagnostic`] draws an excerpt
//! of the source with a caret under the culprit.
//!
//! ```
//! let source = "FROM alpine AS base\nRUN echo hi\n";
//! let (file, diagnostics) = dockerfile::parse(source);
//! assert!(diagnostics.is_empty());
//! assert_eq!(file.stages[0].name.as_deref(), Some("base"));
//! ```

pub mod diagnostic;
pub mod directive;
pub mod duration;
pub mod expand;
pub mod expose;
mod fields;
pub mod glob;
pub mod ignore;
pub mod instruction;
mod json;
mod lexer;
pub mod lint;
pub mod mount;
pub mod outline;
mod parser;
pub mod span;
mod suggest;
mod variables;
mod words;

pub use diagnostic::{Diagnostic, Renderer, Severity, Style, render};
pub use directive::{Check, Directive, Directives};
pub use expand::{Expansion, Scope, expand};
pub use fields::{Field, fields};
pub use ignore::Ignore;
pub use instruction::{
    Add, Arg, ArgDeclaration, CommandLine, Copy, Dockerfile, From, Healthcheck, Heredoc,
    Instruction, InstructionKind, Pair, Pairs, Program, Run, Source, Stage,
};
pub use lint::{LintContext, lint};
pub use mount::{CacheSharing, Device, Mount, MountKind};
pub use parser::{MAX_SOURCE, parse, parse_instruction};
pub use span::{Escape, LineIndex, Position, Span, Word};
pub use suggest::closest;
