//! GPG signatures of images in the older form of containers/image: an OpenPGP message that has the
//! payload in it (containers-signature(5)). The program `gpg` makes and checks them; only its
//! status lines are believed.

mod own;
mod policy;

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use copy::bridge;

pub use own::{SignedClaim, open, sign};
pub(crate) use policy::any;

/// What a payload must say it is.
pub(crate) const TYPE: &str = "atomic container signature";
/// The largest signature that is read.
pub const MAX_GPG: u64 = 1 << 20;
/// No key file larger than this is read.
pub(crate) const MAX_KEYS: u64 = 4 << 20;
/// The most that `gpg` is listened to.
const SAID: u64 = 256 << 10;

/// What `gpg` answered.
struct GpgOutput {
    success: bool,
    output: Vec<u8>,
    status: String,
}

/// The program; it never prompts.
fn command() -> Command {
    let mut command = Command::new("gpg");
    command.args(["--batch", "--no-tty", "--status-fd", "2"]);
    command
}

/// The program while it runs, for who may have to end it. One runs after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct GpgChild(Arc<Mutex<GpgState>>);

#[derive(Debug, Default)]
struct GpgState {
    child: Option<Child>,
    /// Nobody waits any more: no other is started.
    over: bool,
}

impl GpgChild {
    fn with<T>(&self, act: impl FnOnce(&mut Child) -> std::io::Result<T>) -> std::io::Result<T> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.child.as_mut().map_or(Err(std::io::ErrorKind::NotFound.into()), act)
    }

    /// Starts the program, and gives its three streams.
    fn start(&self, command: &mut Command) -> std::io::Result<Streams> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.over {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = running.child.insert(pipes.spawn()?);
        Ok((child.stdin.take(), child.stdout.take(), child.stderr.take()))
    }

    fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        // One that has ended is left alone.
        let _ = self.with(Child::kill);
    }
}

/// Standard input, output and error of the program.
type Streams = (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>);

/// Ends the program, which may wait for a passphrase, when who waits for it is gone.
struct EndOnDrop(GpgChild);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Does work with `gpg` on a thread; if it is not waited for to its end, the program ends.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce(&GpgChild) -> T + Send + 'static,
) -> T {
    let running = GpgChild::default();
    let _end = EndOnDrop(running.clone());
    bridge::blocking(move || work(&running)).await
}

/// Runs `gpg`, gives it `input` and takes at most `limit` bytes of what it writes.
///
/// # Errors
/// It cannot be run.
fn run(
    command: &mut Command,
    input: &[u8],
    limit: u64,
    running: &GpgChild,
) -> std::io::Result<GpgOutput> {
    let (stdin, stdout, stderr) = running.start(command)?;
    let input = input.to_vec();
    let feeding = std::thread::spawn(move || {
        // Where gpg stops reading it says why itself.
        let _ = stdin.map(|mut stdin| stdin.write_all(&input));
    });
    let listening = std::thread::spawn(move || {
        let mut status = Vec::new();
        let read = stderr.map(|stderr| stderr.take(SAID).read_to_end(&mut status));
        read.and_then(std::io::Result::ok).map(|_| status).unwrap_or_default()
    });
    let output = output(stdout, limit, running);
    let ended = running.with(Child::wait)?;
    let _ = feeding.join();
    let status = listening.join().unwrap_or_default();
    let status = String::from_utf8_lossy(&status).into_owned();
    Ok(GpgOutput { success: ended.success(), output, status })
}

/// What is larger than the limit is not read to its end.
fn output(stdout: Option<ChildStdout>, limit: u64, running: &GpgChild) -> Vec<u8> {
    let mut output = Vec::new();
    let read = stdout.map(|stdout| stdout.take(limit).read_to_end(&mut output));
    if !matches!(read, Some(Ok(n)) if (n as u64) < limit) {
        let _ = running.with(Child::kill);
    }
    output
}

/// The fingerprints of the one good signature of a message: of the key that made it and of its
/// primary key.
///
/// # Errors
/// Says why there is none.
fn signer(status: &str) -> Result<Vec<String>, &'static str> {
    let lines = status.lines().filter_map(|line| line.strip_prefix("[GNUPG:] "));
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split(' ').collect()).collect();
    let named = |word: &str| lines.iter().filter(|line| line[0] == word).collect::<Vec<_>>();
    for (word, why) in [
        ("BADSIG", "it was changed after it was made"),
        ("ERRSIG", "none of the trusted keys made it"),
        ("EXPSIG", "it has expired"),
        ("EXPKEYSIG", "its key has expired"),
        ("REVKEYSIG", "its key was revoked"),
        ("NODATA", "it is not an OpenPGP message"),
        ("DECRYPTION_OKAY", "it is encrypted"),
    ] {
        if !named(word).is_empty() {
            return Err(why);
        }
    }
    match (&named("GOODSIG")[..], &named("VALIDSIG")[..]) {
        // The last word is the fingerprint of the primary key.
        ([_], [valid]) if valid.len() > 1 => {
            let ends = [valid.get(1), valid.last()];
            Ok(ends.into_iter().flatten().map(|word| (*word).to_owned()).collect())
        }
        _ => Err("it does not have exactly one good signature"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_ends_when_nobody_waits_and_no_other_is_started() {
        let running = GpgChild::default();
        let waiting = running.clone();
        let work = move || run(Command::new("sleep").arg("1000"), b"", 1, &waiting);
        let work = std::thread::spawn(work);
        while running.with(|_| Ok(())).is_err() {
            std::thread::yield_now();
        }
        drop(EndOnDrop(running.clone()));
        assert!(!work.join().unwrap().unwrap().success);
        assert!(run(&mut Command::new("true"), b"", 1, &running).is_err());
    }

    #[test]
    fn only_one_good_signature_is_good() {
        let good = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AB me\n[GNUPG:] VALIDSIG AAAB 2026-01-01 1 0 4 0 1 10 00 CCCD\n";
        assert_eq!(signer(good).unwrap(), ["AAAB", "CCCD"]);
        let with = |line: &str| format!("{good}[GNUPG:] {line}\n");
        for status in [
            String::new(),
            format!("{good}{good}"),
            good.replace("GOODSIG", "EXPKEYSIG"),
            good.replace("[GNUPG:] GOODSIG", "gpg: [GNUPG:] GOODSIG"),
            with("BADSIG AB me"),
            with("REVKEYSIG AB me"),
            with("DECRYPTION_OKAY"),
        ] {
            assert!(signer(&status).is_err(), "{status}");
        }
    }
}
