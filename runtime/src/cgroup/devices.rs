//! Which devices the processes of a cgroup may open and make: the older `devices` controller, or a
//! program in the kernel for the unified tree.
//!
//! Device nodes open only where a mount allows it, and containers have none such but those of
//! `/dev`. So rules cost a cgroup only where that is not enough: for a container that can mount
//! file systems, for one that can make nodes where a mount allows them, and for one that is given
//! less than all of a device.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use oci_spec::runtime::{Capability, LinuxDeviceCgroup, LinuxDeviceType, Spec};

use crate::sys::{self, BpfInstruction};

const MAKE: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MAKE | READ | WRITE;

/// `BPF_DEVCG_DEV_BLOCK`, `BPF_DEVCG_DEV_CHAR`
const BLOCK: u8 = 1;
const CHARACTER: u8 = 2;

/// One rule; a later one counts more than an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    allow: bool,
    /// [`BLOCK`] or [`CHARACTER`]; any if not given.
    kind: Option<u8>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

/// What every container may use, whatever the rules say: its standard devices and terminals, and
/// making nodes, which open nothing.
const STANDARD: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Whether a container may use all devices.
pub(crate) fn all(spec: &Spec) -> bool {
    unrestricted(&of(spec))
}

fn of(spec: &Spec) -> Vec<Rule> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let listed = resources.and_then(|resources| resources.devices().as_deref());
    listed.unwrap_or_default().iter().map(read).collect()
}

/// The rules of a container, if they have to be enforced here.
pub(crate) fn enforced(spec: &Spec, always: bool) -> Option<Vec<Rule>> {
    let rules = of(spec);
    if rules.is_empty() || unrestricted(&rules) {
        return None;
    }
    let partial = |rule: &Rule| rule.allow && rule.major.is_some() && rule.access != ALL;
    let sets = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let bounding = sets.and_then(|sets| sets.bounding().as_ref());
    let can = |capability| bounding.is_some_and(|set| set.contains(&capability));
    let reaches = can(Capability::SysAdmin) || can(Capability::Mknod) && has_open_mount(spec);
    (always || reaches || rules.iter().any(partial)).then(|| with_standard(rules))
}

/// Whether device nodes open in a mount of the container.
fn has_open_mount(spec: &Spec) -> bool {
    let opens = |option: &String| ["dev", "rdev"].contains(&option.as_str());
    let mut mounts = spec.mounts().iter().flatten();
    mounts.any(|mount| mount.options().iter().flatten().any(opens))
}

fn with_standard(mut rules: Vec<Rule>) -> Vec<Rule> {
    let allow =
        |kind, major, minor, access| Rule { allow: true, kind: Some(kind), major, minor, access };
    rules.extend([BLOCK, CHARACTER].map(|kind| allow(kind, None, None, MAKE)));
    let standard = STANDARD.iter();
    rules.extend(standard.map(|(major, minor)| allow(CHARACTER, Some(*major), *minor, ALL)));
    rules
}

/// Whether all devices are allowed in the end.
fn unrestricted(rules: &[Rule]) -> bool {
    let everything = |rule: &&Rule| {
        rule.major.is_none() && rule.minor.is_none() && rule.access & (READ | WRITE) == READ | WRITE
    };
    rules.iter().rev().find(everything).is_some_and(|rule| rule.allow)
        && rules.iter().all(|rule| rule.allow || everything(&rule))
}

/// A rule of the spec.
fn read(rule: &LinuxDeviceCgroup) -> Rule {
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => Some(BLOCK),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHARACTER),
        _ => None,
    };
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let letters = rule.access().as_deref().unwrap_or("rwm").bytes();
    let access = letters.fold(0, |bits, letter| {
        bits | match letter {
            b'm' => MAKE,
            b'r' => READ,
            b'w' => WRITE,
            _ => 0,
        }
    });
    let (major, minor) = (number(rule.major()), number(rule.minor()));
    Rule { allow: rule.allow(), kind, major, minor, access }
}

/// Writes the rules to a cgroup of the older kind, in their order.
pub(crate) fn write_legacy(directory: &Path, rules: &[Rule]) -> io::Result<()> {
    for rule in rules {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        for line in lines(rule) {
            std::fs::write(directory.join(file), line)?;
        }
    }
    Ok(())
}

/// The kernel takes `a` for everything, whatever follows it.
fn lines(rule: &Rule) -> Vec<String> {
    let any = rule.major.is_none() && rule.minor.is_none() && rule.access == ALL;
    let kinds = match rule.kind {
        None if any => return vec!["a".to_owned()],
        None => vec!['b', 'c'],
        Some(BLOCK) => vec!['b'],
        Some(_) => vec!['c'],
    };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    let letters = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')];
    let letters = letters.iter().filter(|(bit, _)| rule.access & bit != 0);
    let access: String = letters.map(|(_, letter)| *letter).collect();
    let (major, minor) = (number(rule.major), number(rule.minor));
    kinds.into_iter().map(|kind| format!("{kind} {major}:{minor} {access}")).collect()
}

/// Makes the kernel ask these rules about every device of a cgroup of the unified tree.
pub(crate) fn attach(cgroup: BorrowedFd<'_>, rules: &[Rule]) -> io::Result<()> {
    let program = sys::bpf_load_device_program(&program(rules))?;
    sys::bpf_attach_device_program(&program, cgroup)
}

/// Registers of the program. The kernel gives it the question in the first.
const ANSWER: u8 = 0;
const QUESTION: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const WORK: u8 = 6;

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> BpfInstruction {
    BpfInstruction { code, registers: to | from << 4, offset, immediate }
}

