//! From a profile to a classic BPF program: a binary search over the numbers, per architecture.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

use super::tables;
use crate::sys::Instruction;
use crate::{Error, Result};

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const ASK: u32 = 0x7fc0_0000; // SECCOMP_RET_USER_NOTIF

/// Set in the numbers of x32.
const X32_BIT: u32 = 0x4000_0000;

/// The kernel takes no longer programs.
const MAX_LENGTH: usize = 4096;

/// One calling convention: how the kernel names it, the bit its numbers have, its names.
struct Convention {
    audit: u32,
    bit: u32,
    names: &'static [(&'static str, u16)],
}

fn convention(arch: Arch) -> Option<Convention> {
    let arch = if arch == Arch::ScmpArchNative { super::native() } else { arch };
    let (audit, bit, names) = match arch {
        Arch::ScmpArchX86_64 => (0xc000_003e, 0, tables::X86_64),
        Arch::ScmpArchX32 => (0xc000_003e, X32_BIT, tables::X32),
        Arch::ScmpArchX86 => (0x4000_0003, 0, tables::X86),
        Arch::ScmpArchAarch64 => (0xc000_00b7, 0, tables::AARCH64),
        _ => return None,
    };
    Some(Convention { audit, bit, names })
}

fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// Compiles a profile; `asks` says whether its program may ask a supervisor.
pub(crate) fn compile(profile: &LinuxSeccomp, asks: bool) -> Result<Vec<Instruction>> {
    if profile.listener_path().is_some() {
        return Err(Error::invalid("seccomp profile", "listeners are not supported"));
    }
    let native = [Arch::ScmpArchNative];
    let listed = profile.architectures().as_deref().filter(|list| !list.is_empty());
    let mut conventions: BTreeMap<u32, BTreeMap<u32, Convention>> = BTreeMap::new();
    for convention in listed.unwrap_or(&native).iter().filter_map(|arch| convention(*arch)) {
        conventions.entry(convention.audit).or_default().insert(convention.bit, convention);
    }
    let named = named(profile);
    let mut program = vec![plain(LOAD, ARCHITECTURE)];
    for (audit, family) in conventions {
        let mut block = vec![plain(LOAD, NUMBER)];
        let mut segments = Segments::default();
        for convention in family.values() {
            add_convention(&mut segments, (profile, &named), convention, asks)?;
        }
        // Numbers with the bit of x32 belong to it or are unused.
        if audit == 0xc000_003e && !family.contains_key(&X32_BIT) {
            segments.insert(X32_BIT, Answer::Return(KILL_PROCESS));
        }
        let segments: Vec<_> = segments.into_iter().collect();
        search(&segments, &mut block);
        unless_equal(&mut program, audit, block.len());
        program.extend(block);
    }
    program.push(plain(RETURN, KILL_PROCESS));
    if program.len() > MAX_LENGTH {
        return Err(Error::invalid("seccomp profile", "it is too long for the kernel"));
    }
    Ok(program)
}

/// Goes over the next `length` instructions unless the loaded word is `value`.
fn unless_equal(program: &mut Vec<Instruction>, value: u32, length: usize) {
    program.push(Instruction { code: EQUAL, jt: 1, jf: 0, k: value });
    program.push(plain(JUMP, length as u32));
}

/// What a number leads to: at once, or after its arguments were looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Return(u32),
    Block(Vec<Instruction>),
}

/// Answers by the first number they are for; each reaches to the next.
type Segments = BTreeMap<u32, Answer>;

fn action(action: Action, errno: Option<u32>, asks: bool) -> Result<u32> {
    match action {
        Action::ScmpActNotify if asks => Ok(ASK),
        Action::ScmpActNotify => {
            Err(Error::invalid("seccomp profile", "listeners are not supported"))
        }
        Action::ScmpActErrno | Action::ScmpActTrace => {
            Ok(action.as_u32(Some(errno.unwrap_or(libc::EPERM.unsigned_abs()) & 0xffff)))
        }
        other => Ok(other.as_u32(None)),
    }
}

/// A name, the place of a rule for it in the profile, and the rule.
type NamedRule<'a> = (&'a str, usize, &'a LinuxSyscall);

/// The names of a profile in order: sorted once, they are not searched for in each table.
fn named(profile: &LinuxSeccomp) -> Vec<NamedRule<'_>> {
    let rules = profile.syscalls().as_deref().unwrap_or_default().iter().enumerate();
    let names = rules.flat_map(|(place, rule)| {
        rule.names().iter().map(move |name| (name.as_str(), place, rule))
    });
    let mut named: Vec<_> = names.collect();
    named.sort_by_key(|(name, place, _)| (*name, *place));
    named
}

/// The rules of each number that an architecture has, in the order of the profile.
fn numbered<'a>(
    named: &[NamedRule<'a>],
    mut known: &[(&str, u16)],
) -> Vec<(u32, usize, &'a LinuxSyscall)> {
    let mut rules = Vec::with_capacity(named.len());
    for (name, place, rule) in named {
        while known.first().is_some_and(|(known, _)| known < name) {
            known = &known[1..];
        }
        if let Some((_, number)) = known.first().filter(|(known, _)| known == name) {
            rules.push((u32::from(*number), *place, *rule));
        }
    }
    rules.sort_by_key(|(number, place, _)| (*number, *place));
    rules
}

