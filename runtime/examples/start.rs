//! Measures how long a container takes from start to end: `start ROOTFS [COUNT]`, as root.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Instant;

use runtime::{Bundle, Container, ContainerSpec, Isolation, ProcessSpec, StartOptions, Stdio};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    runtime::init();
    runtime::become_root(&runtime::Identity::default())?;
    let mut arguments = std::env::args().skip(1);
    let rootfs = arguments.next().ok_or("which root file system?")?;
    let count: usize = arguments.next().map_or(Ok(100), |count| count.parse())?;
    let spec = ContainerSpec {
        process: ProcessSpec { command: vec!["/bin/true".to_owned()], ..ProcessSpec::default() },
        isolation: Isolation {
            user_namespace: runtime::in_user_namespace(),
            ..Isolation::default()
        },
        ..ContainerSpec::default()
    };
    let mut times = Vec::new();
    for round in 0..count {
        let spec = runtime::spec(&image::ContainerConfig::default(), &spec, &|_| Ok(None))?;
        let rootfs = OwnedFd::from(std::fs::File::open(&rootfs)?);
        let options = StartOptions { id: format!("measure-{round}"), ..StartOptions::default() };
        let begin = Instant::now();
        let container = Container::start(Bundle { spec, rootfs }, Stdio::Null, &options)?;
        let started = begin.elapsed();
        let status = container.wait(&task::Task::silent())?;
        assert!(status.success(), "{status:?}");
        times.push((begin.elapsed(), started));
    }
    times.sort_unstable();
    let (all, started) = times[times.len() / 2];
    writeln!(
        std::io::stdout(),
        "median of {count}: {all:?} to the end, {started:?} to the start; best {:?}",
        times[0].0
    )?;
    Ok(())
}
