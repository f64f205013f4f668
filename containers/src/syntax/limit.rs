//! Sizes, and limits of what a container may use.

use runtime::{DeviceNumber, Rate, Ulimit};

use super::SyntaxError;
use crate::{Error, Result};

/// The least memory with which a container starts, in bytes.
const LEAST_MEMORY: u64 = 6 << 20;

/// Bytes with an optional unit: `512m`, `1g`, `64KiB`, `1048576`. Units are powers of 1024.
///
/// # Errors
/// It is no size.
pub fn size(text: &str) -> Result<u64, SyntaxError> {
    let refuse = || SyntaxError::new(format!("{text:?} is not a size such as 512m or 1g"));
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(refuse()),
    };
    match digits.split_once('.') {
        None => {
            let value: u64 = digits.parse().map_err(|_| refuse())?;
            value.checked_mul(1 << unit).ok_or_else(refuse)
        }
        Some(_) => {
            let value: f64 = digits.parse().map_err(|_| refuse())?;
            #[expect(clippy::cast_precision_loss)]
            let bytes = value * (1u64 << unit) as f64;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            if bytes < 9e18 { Ok(bytes as u64) } else { Err(refuse()) }
        }
    }
}

/// As [`size`], or `-1` for no limit.
///
/// # Errors
/// As [`size`].
pub fn size_or_unlimited(text: &str) -> Result<i64, SyntaxError> {
    match text {
        "-1" => Ok(-1),
        text => i64::try_from(size(text)?)
            .map_err(|_| SyntaxError::new(format!("{text:?} is too large"))),
    }
}

/// A limit of memory in bytes, as [`size`]: at least 6 MiB, or 0 for none.
///
/// # Errors
/// It is no size, or too small.
pub fn memory(text: &str) -> Result<u64, SyntaxError> {
    match size(text)? {
        size if (1..LEAST_MEMORY).contains(&size) => {
            Err(SyntaxError::new("a container needs 6m to start"))
        }
        size => Ok(size),
    }
}

/// `NAME=SOFT[:HARD]`, with -1 for no limit.
///
/// # Errors
/// It is no such limit.
pub fn ulimit(text: &str) -> Result<Ulimit, SyntaxError> {
    let refuse = || SyntaxError::new(format!("{text:?} is not a limit such as nofile=1024:2048"));
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse().map_err(|_| refuse()),
    };
    let (name, value) = text.split_once('=').ok_or_else(refuse)?;
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        let why = format!("{text:?} has a soft limit above its hard limit");
        return Err(SyntaxError::new(why));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// A number of CPUs: `1.5`.
///
/// # Errors
/// It is none.
pub fn cpus(text: &str) -> Result<f64, SyntaxError> {
    let value = text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0 && *n < 1e6);
    value.ok_or_else(|| SyntaxError::new(format!("{text:?} is not a number of CPUs such as 1.5")))
}

/// The mode of files in octal: `022`.
///
/// # Errors
/// It is none.
pub fn octal(text: &str) -> Result<u32, SyntaxError> {
    let value = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    value.ok_or_else(|| SyntaxError::new(format!("{text:?} is not an octal mode up to 0777")))
}

/// `DEVICE:SIZE` or `DEVICE:NUMBER`: a rate of a block device of this machine.
///
/// # Errors
/// There is no such block device; what follows is no size.
pub fn block_rate(text: &str) -> Result<Rate> {
    let (path, rate) =
        text.rsplit_once(':').ok_or_else(|| SyntaxError::new("expected DEVICE:NUMBER"))?;
    let stat =
        rustix::fs::stat(path).map_err(|errno| Error::file("finding", path)(errno.into()))?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_block_device() {
        return Err(SyntaxError::new(format!("{path} is not a block device")).into());
    }
    let device = DeviceNumber {
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
    };
    Ok(Rate { device, rate: size(rate)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        let good = [("0", 0), ("1024", 1024), ("1k", 1024), ("1.5m", 1_572_864), ("2GiB", 2 << 30)];
        for (text, bytes) in good {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1x", "99999999999t", "1e3", "nan"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size_or_unlimited("-1"), Ok(-1));
        assert!(memory("1k").is_err());
    }

    #[test]
    fn limits_have_a_name_and_an_order() {
        assert!(ulimit("nofile=5:4").is_err());
        assert_eq!(ulimit("core=-1").map(|limit| limit.soft), Ok(u64::MAX));
        assert!(cpus("-1").is_err() && octal("8").is_err());
        assert!(block_rate("/dev/null:1m").is_err() && block_rate("1m").is_err());
    }
}
