//! `rbuild registry serve` as a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// A running registry of ours, ended when this is dropped.
pub struct ServedRegistry {
    child: Child,
    /// `127.0.0.1:port`.
    pub address: String,
    lines: mpsc::Receiver<String>,
    said: Arc<Mutex<Vec<String>>>,
}

impl ServedRegistry {
    /// Starts `rbuild registry serve` with these arguments on a free port.
    #[track_caller]
    pub fn start(mut command: Command, arguments: &[&str]) -> ServedRegistry {
        command.args(["registry", "serve", "--address", "127.0.0.1:0"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("rbuild starts");
        let mut errors = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut said = String::new();
        let address = loop {
            let line = errors.next().unwrap_or_else(|| panic!("it did not start: {said}"));
            let line = line.expect("text");
            if let Some((_, address)) = line.split_once("as a registry on ") {
                break address.to_owned();
            }
            said += &line;
        };
        // Both pipes are read, or the server would wait for a reader.
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in errors.map_while(Result::ok) {
                eprintln!("registry: {line}");
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output.map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        ServedRegistry { child, address, lines, said }
    }

    /// What it said on standard error since it listens, so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// A name on this registry.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Kills it where it stands.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop, as a supervisor does.
    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    }

    /// Its exit code once it has ended, and the rest of its standard output.
    pub fn ended(&mut self) -> (Option<i32>, Vec<String>) {
        let status = self.child.wait().expect("it is a child");
        (status.code(), self.lines.iter().collect())
    }
}

impl Drop for ServedRegistry {
    fn drop(&mut self) {
        self.kill();
    }
}
