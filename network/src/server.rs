//! The process that carries a named network while containers are on it.
//!
//! It is this very program, executed afresh by the first container that comes. Each container has
//! one connection with it: its lease, its device and its published ports last as long as that. The
//! process ends when the last connection has.

use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::carrier::{Carrier, Guest, SharedTable};
use crate::definition::NamedNetwork;
use crate::error::WireError;
use crate::lease::{ALIVE, Lease, LeaseRequest, Table};
use crate::ports::{Port, PublishedPort};
use crate::uplink::Reach;
use crate::{Error, Resolvers, Result, wire};

/// `argv[0]` of the process.
pub(crate) const MARK: &str = "container-network-bridge";
/// Where it listens, in the directory of the network.
pub(crate) const SOCKET: &str = "socket";
/// Held while somebody comes, or the process looks whether it may end.
pub(crate) const DOOR: &str = "door";

/// How long it waits for the first container.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// How long to wait where no connection can be taken: there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(50);

/// The arguments of the process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The network's directory.
    pub(crate) place: PathBuf,
    /// The network.
    pub(crate) network: NamedNetwork,
    /// The machine's name servers.
    pub(crate) resolvers: Resolvers,
}

/// What a container asks for, one after the other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Request {
    /// Addresses and ports.
    Lease {
        wanted: LeaseRequest,
        ports: Vec<Port>,
        /// Whether it may reach the loopback services of this machine.
        loopback: bool,
    },
    /// To be connected: its device comes along, or its network namespace if the kernel carries the
    /// network.
    Attach {
        /// What it calls its device.
        interface: String,
        /// Whether it was connected before.
        again: bool,
    },
    /// To be found by another name from now on.
    Rename(String),
}

/// What it gets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reply {
    Leased { lease: Lease },
    Attached,
    Renamed,
    Failed { error: WireError },
}

/// What the connections share.
struct Server {
    start: Start,
    table: SharedTable,
    carrier: Result<Carrier>,
    listener: UnixListener,
    /// How many connections there are.
    count: Mutex<usize>,
}

/// Locks, whatever became of the thread that had it before.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Becomes the process, if this process was started as one; never returns then.
pub(crate) fn init() {
    let mut arguments = std::env::args();
    if std::env::args_os().next().is_none_or(|name| name != MARK) {
        return;
    }
    let start = arguments.nth(1).and_then(|text| serde_json::from_str(&text).ok());
    let served = start.ok_or(()).and_then(|start| serve(start).map_err(drop));
    std::process::exit(i32::from(served.is_err()));
}

fn serve(start: Start) -> Result<()> {
    // A terminal that goes away is no reason to end.
    let _ = rustix::process::setsid();
    more_descriptors();
    let alive = File::create(start.place.join(ALIVE));
    let alive = alive.map_err(Error::system("making", ALIVE))?;
    rustix::fs::flock(&alive, FlockOperation::LockExclusive)
        .map_err(|errno| Error::system("locking", ALIVE)(errno.into()))?;
    let listener = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)
        .map_err(|errno| Error::system("copying", "a socket")(errno.into()))?;
    let table = Arc::new(Mutex::new(Table::new(start.network.clone(), start.place.clone())));
    // Who comes learns why there is no carrier.
    let carrier = Carrier::start(&start, &table);
    let listener = UnixListener::from(listener);
    let server = Arc::new(Server { start, table, carrier, listener, count: Mutex::new(0) });
    Server::listen(&server);
    server.end();
    drop(alive);
    Ok(())
}

/// As many descriptors as are allowed: each connection of each container is one.
fn more_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

