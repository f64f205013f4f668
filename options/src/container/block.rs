//! The limits that only containers of their own have: block devices, and what is rarely asked for.

use clap::Args;
use containers::syntax::block_rate;
use runtime::Limits;

use crate::Failure;
use crate::flags::each;

/// Limits of `run` and `create`.
#[derive(Debug, Args)]
pub struct BlockFlags {
    /// Set the relative weight of block IO, 10 to 1000
    #[arg(long, value_name = "WEIGHT", value_parser = clap::value_parser!(u16).range(10..=1000), help_heading = "Limits")]
    blkio_weight: Option<u16>,
    /// Set the relative weight for one device
    #[arg(long, value_name = "DEVICE:WEIGHT", help_heading = "Limits")]
    blkio_weight_device: Vec<String>,
    /// Limit the bytes read from a device per second
    #[arg(long, value_name = "DEVICE:SIZE", help_heading = "Limits")]
    device_read_bps: Vec<String>,
    /// Limit the bytes written to a device per second
    #[arg(long, value_name = "DEVICE:SIZE", help_heading = "Limits")]
    device_write_bps: Vec<String>,
    /// Limit the reads from a device per second
    #[arg(long, value_name = "DEVICE:NUMBER", help_heading = "Limits")]
    device_read_iops: Vec<String>,
    /// Limit the writes to a device per second
    #[arg(long, value_name = "DEVICE:NUMBER", help_heading = "Limits")]
    device_write_iops: Vec<String>,
    /// Set how readily memory is swapped out, 0 to 100; -1 for the machine's (cgroup v1)
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(-1..=100), help_heading = "Limits")]
    memory_swappiness: Option<i64>,
    /// Pause the processes when memory runs out, in place of killing one (cgroup v1)
    #[arg(long, help_heading = "Limits")]
    oom_kill_disable: bool,
    /// Set the period of real-time processes in microseconds (cgroup v1)
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    cpu_rt_period: Option<u64>,
    /// Limit the time of real-time processes in microseconds per period (cgroup v1)
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    cpu_rt_runtime: Option<i64>,
    /// Write a value to a file of the cgroup (cgroup v2)
    #[arg(long, value_name = "FILE=VALUE", help_heading = "Limits")]
    cgroup_conf: Vec<String>,
}

impl BlockFlags {
    /// Adds what the flags ask for.
    ///
    /// # Errors
    /// What is no block device, or no number.
    pub fn add(&self, limits: &mut Limits) -> Result<(), Failure> {
        let block = &mut limits.block;
        block.weight = self.blkio_weight;
        block.weights = each("--blkio-weight-device", &self.blkio_weight_device, block_rate)?;
        block.read_bytes = each("--device-read-bps", &self.device_read_bps, block_rate)?;
        block.write_bytes = each("--device-write-bps", &self.device_write_bps, block_rate)?;
        block.reads = each("--device-read-iops", &self.device_read_iops, block_rate)?;
        block.writes = each("--device-write-iops", &self.device_write_iops, block_rate)?;
        limits.memory_swappiness =
            self.memory_swappiness.and_then(|number| u64::try_from(number).ok());
        limits.oom_kill_disable = self.oom_kill_disable;
        limits.cpu_realtime = (self.cpu_rt_period, self.cpu_rt_runtime);
        for text in &self.cgroup_conf {
            let (file, value) = text.split_once('=').ok_or_else(|| {
                Failure::usage(format!("--cgroup-conf {text:?}: expected FILE=VALUE"))
            })?;
            limits.unified.insert(file.to_owned(), value.to_owned());
        }
        Ok(())
    }
}
