//! Runs a command behind an uplink, for measurements: `behind iperf3 -c 10.77.0.1`.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use network::{Uplink, UplinkOptions, resolvers};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

fn main() -> ExitCode {
    let file = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    let options = UplinkOptions { resolvers: resolvers(&file), ..UplinkOptions::default() };
    let uplink = Uplink::start(&options).expect("an uplink");
    let namespace = std::fs::File::open(uplink.path()).expect("the namespace");
    let mut arguments = std::env::args_os().skip(1);
    let mut command = Command::new(arguments.next().expect("a command"));
    command.args(arguments);
    let enter = move || {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind)?;
        Ok(())
    };
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(enter) };
    match command.status().expect("the command").code() {
        Some(0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
