//! Devices of the machine that an instruction asks for.

use std::path::Path;

use runtime::{Device, Isolation};
use rustix::fs::{FileType, major, minor, stat};

use crate::plan::RunOp;
use crate::{Error, Result};

/// What commands with all privileges need to mount images of file systems.
const LOOPS: [&str; 9] = [
    "/dev/loop-control",
    "/dev/loop0",
    "/dev/loop1",
    "/dev/loop2",
    "/dev/loop3",
    "/dev/loop4",
    "/dev/loop5",
    "/dev/loop6",
    "/dev/loop7",
];

/// Gives a command the devices and privileges its instruction asks for.
pub(super) fn give(op: &RunOp, isolation: &mut Isolation) -> Result<()> {
    let mut add = |path: &str| {
        let device = find(Path::new(path))?;
        if !isolation.devices.iter().any(|known| known.target == device.target) {
            isolation.devices.push(device);
        }
        Some(())
    };
    for device in &op.devices {
        if add(&device.path).is_none() && device.required {
            let path = &device.path;
            return Err(Error::NoDevice { path: path.clone() });
        }
    }
    if op.insecure {
        for path in LOOPS {
            add(path);
        }
        isolation.privileged = true;
        isolation.no_new_privileges = Some(false);
        isolation.apparmor = None;
    }
    Ok(())
}

/// A device by its path; `None` when there is none.
fn find(path: &Path) -> Option<Device> {
    let stat = stat(path).ok()?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !kind.is_char_device() && !kind.is_block_device() {
        return None;
    }
    Some(Device {
        source: path.to_owned(),
        target: path.to_owned(),
        block: kind.is_block_device(),
        major: major(stat.st_rdev),
        minor: minor(stat.st_rdev),
        access: "rwm".to_owned(),
    })
}
