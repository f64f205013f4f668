//! The default profile as the kernel itself applies it: every system call, made as a program of 64
//! bits makes it, as one of x32 does, and as one of 32 bits does (`int 0x80`).
//!
//! A process under the filter cannot make the calls that it allows without doing them. So what is
//! allowed here answers with an error number of its own, and nothing reaches the kernel.

use std::arch::asm;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action, LinuxSyscall};

use super::*;
use crate::sys;

/// What an allowed call answers here.
const ALLOWED: u32 = 4001;
/// What the default answers here.
const REFUSED: u32 = 4002;

const X32_BIT: u32 = 0x4000_0000;

/// The ABI of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SyscallAbi {
    Bits64,
    X32,
    Bits32,
}

/// One call, what the profile says to it, and what the kernel answered.
struct Call {
    abi: SyscallAbi,
    name: &'static str,
    number: u32,
    first: u64,
    expected: u32,
}

fn make(call: &Call) -> i32 {
    let mut answer: u64;
    match call.abi {
        SyscallAbi::Bits64 | SyscallAbi::X32 => {
            let bit = if call.abi == SyscallAbi::X32 { X32_BIT } else { 0 };
            // SAFETY: the filter answers every call itself; the kernel does nothing.
            unsafe {
                asm!("syscall", inlateout("rax") u64::from(call.number | bit) => answer,
                    in("rdi") call.first, in("rsi") 0u64, in("rdx") 0u64,
                    lateout("rcx") _, lateout("r11") _, options(nostack));
            }
        }
        // SAFETY: as above; rbx is put back, which the compiler keeps for itself.
        SyscallAbi::Bits32 => unsafe {
            asm!("xchg rbx, {first}", "int 0x80", "xchg rbx, {first}",
                first = inout(reg) call.first => _,
                inlateout("rax") u64::from(call.number) => answer,
                in("rcx") 0u64, in("rdx") 0u64, lateout("r8") _, lateout("r9") _,
                lateout("r10") _, lateout("r11") _, options(nostack));
        },
    }
    answer as i32
}

/// The profile with answers that tell what it said.
fn telling(profile: &LinuxSeccomp) -> LinuxSeccomp {
    let mut telling = profile.clone();
    telling.set_default_errno_ret(Some(REFUSED));
    let mut rules = profile.syscalls().clone().unwrap_or_default();
    for rule in &mut rules {
        match rule.action() {
            Action::ScmpActAllow => {
                rule.set_action(Action::ScmpActErrno).set_errno_ret(Some(ALLOWED));
            }
            other => assert_eq!(other, Action::ScmpActErrno),
        }
    }
    telling.set_syscalls(Some(rules));
    telling
}

/// What the rules say, read as a person would read them.
fn said(profile: &LinuxSeccomp, name: &str, first: u64) -> u32 {
    use oci_spec::runtime::LinuxSeccompOperator as Op;
    for rule in profile
        .syscalls()
        .iter()
        .flatten()
        .filter(|rule| rule.names().iter().any(|known| known == name))
    {
        let holds = rule.args().iter().flatten().all(|arg| {
            assert_eq!(arg.index(), 0, "{name}: this test sets the first argument only");
            match arg.op() {
                Op::ScmpCmpEq => first == arg.value(),
                Op::ScmpCmpMaskedEq => first & arg.value() == arg.value_two().unwrap_or(0),
                other => panic!("{name}: {other:?} is not used by the default profile"),
            }
        });
        if holds {
            return rule.errno_ret().unwrap_or(1);
        }
    }
    REFUSED
}

