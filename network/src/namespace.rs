//! Network namespaces, made and entered by threads of their own.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Error, Result, sys};

/// Makes a network namespace and does `work` in it, on a thread that then ends; the calling thread
/// stays where it is.
pub(crate) fn made<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<(OwnedFd, T)> {
    apart(move || {
        sys::unshare_network().map_err(Error::system("making", "a network namespace"))?;
        let path = "/proc/thread-self/ns/net";
        let namespace = File::open(path).map_err(Error::system("opening", path))?;
        Ok((namespace.into(), work()?))
    })
}

/// Does `work` in a network namespace, on a thread that then ends.
pub(crate) fn entered<T: Send>(
    namespace: &OwnedFd,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    apart(move || {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), network)
            .map_err(|errno| Error::system("entering", "a network namespace")(errno.into()))?;
        work()
    })
}

fn apart<T: Send>(inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let ended = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".to_owned());
        let handle = thread.spawn_scoped(scope, inside);
        handle.map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    ended.map_err(Error::system("starting", "a thread"))?
}
