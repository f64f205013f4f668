//! Signals by number and by name.

use std::str::FromStr;

/// A signal by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Signal(pub i32);

impl Signal {
    /// SIGTERM
    pub const TERM: Signal = Signal(libc::SIGTERM);
    /// SIGKILL
    pub const KILL: Signal = Signal(libc::SIGKILL);
    /// SIGINT
    pub const INT: Signal = Signal(libc::SIGINT);
}

const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

impl std::fmt::Display for Signal {
    /// `SIGTERM`, `SIGRTMIN+3`; what has no name is its number.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None if (34..=64).contains(&self.0) => write!(f, "SIGRTMIN+{}", self.0 - 34),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Signal {
    type Err = String;

    /// By name (`TERM`, `SIGTERM`, `RTMIN+3`) or number; the error says what was expected.
    fn from_str(text: &str) -> Result<Signal, String> {
        let refuse = || format!("{text:?} is not a signal such as TERM or 15");
        if let Ok(number) = text.parse::<i32>() {
            let known = (1..=64).contains(&number);
            return if known { Ok(Signal(number)) } else { Err(refuse()) };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let from_end = |rest: &str, base: i32, sign: i32| {
            let number = base + sign * i32::from(rest.parse::<i16>().ok()?);
            Some(number).filter(|number| (34..=64).contains(number))
        };
        let real_time = name
            .strip_prefix("RTMIN+")
            .and_then(|rest| from_end(rest, 34, 1))
            .or_else(|| name.strip_prefix("RTMAX-").and_then(|rest| from_end(rest, 64, -1)));
        let known = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        known.or(real_time).map(Signal).ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::Signal;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("TERM", 15), ("sigkill", 9), ("15", 15), ("RTMIN+1", 35), ("SIGRTMAX-1", 63)]
        {
            let signal = Signal(number);
            assert_eq!(text.parse(), Ok(signal), "{text}");
            assert_eq!(signal.to_string().parse(), Ok(signal), "{text}");
        }
        for text in ["", "0", "65", "-9", "TERMINATE", "RTMIN+99", "RTMIN+-9", "RTMIN+2147483647"] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }
}