fn calls(profile: &LinuxSeccomp) -> Vec<Call> {
    let ways = [
        (SyscallAbi::Bits64, tables::X86_64),
        (SyscallAbi::X32, tables::X32),
        (SyscallAbi::Bits32, tables::X86),
    ];
    let mut calls = Vec::new();
    for (way, table) in ways {
        let names = |name: &String| table.iter().any(|(known, _)| known == name);
        let listed = profile.syscalls().iter().flatten().flat_map(LinuxSyscall::names);
        let newest = listed
            .filter(|name| names(name))
            .map(|name| {
                table.iter().find(|(known, _)| known == name).map_or(0, |(_, number)| *number)
            })
            .max()
            .unwrap_or(0);
        for (name, number) in table {
            for first in [
                0,
                2,
                8,
                38,
                39,
                40,
                0x11,
                0x1000_0000,
                0x2_0008,
                0xffff_ffff,
                0x1_0000_0026,
                0x1_0000_0028,
            ] {
                // A program of 32 bits has no more than those.
                let first = if way == SyscallAbi::Bits32 { first & 0xffff_ffff } else { first };
                let newer = *number > newest;
                let expected =
                    if newer { libc::ENOSYS.unsigned_abs() } else { said(profile, name, first) };
                calls.push(Call { abi: way, name, number: u32::from(*number), first, expected });
            }
        }
    }
    calls
}

/// Memory that a child shares: its progress, and an answer for each call.
fn shared(length: usize) -> (&'static AtomicUsize, &'static [AtomicI32]) {
    let bytes = std::mem::size_of::<AtomicUsize>() + length * std::mem::size_of::<AtomicI32>();
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: new memory of zeros, which is never given back; both types are valid as zeros.
    unsafe {
        let memory = libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED);
        let memory = NonNull::new(memory.cast::<AtomicUsize>()).expect("memory");
        let answers = memory.add(1).cast::<AtomicI32>();
        (memory.as_ref(), NonNull::slice_from_raw_parts(answers, length).as_ref())
    }
}

/// Makes all calls in a process under the filter.
fn ask_the_kernel(program: &[Instruction], calls: &[Call]) -> Vec<i32> {
    let (progress, answers) = shared(calls.len());
    // SAFETY: the child makes system calls and writes to shared memory only: it takes no lock and
    // no memory that another thread of this process could have held.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let ready = sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).is_ok()
            && sys::seccomp_filter(program, 0).is_ok();
        for (call, answer) in calls.iter().zip(answers).filter(|_| ready) {
            answer.store(-make(call), Ordering::Relaxed);
        }
        progress.store(if ready { 1 } else { 2 }, Ordering::Release);
        // Every way to end is refused as well; the parent ends this.
        loop {
            std::hint::spin_loop();
        }
    }
    assert!(child > 0);
    let mut ended = 0;
    while progress.load(Ordering::Acquire) == 0 && ended == 0 {
        // SAFETY: takes numbers only; a child that dies is seen.
        ended = unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::WNOHANG) };
        std::thread::yield_now();
    }
    if ended == 0 {
        // SAFETY: our own child, which is still there.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }
    assert_eq!(progress.load(Ordering::Acquire), 1, "the child did not get through");
    answers.iter().map(|answer| answer.load(Ordering::Relaxed)).collect()
}

#[test]
fn the_kernel_answers_every_call_as_the_profile_says_in_every_way() {
    for capabilities in [&[][..], &["SYS_ADMIN"], &["SYS_CHROOT", "BPF", "SYS_NICE", "SYS_TIME"]] {
        let profile = resolve(None, &capabilities.iter().copied().collect()).unwrap();
        let telling = telling(&profile);
        let calls = calls(&telling);
        let answers = ask_the_kernel(&compile::compile(&telling, false).unwrap(), &calls);
        for way in [SyscallAbi::Bits64, SyscallAbi::X32, SyscallAbi::Bits32] {
            let allowed = calls.iter().filter(|call| call.abi == way && call.expected == ALLOWED);
            assert!(allowed.count() > 1000, "{way:?}");
        }
        for (call, answer) in calls.iter().zip(answers) {
            let Call { abi: way, name, first, expected, .. } = call;
            assert_eq!(
                answer, *expected as i32,
                "{name}({first:#x}) {way:?} with {capabilities:?}"
            );
        }
    }
}
