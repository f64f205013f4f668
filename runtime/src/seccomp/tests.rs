use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscallBuilder,
};

use super::compile::compile;
use super::*;

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const X32: u32 = 0x4000_0000;
const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

/// Runs a program as the kernel would.
fn interpret(program: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
    let (mut at, mut word) = (0, 0u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        let branch = |yes| if yes { usize::from(jt) } else { usize::from(jf) };
        at += 1;
        match code {
            0x20 => word = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
            0x54 => word &= k,
            0x05 => at += k as usize,
            0x15 => at += branch(word == k),
            0x25 => at += branch(word > k),
            0x35 => at += branch(word >= k),
            0x06 => return k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

fn default_program(capabilities: &[&str]) -> Vec<Instruction> {
    let profile = resolve(None, &capabilities.iter().copied().collect()).unwrap();
    compile(&profile, false).unwrap()
}

#[test]
fn tables_are_sorted() {
    for table in [tables::X86_64, tables::X32, tables::X86, tables::AARCH64] {
        assert!(table.is_sorted());
        assert!(table.len() > 300);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn default_profile_on_every_convention() {
    let plain = default_program(&["CHOWN"]);
    let admin = default_program(&["SYS_ADMIN"]);
    let check = |name: &str, arch, number, first, on_plain, on_admin| {
        let args = [first, 0, 0, 0, 0, 0];
        assert_eq!(interpret(&plain, arch, number, args), on_plain, "{name}");
        assert_eq!(interpret(&admin, arch, number, args), on_admin, "{name} as admin");
    };
    check("read", X86_64, 0, 0, ALLOW, ALLOW);
    check("mount", X86_64, 165, 0, EPERM, ALLOW);
    check("unshare", X86_64, 272, 0, EPERM, ALLOW);
    check("clone without namespaces", X86_64, 56, 0x11, ALLOW, ALLOW);
    check("clone with a user namespace", X86_64, 56, 0x1000_0000, EPERM, ALLOW);
    check("clone, junk above", X86_64, 56, 0x1_0000_0011, ALLOW, ALLOW);
    check("clone3", X86_64, 435, 0, ENOSYS, ALLOW);
    check("keyctl", X86_64, 250, 0, EPERM, EPERM);
    check("bpf", X86_64, 321, 0, EPERM, ALLOW);
    check("io_uring_setup", X86_64, 425, 0, EPERM, EPERM);
    check("personality 0", X86_64, 135, 0, ALLOW, ALLOW);
    check("personality ADDR_NO_RANDOMIZE", X86_64, 135, 0x004_0000, EPERM, EPERM);
    check("personality query", X86_64, 135, 0xffff_ffff, ALLOW, ALLOW);
    check("personality query, 64 bits", X86_64, 135, u64::MAX, EPERM, EPERM);
    check("socket inet", X86_64, 41, 2, ALLOW, ALLOW);
    check("socket vsock", X86_64, 41, 40, EPERM, EPERM);
    check("socket vsock, junk above", X86_64, 41, 0x1_0000_0028, EPERM, EPERM);
    check("socket alg", X86_64, 41, 38, EPERM, EPERM);
    check("socket alg, junk above", X86_64, 41, 0x1_0000_0026, EPERM, EPERM);
    check("socket between the two", X86_64, 41, 39, ALLOW, ALLOW);
    check("socket alg on x32", X86_64, X32 | 41, 38, EPERM, EPERM);
    check("socket inet on x86", X86, 359, 2, ALLOW, ALLOW);
    check("socket vsock on x86", X86, 359, 40, EPERM, EPERM);
    check("socket alg on x86", X86, 359, 38, EPERM, EPERM);
    check("the multiplexer of sockets on x86", X86, 102, 1, ENOSYS, ENOSYS);
    check("socket inet, junk above", X86_64, 41, 0x1_0000_0002, ALLOW, ALLOW);
    check("socket vsock on x32", X86_64, X32 | 41, u64::MAX << 32 | 40, EPERM, EPERM);
    check("a call of tomorrow", X86_64, 600, 0, ENOSYS, ENOSYS);
    check("the largest number", X86_64, X32 - 1, 0, ENOSYS, ENOSYS);
    check("read on x32", X86_64, X32, 0, ALLOW, ALLOW);
    check("mount on x32", X86_64, X32 | 165, 0, EPERM, ALLOW);
    check("rt_sigaction on x32", X86_64, X32 | 512, 0, ALLOW, ALLOW);
    check("read on x86", X86, 3, 0, ALLOW, ALLOW);
    check("mount on x86", X86, 21, 0, EPERM, ALLOW);
    check("umount on x86", X86, 22, 0, EPERM, ALLOW);
    check("clock_gettime64 on x86", X86, 403, 0, ALLOW, ALLOW);
    check("another architecture", 0xc000_00b7, 0, 0, KILL, KILL);
}

#[test]
fn every_number_gets_the_answer_of_its_rule() {
    let program = default_program(&[]);
    let profile: LinuxSeccomp = resolve(None, &BTreeSet::new()).unwrap();
    let rules = profile.syscalls().clone().unwrap();
    for (name, number) in tables::X86_64 {
        let simple = rules.iter().find(|rule| rule.names().iter().any(|known| known == name));
        let expected = match simple {
            Some(rule) if rule.args().as_ref().is_some_and(|args| !args.is_empty()) => continue,
            Some(rule) => rule.action().as_u32(rule.errno_ret()),
            None => EPERM,
        };
        let got = interpret(&program, X86_64, u32::from(*number), [0; 6]);
        let newest = *number > 466 && got == ENOSYS;
        assert!(got == expected || newest, "{name}: {got:#x}, not {expected:#x}");
    }
}

#[test]
fn comparisons_are_of_64_bits() {
    use LinuxSeccompOperator as Op;
    const BIG: u64 = 0x1_0000_0005;
    type Expected = &'static [(u64, bool)];
    let cases: [(Op, u64, u64, Expected); 7] = [
        (
            Op::ScmpCmpEq,
            BIG,
            0,
            &[(BIG, true), (5, false), (BIG + 1, false), (0x2_0000_0005, false)],
        ),
        (Op::ScmpCmpNe, BIG, 0, &[(BIG, false), (5, true), (BIG + 1, true)]),
        (
            Op::ScmpCmpGt,
            BIG,
            0,
            &[(BIG, false), (BIG + 1, true), (6, false), (0x2_0000_0000, true)],
        ),
        (
            Op::ScmpCmpGe,
            BIG,
            0,
            &[(BIG, true), (BIG - 1, false), (u64::MAX, true), (0xffff_ffff, false)],
        ),
        (
            Op::ScmpCmpLt,
            BIG,
            0,
            &[(BIG, false), (BIG - 1, true), (0xffff_ffff, true), (u64::MAX, false)],
        ),
        (
            Op::ScmpCmpLe,
            BIG,
            0,
            &[(BIG, true), (BIG + 1, false), (0, true), (0x2_0000_0000, false)],
        ),
        (
            Op::ScmpCmpMaskedEq,
            0xf0_0000_000f,
            0x10_0000_0001,
            &[(0x1f_0000_00f1, true), (1, false)],
        ),
    ];
    for (op, value, second, expected) in cases {
        let arg =
            LinuxSeccompArgBuilder::default().index(2usize).op(op).value(value).value_two(second);
        let rule = LinuxSyscallBuilder::default()
            .names(vec!["read".to_owned()])
            .action(LinuxSeccompAction::ScmpActErrno)
            .errno_ret(7u32)
            .args(vec![arg.build().unwrap()]);
        let profile = LinuxSeccompBuilder::default()
            .default_action(LinuxSeccompAction::ScmpActAllow)
            .architectures(vec![Arch::ScmpArchX86_64])
            .syscalls(vec![rule.build().unwrap()])
            .build()
            .unwrap();
        let program = compile(&profile, false).unwrap();
        for (argument, hit) in expected {
            let got = interpret(&program, X86_64, 0, [0, 0, *argument, 0, 0, 0]);
            assert_eq!(got == 0x0005_0007, *hit, "{op:?} {value:#x} {argument:#x}");
        }
        // A profile that allows by default allows what it does not know.
        assert_eq!(interpret(&program, X86_64, 9999, [0; 6]), ALLOW);
        assert_eq!(interpret(&program, X86_64, X32, [0; 6]), KILL);
    }
}

#[test]
fn what_cannot_be_compiled_is_refused() {
    let with = |action, index: usize| {
        let arg = LinuxSeccompArgBuilder::default().index(index).build().unwrap();
        let rule = LinuxSyscallBuilder::default()
            .names(vec!["read".to_owned(), "no_such_call".to_owned()])
            .action(action)
            .args(vec![arg])
            .build()
            .unwrap();
        compile(&LinuxSeccompBuilder::default().syscalls(vec![rule]).build().unwrap(), false)
    };
    assert!(with(LinuxSeccompAction::ScmpActErrno, 0).is_ok());
    assert!(with(LinuxSeccompAction::ScmpActErrno, 6).is_err());
    assert!(with(LinuxSeccompAction::ScmpActNotify, 0).is_err());
}

#[test]
fn a_profile_is_compiled_once() {
    let profile: LinuxSeccomp = resolve(None, &BTreeSet::new()).unwrap();
    let (first, second) = (compiled(&profile).unwrap(), compiled(&profile).unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    assert!(first.len() < 2000, "{}", first.len());
}
