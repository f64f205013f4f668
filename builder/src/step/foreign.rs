//! Commands for another machine than this one: the kernel runs them through an emulator that is
//! registered with `binfmt_misc`, or not at all.

use std::path::Path;

use image::Platform;

use crate::Error;
use crate::plan::RunOp;

/// Where the kernel lists its emulators.
const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";

/// What stands between a command of another platform and its emulator, if that is why it did not
/// start.
pub(crate) fn refused(op: &RunOp, error: &runtime::Error) -> Option<Error> {
    let refused = match error {
        runtime::Error::NotExecutable { source, .. } => {
            source.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error())
        }
        // An emulator that is looked for inside the container is not found there.
        runtime::Error::ProgramNotFound { .. } => true,
        _ => false,
    };
    let host = Platform::host();
    if !refused || host.serves(&op.platform).is_some() {
        return None;
    }
    let handler = handler(Path::new(HANDLERS), &op.platform.architecture);
    match (error, handler) {
        (runtime::Error::ProgramNotFound { .. }, None | Some(Handler { fixed: true, .. })) => None,
        (_, handler) => Some(Error::Foreign {
            platform: Box::new(op.platform.clone()),
            host: Box::new(host),
            emulator: handler.map(|handler| handler.interpreter),
        }),
    }
}

/// An emulator as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Handler {
    interpreter: String,
    /// Flag `F`: opened when it was registered, so that it works in every container.
    fixed: bool,
}

/// The emulator that takes programs for an architecture.
fn handler(directory: &Path, architecture: &str) -> Option<Handler> {
    let program = header(architecture)?;
    let entries = std::fs::read_dir(directory).ok()?;
    let texts = entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    let mut found: Vec<Handler> = texts.filter_map(|text| parse(&text, &program)).collect();
    found.sort_by_key(|handler| !handler.fixed);
    found.into_iter().next()
}

/// Reads one entry; `None` unless it is enabled and takes `program`.
fn parse(text: &str, program: &[u8]) -> Option<Handler> {
    let mut lines = text.lines();
    if lines.next() != Some("enabled") {
        return None;
    }
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let offset: usize = value("offset")?.parse().ok()?;
    let magic = hexadecimal(value("magic")?)?;
    let mask = match value("mask") {
        Some(mask) => hexadecimal(mask)?,
        None => vec![0xff; magic.len()],
    };
    let window = program.get(offset..offset.checked_add(magic.len())?)?;
    let pairs = window.iter().zip(&magic).zip(&mask);
    let takes = pairs.into_iter().all(|((byte, magic), mask)| byte & mask == magic & mask);
    takes.then(|| Handler {
        interpreter: value("interpreter").unwrap_or_default().to_owned(),
        fixed: value("flags:").is_some_and(|flags| flags.contains('F')),
    })
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The beginning of an executable for an architecture: 64 bytes of ELF header.
fn header(architecture: &str) -> Option<Vec<u8>> {
    let (wide, big, machine): (bool, bool, u16) = match architecture {
        "amd64" => (true, false, 62),
        "386" => (false, false, 3),
        "arm64" => (true, false, 183),
        "arm" => (false, false, 40),
        "riscv64" => (true, false, 243),
        "ppc64le" => (true, false, 21),
        "ppc64" => (true, true, 21),
        "s390x" => (true, true, 22),
        "mips64le" => (true, false, 8),
        "loong64" => (true, false, 258),
        _ => return None,
    };
    let mut header = vec![0; 128];
    let start = [0x7f, b'E', b'L', b'F', 1 + u8::from(wide), 1 + u8::from(big), 1];
    header[..start.len()].copy_from_slice(&start);
    let bytes = |value: u16| if big { value.to_be_bytes() } else { value.to_le_bytes() };
    header[16..18].copy_from_slice(&bytes(2));
    header[18..20].copy_from_slice(&bytes(machine));
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\n\
        mask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn emulators_are_found_by_what_they_take() {
        let of = |text: &str, architecture| parse(text, &header(architecture).unwrap());
        let found = of(ARM64, "arm64").unwrap();
        assert_eq!(found.interpreter, "/usr/bin/qemu-aarch64-static");
        assert!(found.fixed);
        assert!(!of(&ARM64.replace("OCF", "OC"), "arm64").unwrap().fixed);
        for (text, architecture) in [
            (ARM64.to_owned(), "s390x"),
            (ARM64.to_owned(), "arm"),
            (ARM64.replace("enabled", "disabled"), "arm64"),
            (ARM64.replace("offset 0", "offset 18446744073709551615"), "arm64"),
            (ARM64.replace("7f45", "7fzz"), "arm64"),
            ("enabled\ninterpreter /x\nextension .py\n".to_owned(), "arm64"),
            (String::new(), "arm64"),
        ] {
            assert_eq!(of(&text, architecture), None, "{text} {architecture}");
        }
        assert_eq!(header("pdp11"), None);
        assert_eq!(handler(Path::new("/nowhere"), "arm64"), None);
    }
}