impl Server {
    /// Takes connections, until there have been none for a while.
    fn listen(this: &Arc<Server>) {
        loop {
            let mut waited = [PollFd::new(&this.listener, PollFlags::IN)];
            let come = poll(&mut waited, Some(&PATIENCE)).is_ok_and(|count| count > 0);
            let mut count = lock(&this.count);
            if !come {
                if this.is_idle(*count) {
                    return;
                }
                continue;
            }
            let Ok((line, _)) = this.listener.accept() else {
                drop(count);
                std::thread::sleep(PAUSE);
                continue;
            };
            *count += 1;
            drop(count);
            let server = Arc::clone(this);
            let thread = std::thread::Builder::new().name("container".to_owned());
            let thread = thread.stack_size(256 << 10).spawn(move || server.connection(&line));
            if thread.is_err() {
                *lock(&this.count) -= 1;
            }
        }
    }

    /// Whether no client is here or about to come. After that no client can come.
    fn is_idle(&self, count: usize) -> bool {
        if count > 0 {
            return false;
        }
        let Ok(door) = File::open(self.start.place.join(DOOR)) else {
            // The network is gone.
            return true;
        };
        if rustix::fs::flock(&door, FlockOperation::NonBlockingLockExclusive).is_err() {
            return false;
        }
        let mut waiting = [PollFd::new(&self.listener, PollFlags::IN)];
        let idle = poll(&mut waiting, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0);
        if idle {
            // Who comes now is refused, and starts another process.
            let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
            // Held until this process is gone.
            std::mem::forget(door);
        }
        idle
    }

    fn connection(&self, line: &UnixStream) {
        let mut id = None;
        if let Err(error) = self.talk(line, &mut id) {
            tracing::debug!(%error, "a connection ends");
        }
        if let Some(id) = id {
            self.carrier.iter().for_each(|carrier| carrier.detach(id));
            lock(&self.table).free(id);
        }
        let mut count = lock(&self.count);
        *count -= 1;
        if self.is_idle(*count) {
            self.end();
            std::process::exit(0);
        }
    }

    fn end(&self) {
        if let Ok(carrier) = &self.carrier {
            carrier.end();
        }
    }

    fn talk(&self, line: &UnixStream, id: &mut Option<u64>) -> std::io::Result<()> {
        let Some((first, _)) = wire::receive(line)? else { return Ok(()) };
        let Request::Lease { wanted, ports, loopback } = first else { return Ok(()) };
        let refuse = |error: WireError| wire::send(line, &Reply::Failed { error }, None);
        let carrier = match &self.carrier {
            Ok(carrier) => carrier,
            Err(error) => return refuse(WireError::said(error)),
        };
        let leased = lock(&self.table).take(&wanted).inspect(|(own, _)| *id = Some(*own));
        let (own, mut lease) = match leased {
            Ok(leased) => leased,
            Err(error) => return refuse(error.into()),
        };
        let take = |port: &Port| carrier.take(port, &self.start);
        let taken = match ports.iter().map(take).collect::<Result<Vec<_>>>() {
            Ok(taken) => taken,
            Err(error) => return refuse(error.into()),
        };
        let (takers, published): (Vec<_>, Vec<PublishedPort>) = taken
            .into_iter()
            .map(|(taker, published)| (taker.map(|taker| (taker, published.container)), published))
            .unzip();
        lease.published.clone_from(&published);
        lock(&self.table).publish(own, published);
        wire::send(line, &Reply::Leased { lease: lease.clone() }, None)?;
        let Some((Request::Attach { interface, again }, Some(given))) = wire::receive(line)? else {
            return Ok(());
        };
        let reach = Reach { loopback, servers: wanted.servers };
        let takers = takers.into_iter().flatten().collect();
        let guest = Guest { takers, reach, interface, again };
        if let Err(error) = carrier.attach(own, &lease, given, guest) {
            return refuse(error.into());
        }
        wire::send(line, &Reply::Attached, None)?;
        self.stay(line, own)
    }

    /// Does what a container asks for until it goes.
    fn stay(&self, line: &UnixStream, own: u64) -> std::io::Result<()> {
        while let Some((request, _)) = wire::receive::<Request>(line)? {
            if let Request::Rename(name) = request {
                lock(&self.table).rename(own, name);
                wire::send(line, &Reply::Renamed, None)?;
            }
        }
        Ok(())
    }
}
