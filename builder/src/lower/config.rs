//! Instructions that make no step: they fold into the image's configuration.

use std::fmt::Write;
use std::time::Duration;

use dockerfile::{
    CommandLine, Diagnostic, Healthcheck, Instruction, InstructionKind, Pairs, Word, expose,
};
use serde_json::json;

use super::state::State;
use crate::plan::environment::set_env;

/// The shell of shell-form commands when `SHELL` says nothing.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies an instruction to the configuration of its stage and writes its history.
pub(super) fn fold(instruction: &Instruction, state: &mut State) -> Result<(), Diagnostic> {
    match &instruction.kind {
        InstructionKind::Env(pairs) => env(pairs, state),
        InstructionKind::Label(pairs) => label(pairs, state),
        InstructionKind::Expose(words) => ports(words, state),
        InstructionKind::Volume(words) => volumes(words, state),
        InstructionKind::User(word) => {
            let user = state.expand(word)?;
            state.note(format!("USER {user}"));
            state.config.config.user = user;
            Ok(())
        }
        InstructionKind::Stopsignal(word) => stop_signal(word, state),
        InstructionKind::Cmd(command) => {
            let args = command_line(command, state);
            state.note(format!("CMD {}", quoted(&args)));
            state.config.config.cmd = Some(args);
            state.own_cmd = true;
            Ok(())
        }
        InstructionKind::Entrypoint(command) => {
            let args = command_line(command, state);
            state.note(format!("ENTRYPOINT {}", quoted(&args)));
            state.config.config.entrypoint = Some(args);
            if !state.own_cmd {
                state.config.config.cmd = None;
            }
            Ok(())
        }
        InstructionKind::Shell(shell) => {
            state.note(format!("SHELL [{}]", shell.join(" ")));
            state.config.config.shell.clone_from(shell);
            Ok(())
        }
        InstructionKind::Healthcheck(check) => {
            state.note(super::state::one_line(&instruction.text));
            state.config.config.healthcheck = Some(healthcheck(check, state));
            Ok(())
        }
        InstructionKind::Onbuild(trigger) => onbuild(trigger, state),
        InstructionKind::Maintainer(author) => {
            state.note(format!("MAINTAINER {}", author.text));
            state.config.author = Some(author.text.clone());
            Ok(())
        }
        // Those that make steps, and FROM and ARG, are lowered elsewhere.
        _ => Ok(()),
    }
}

fn env(pairs: &Pairs, state: &mut State) -> Result<(), Diagnostic> {
    let mut text = "ENV".to_owned();
    // Every value of one instruction sees the variables as they were before it.
    let mut set = Vec::new();
    for pair in &pairs.pairs {
        set.push((state.expand(&pair.key)?, state.expand(&pair.value)?));
    }
    for (name, value) in set {
        let _ = write!(text, " {name}={value}");
        set_env(&mut state.config.config.env, &name, &value);
    }
    state.note(text);
    Ok(())
}

fn label(pairs: &Pairs, state: &mut State) -> Result<(), Diagnostic> {
    let mut text = "LABEL".to_owned();
    for pair in &pairs.pairs {
        let (name, value) = (state.expand(&pair.key)?, state.expand(&pair.value)?);
        let _ = write!(text, " {name}={value}");
        state.config.config.labels.insert(name, value);
    }
    state.note(text);
    Ok(())
}

fn ports(words: &[Word], state: &mut State) -> Result<(), Diagnostic> {
    let mut all = Vec::new();
    for word in words {
        let texts = dockerfile::expand::expand_list(word, &|name| state.variable(name))?;
        for text in texts {
            let ports = expose::parse(&text)
                .map_err(|message| Diagnostic::error("bad-port", message, word.span))?;
            all.extend(ports.iter().map(ToString::to_string));
        }
    }
    state.note(format!("EXPOSE [{}]", all.join(" ")));
    state.config.config.exposed_ports.extend(all.into_iter().map(|port| (port, json!({}))));
    Ok(())
}

fn volumes(words: &[Word], state: &mut State) -> Result<(), Diagnostic> {
    let mut all = Vec::new();
    for word in words {
        let path = state.expand(word)?;
        if path.trim().is_empty() {
            let message = "a volume needs a path";
            return Err(Diagnostic::error("bad-volume", message, word.span));
        }
        all.push(path);
    }
    state.note(format!("VOLUME [{}]", all.join(" ")));
    state.config.config.volumes.extend(all.into_iter().map(|path| (path, json!({}))));
    Ok(())
}

fn stop_signal(word: &Word, state: &mut State) -> Result<(), Diagnostic> {
    let signal = state.expand(word)?;
    if let Err(message) = signal.parse::<runtime::Signal>() {
        return Err(Diagnostic::error("bad-signal", message, word.span));
    }
    state.note(format!("STOPSIGNAL {signal}"));
    state.config.config.stop_signal = Some(signal);
    Ok(())
}

fn onbuild(trigger: &Instruction, state: &mut State) -> Result<(), Diagnostic> {
    if matches!(trigger.name(), "FROM" | "MAINTAINER" | "ONBUILD") {
        let message = format!("{} cannot be a trigger", trigger.name());
        return Err(Diagnostic::error("bad-trigger", message, trigger.span));
    }
    state.note(format!("ONBUILD {}", super::state::one_line(&trigger.text)));
    state.config.config.on_build.push(trigger.text.clone());
    Ok(())
}

/// The shell in force.
pub(super) fn shell(state: &State) -> Vec<String> {
    let shell = &state.config.config.shell;
    if shell.is_empty() { DEFAULT_SHELL.map(str::to_owned).to_vec() } else { shell.clone() }
}

fn command_line(command: &CommandLine, state: &State) -> Vec<String> {
    match command {
        CommandLine::Exec(words) => words.clone(),
        CommandLine::Shell(word) => {
            let mut args = shell(state);
            args.push(word.text.clone());
            args
        }
    }
}

fn healthcheck(check: &Healthcheck, _state: &State) -> image::Healthcheck {
    let nanos = |time: &Option<Duration>| {
        time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    };
    match check {
        Healthcheck::None => {
            image::Healthcheck { test: vec!["NONE".to_owned()], ..image::Healthcheck::default() }
        }
        Healthcheck::Cmd { command, interval, timeout, start_period, start_interval, retries } => {
            let (kind, mut words) = match command {
                CommandLine::Exec(words) => ("CMD", words.clone()),
                CommandLine::Shell(word) => ("CMD-SHELL", vec![word.text.clone()]),
            };
            words.insert(0, kind.to_owned());
            image::Healthcheck {
                test: words,
                interval: nanos(interval),
                timeout: nanos(timeout),
                start_period: nanos(start_period),
                start_interval: nanos(start_interval),
                retries: retries.unwrap_or(0).into(),
                ..image::Healthcheck::default()
            }
        }
    }
}

/// Words in quotes, with blanks between, in brackets.
fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}