/// Evaluates the rules from the last to the first: an allow rule decides if it covers every
/// requested access, a deny rule if it covers any.
fn program(rules: &[Rule]) -> Vec<BpfInstruction> {
    const LOAD: u8 = 0x61; // BPF_LDX | BPF_W | BPF_MEM
    const COPY: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
    const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
    const SHIFT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
    let mut program = vec![
        instruction(LOAD, KIND, QUESTION, 0, 0),
        instruction(COPY, ACCESS, KIND, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT, ACCESS, 0, 0, 16),
        instruction(LOAD, MAJOR, QUESTION, 4, 0),
        instruction(LOAD, MINOR, QUESTION, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
    }
    program.extend(answer(false));
    program
}

fn answer(allow: bool) -> [BpfInstruction; 2] {
    const SET: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
    const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT
    [instruction(SET, ANSWER, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)]
}

/// One rule: its answer, or on to what follows.
fn block(rule: &Rule) -> Vec<BpfInstruction> {
    const UNLESS_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
    const IF_EQUAL: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K
    const COPY: u8 = 0xbc;
    const AND: u8 = 0x54;
    let mut block = Vec::new();
    let numbers = [(KIND, rule.kind.map(u32::from)), (MAJOR, rule.major), (MINOR, rule.minor)];
    for (register, wanted) in numbers {
        if let Some(wanted) = wanted {
            block.push(instruction(UNLESS_EQUAL, register, 0, SKIP, wanted as i32));
        }
    }
    let (mask, skip) = match rule.allow {
        true => (!rule.access & ALL, UNLESS_EQUAL),
        false => (rule.access, IF_EQUAL),
    };
    block.push(instruction(COPY, WORK, ACCESS, 0, 0));
    block.push(instruction(AND, WORK, 0, 0, i32::from(mask)));
    block.push(instruction(skip, WORK, 0, SKIP, 0));
    block.extend(answer(rule.allow));
    let length = block.len();
    for (place, one) in block.iter_mut().enumerate().filter(|(_, one)| one.offset == SKIP) {
        one.offset = (length - place - 1) as i16;
    }
    block
}

/// A placeholder for the distance to the end of a rule.
const SKIP: i16 = i16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: Option<u8>, numbers: (u32, u32), access: u8) -> Rule {
        Rule { allow, kind, major: Some(numbers.0), minor: Some(numbers.1), access }
    }

    const NOTHING: Rule = Rule { allow: false, kind: None, major: None, minor: None, access: ALL };

    /// Runs a program as the kernel would.
    fn ask(program: &[BpfInstruction], kind: u8, numbers: (u32, u32), access: u8) -> bool {
        let question = [u32::from(kind) | u32::from(access) << 16, numbers.0, numbers.1];
        let (mut registers, mut at) = ([0u32; 11], 0);
        loop {
            let one = program[at];
            let (to, from) = (usize::from(one.registers & 15), usize::from(one.registers >> 4));
            at += 1;
            let jump = |yes: bool| if yes { one.offset as usize } else { 0 };
            match one.code {
                0x61 => registers[to] = question[one.offset as usize / 4],
                0xbc => registers[to] = registers[from],
                0xb4 => registers[to] = one.immediate as u32,
                0x54 => registers[to] &= one.immediate as u32,
                0x74 => registers[to] >>= one.immediate,
                0x56 => at += jump(registers[to] != one.immediate as u32),
                0x16 => at += jump(registers[to] == one.immediate as u32),
                0x95 => return registers[0] != 0,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_last_rule_that_says_something_decides() {
        let rules = with_standard(vec![
            NOTHING,
            rule(true, Some(CHARACTER), (10, 200), READ),
            rule(true, Some(BLOCK), (8, 1), READ | WRITE),
            rule(false, Some(BLOCK), (8, 1), WRITE),
        ]);
        let program = program(&rules);
        for (kind, numbers, access, expected) in [
            (CHARACTER, (10, 200), READ, true),
            (CHARACTER, (10, 200), WRITE, false),
            (CHARACTER, (10, 200), READ | WRITE, false),
            (BLOCK, (10, 200), READ, false),
            (CHARACTER, (10, 201), READ, false),
            (BLOCK, (8, 1), READ, true),
            (BLOCK, (8, 1), WRITE, false),
            (BLOCK, (8, 1), READ | WRITE, false),
            (BLOCK, (8, 2), MAKE, true),
            (CHARACTER, (1, 3), READ | WRITE, true),
            (CHARACTER, (136, 77), READ | WRITE, true),
            (CHARACTER, (1, 1), READ, false),
        ] {
            assert_eq!(
                ask(&program, kind, numbers, access),
                expected,
                "{kind} {numbers:?} {access}"
            );
        }
    }

    #[test]
    fn lines_of_the_older_kind() {
        assert_eq!(lines(&NOTHING), ["a"]);
        assert_eq!(lines(&rule(true, Some(BLOCK), (8, 1), READ | MAKE)), ["b 8:1 rm"]);
        let makes = Rule { allow: true, access: MAKE, ..NOTHING };
        assert_eq!(lines(&makes), ["b *:* m", "c *:* m"]);
    }

    #[test]
    fn everything_is_allowed_only_when_the_last_word_says_so() {
        let everything = Rule { allow: true, ..NOTHING };
        let makes = Rule { access: MAKE, ..everything };
        let one = rule(false, Some(BLOCK), (8, 1), ALL);
        for (rules, expected) in [
            (vec![], false),
            (vec![everything], true),
            (vec![NOTHING, everything], true),
            (vec![everything, NOTHING], false),
            (vec![NOTHING, makes], false),
            (vec![everything, one], false),
        ] {
            assert_eq!(unrestricted(&rules), expected, "{rules:?}");
        }
    }
}
