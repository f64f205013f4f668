//! `rcopy experimental-image-proxy`: images for bootc and ostree.

use app::{App, Runnable, observed};
use clap::Args;
use options::Failure;
use options::ends::OneEnd;
use options::progress::Progress;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use transport::Places;

/// Give bootc and ostree images over a socket, by the protocol of skopeo's command of this name
#[derive(Debug, Args)]
pub struct ImageProxy {
    /// Serve on this open socket (default: standard input)
    #[arg(long, value_name = "FD", default_value_t = 0)]
    sockfd: u32,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for ImageProxy {
    /// Serves until the client says so or is gone.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let failed = |error: rustix::io::Errno| {
            Failure::io(format!("opening socket {}", self.sockfd), &error.into())
        };
        let own = pidfd_open(getpid(), PidfdFlags::empty()).map_err(failed)?;
        let number = i32::try_from(self.sockfd).unwrap_or(-1);
        let socket = pidfd_getfd(own, number, PidfdGetfdFlags::empty()).map_err(failed)?;
        let gate = app.gate()?;
        let reach = self.end.reach()?;
        let (client, machine) = (app.client(&reach)?, app.conf.machine(&reach)?);
        let store = || {
            let (action, place) = ("opening an image".to_owned(), "the store".to_owned());
            Err(transport::Error::Unsupported { action, place }.into())
        };
        let client = || Ok(client.clone());
        let places = Places { client: &client, store: &store, machine: &machine };
        observed("experimental-image-proxy", Progress::Quiet, |task| {
            let platform = app.conf.settings.platform();
            let proxy = transport::ImageProxy { places: &places, gate: &*gate, platform, task };
            Ok(app.wait(proxy.serve(socket))??)
        })?;
        Ok(0)
    }
}