fn add_convention(
    segments: &mut Segments,
    (profile, named): (&LinuxSeccomp, &[NamedRule<'_>]),
    convention: &Convention,
    asks: bool,
) -> Result<()> {
    let default = action(profile.default_action(), profile.default_errno_ret(), asks)?;
    let rules = numbered(named, convention.names);
    let mut last = Answer::Return(default);
    segments.insert(convention.bit, last.clone());
    let mut next = 0;
    for rules in rules.chunk_by(|(one, ..), (other, ..)| one == other) {
        let number = rules[0].0;
        let answer = answer(rules.iter().map(|(.., rule)| *rule), default, asks)?;
        if number > next && last != Answer::Return(default) {
            last = Answer::Return(default);
            segments.insert(convention.bit | next, last.clone());
        }
        if answer != last {
            segments.insert(convention.bit | number, answer.clone());
            last = answer;
        }
        next = number + 1;
    }
    let refuses = matches!(profile.default_action(), Action::ScmpActErrno);
    let end = if refuses && next > 0 { ERRNO | libc::ENOSYS.unsigned_abs() } else { default };
    segments.insert(convention.bit | next, Answer::Return(end));
    Ok(())
}

fn answer<'a>(
    rules: impl Iterator<Item = &'a LinuxSyscall>,
    default: u32,
    asks: bool,
) -> Result<Answer> {
    let mut block = Vec::new();
    for rule in rules {
        let result = action(rule.action(), rule.errno_ret(), asks)?;
        let conditions = rule.args().as_deref().unwrap_or_default();
        if conditions.is_empty() {
            if block.is_empty() {
                return Ok(Answer::Return(result));
            }
            block.push(plain(RETURN, result));
            return Ok(Answer::Block(block));
        }
        block.extend(conditional(conditions, result)?);
    }
    block.push(plain(RETURN, default));
    Ok(Answer::Block(block))
}

/// `result` if all conditions hold, otherwise on to what follows.
fn conditional(conditions: &[LinuxSeccompArg], result: u32) -> Result<Vec<Instruction>> {
    let mut block = Vec::new();
    // Jumps to the end are marked with this distance until the end is known.
    for condition in conditions {
        let index = condition.index();
        if index > 5 {
            return Err(Error::invalid("seccomp profile", format!("there is no argument {index}")));
        }
        test(&mut block, condition);
    }
    block.push(plain(RETURN, result));
    let length = block.len();
    for (place, instruction) in block.iter_mut().enumerate() {
        let distance = (length - place - 1) as u8;
        if instruction.jt == FAIL {
            instruction.jt = distance;
        }
        if instruction.jf == FAIL {
            instruction.jf = distance;
        }
    }
    Ok(block)
}

/// A placeholder for the distance to the end of the rule; a rule is never that long.
const FAIL: u8 = u8::MAX;

/// Falls through if the condition holds. Arguments are compared as the two halves of 64 bits.
fn test(block: &mut Vec<Instruction>, condition: &LinuxSeccompArg) {
    let (low_at, high_at) = if cfg!(target_endian = "little") { (0, 4) } else { (4, 0) };
    let base = ARGUMENTS + 8 * condition.index() as u32;
    let value = condition.value();
    let (high, low) = ((value >> 32) as u32, value as u32);
    let jump = |code, k, jt, jf| Instruction { code, jt, jf, k };
    let load_high = plain(LOAD, base + high_at);
    let load_low = plain(LOAD, base + low_at);
    let part: &[Instruction] = match condition.op() {
        Operator::ScmpCmpEq => {
            &[load_high, jump(EQUAL, high, 0, FAIL), load_low, jump(EQUAL, low, 0, FAIL)]
        }
        Operator::ScmpCmpNe => {
            &[load_high, jump(EQUAL, high, 0, 2), load_low, jump(EQUAL, low, FAIL, 0)]
        }
        Operator::ScmpCmpGt => &[
            load_high,
            jump(GREATER, high, 3, 0),
            jump(EQUAL, high, 0, FAIL),
            load_low,
            jump(GREATER, low, 0, FAIL),
        ],
        Operator::ScmpCmpGe => &[
            load_high,
            jump(GREATER, high, 3, 0),
            jump(EQUAL, high, 0, FAIL),
            load_low,
            jump(AT_LEAST, low, 0, FAIL),
        ],
        Operator::ScmpCmpLt => &[
            load_high,
            jump(GREATER, high, FAIL, 0),
            jump(EQUAL, high, 0, 2),
            load_low,
            jump(AT_LEAST, low, FAIL, 0),
        ],
        Operator::ScmpCmpLe => &[
            load_high,
            jump(GREATER, high, FAIL, 0),
            jump(EQUAL, high, 0, 2),
            load_low,
            jump(GREATER, low, FAIL, 0),
        ],
        Operator::ScmpCmpMaskedEq => {
            let wanted = condition.value_two().unwrap_or(0);
            &[
                load_high,
                plain(AND, high),
                jump(EQUAL, (wanted >> 32) as u32, 0, FAIL),
                load_low,
                plain(AND, low),
                jump(EQUAL, wanted as u32, 0, FAIL),
            ]
        }
    };
    block.extend_from_slice(part);
}

/// Finds the segment of the loaded number and answers.
fn search(segments: &[(u32, Answer)], program: &mut Vec<Instruction>) {
    match segments {
        [] => program.push(plain(RETURN, KILL_PROCESS)),
        [(_, Answer::Return(value))] => program.push(plain(RETURN, *value)),
        [(_, Answer::Block(block))] => program.extend_from_slice(block),
        _ => {
            let (left, right) = segments.split_at(segments.len() / 2);
            let mut lower = Vec::new();
            search(left, &mut lower);
            match u8::try_from(lower.len()) {
                Ok(length) => {
                    program.push(Instruction { code: AT_LEAST, jt: length, jf: 0, k: right[0].0 });
                }
                Err(_) => {
                    program.push(Instruction { code: AT_LEAST, jt: 0, jf: 1, k: right[0].0 });
                    program.push(plain(JUMP, lower.len() as u32));
                }
            }
            program.extend(lower);
            search(right, program);
        }
    }
}
