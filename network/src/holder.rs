//! The process beside a container that holds its network: the namespace, an uplink of its own, and
//! its connections with named networks.
//!
//! It is this very program, executed afresh. It tells where the namespace is, learns the
//! container's first process, and ends when that has ended; everything it made ends with it. Where
//! the process that carries a named network is killed, it starts that again. Where it is killed
//! itself, its guard makes another one.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::client::{Attachment, NetworkEndpoint, Surroundings, settle};
use crate::cni::{CNI, CniAttachment, CniDirectories, CniRequest};
use crate::error::WireError;
use crate::guard::{HolderRemnant, Notes, guarded, is_over};
use crate::lease::Lease;
use crate::netlink::Netlink;
use crate::{
    Error, PublishedPort, Resolvers, Result, Uplink, UplinkOptions, namespace, server, sys, wire,
};

/// `argv[0]` of a holder.
const MARK: &str = "container-network";
/// Where it listens, in the directory of the container.
const SOCKET: &str = "network.sock";
/// How often, and how long apart, it tries to come back to a network.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// The network of a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HeldOptions {
    /// An uplink of its own.
    pub uplink: Option<UplinkOptions>,
    /// Named networks, the first with a way out being the way out.
    pub attachments: Vec<Attachment>,
    /// Where named networks are.
    pub networks: PathBuf,
    /// The machine's name servers.
    pub resolvers: Resolvers,
    /// The container's directory, by which it is reached later.
    pub directory: PathBuf,
}

/// What a holder answers at first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum First {
    Ready { namespace: PathBuf, published: Vec<PublishedPort>, leases: Vec<Lease> },
    Failed { error: WireError },
}

/// What a holder is asked later.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    Connect(Box<Attachment>),
    Disconnect(String),
    Rename(String),
    Reload,
}

/// The answer of the holder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum HolderReply {
    Connected(Box<Lease>),
    Disconnected,
    Failed(WireError),
}

/// A network that is held for a container. It ends with this value unless [`ContainerNetwork::follow`] is called.
#[derive(Debug)]
pub struct ContainerNetwork {
    process: Child,
    /// Its end ends the network; `None` where that lives as long as a process.
    line: Option<UnixStream>,
    namespace: PathBuf,
    published: Vec<PublishedPort>,
    leases: Vec<Lease>,
}

impl ContainerNetwork {
    /// Makes the network in a process of its own.
    ///
    /// # Errors
    /// As [`Uplink::start`]; what named networks refuse.
    pub fn start(options: &HeldOptions) -> Result<ContainerNetwork> {
        let pair = UnixStream::pair();
        let (line, theirs) = pair.map_err(Error::system("making", "a socket"))?;
        let process = Command::new("/proc/self/exe")
            .arg0(MARK)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::system("starting", "the holder of the network"))?;
        let talk = wire::send(&line, options, None).and_then(|()| wire::expect(&line));
        match talk.map_err(Error::system("waiting for", "the holder of the network"))? {
            First::Ready { namespace, published, leases } => {
                let line = Some(line);
                Ok(ContainerNetwork { process, line, namespace, published, leases })
            }
            First::Failed { error } => Err(error.into()),
        }
    }

    /// The namespace as a path, for the container to join.
    pub fn path(&self) -> PathBuf {
        self.namespace.clone()
    }

    /// Where on this machine the ports are that its own uplink serves.
    pub fn published(&self) -> &[PublishedPort] {
        &self.published
    }

    /// What it has on named networks.
    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// Lets the network live as long as this process.
    ///
    /// # Errors
    /// [`Error::System`]: the holder is gone.
    pub fn follow(mut self, pid: u32) -> Result<()> {
        let Some(line) = self.line.take() else { return Ok(()) };
        let told = wire::send(&line, &pid, None).and_then(|()| wire::expect::<()>(&line));
        told.map_err(Error::system("talking to", "the holder of the network"))
    }
}

impl Drop for ContainerNetwork {
    /// Waits for the end of a network that lives as long as this value: its names and addresses are
    /// free then.
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            drop(line);
            let _ = self.process.wait();
        }
    }
}

/// Asks the holder of a running container's network, by the container's directory.
fn ask(directory: &Path, request: &Request) -> Result<HolderReply> {
    let line = wire::connect(directory, SOCKET).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotHeld,
        _ => Error::system("reaching", "the holder of the network")(error),
    })?;
    let talk = || -> io::Result<HolderReply> {
        wire::send(&line, request, None)?;
        wire::expect(&line)
    };
    match talk().map_err(Error::system("talking to", "the holder of the network"))? {
        HolderReply::Failed(error) => Err(error.into()),
        done => Ok(done),
    }
}

/// Connects the running container of a directory with a network.
///
/// # Errors
/// What the network refuses; [`Error::System`] where nothing holds its network any more.
pub fn connect(directory: &Path, attachment: &Attachment) -> Result<Option<Lease>> {
    match ask(directory, &Request::Connect(Box::new(attachment.clone())))? {
        HolderReply::Connected(lease) => Ok(Some(*lease)),
        _ => Ok(None),
    }
}

/// Takes the running container of a directory off a network.
///
/// # Errors
/// As [`connect`].
pub fn disconnect(directory: &Path, network: &str) -> Result<()> {
    ask(directory, &Request::Disconnect(network.to_owned())).map(drop)
}

/// Has others find the running container of a directory by another name.
///
/// # Errors
/// As [`connect`].
pub fn rename(directory: &Path, name: &str) -> Result<()> {
    ask(directory, &Request::Rename(name.to_owned())).map(drop)
}

/// Brings the running container of a directory back to networks whose process is gone.
///
/// # Errors
/// As [`connect`].
pub fn reload(directory: &Path) -> Result<()> {
    ask(directory, &Request::Reload).map(drop)
}

/// Becomes a holder of a container's network, or the process that carries a named one, if this
/// process was started as one; never returns then. Must be among the first lines of `main`.
pub fn init() {
    server::init();
    if std::env::args_os().next().is_some_and(|name| name == MARK) {
        std::process::exit(i32::from(hold().is_none()));
    }
}

fn hold() -> Option<()> {
    let line = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).ok()?);
    let options: HeldOptions = wire::expect(&line).ok()?;
    // A terminal that goes away is no reason to end.
    let _ = rustix::process::setsid();
    let line = RefCell::new(Some(line));
    let work = |remnant: Option<HolderRemnant<HeldOptions>>, notes: Notes| match remnant {
        None => line.take().and_then(|line| begin(&options, line, notes)).is_some(),
        Some(left) => resume(&left, notes).is_some(),
    };
    let shut = || {
        drop(line.take());
        // Who asked for the network sees the end of a holder by the end of the line.
        let null = std::fs::File::open("/dev/null");
        let _ = null.map(rustix::stdio::dup2_stdin);
    };
    guarded(work, shut).then_some(())
}

/// The first holder of a container's network.
fn begin(options: &HeldOptions, line: UnixStream, notes: Notes) -> Option<()> {
    let mut holder = match Holder::new(options) {
        Ok(holder) => holder,
        Err(error) => {
            let _ = wire::send(&line, &First::Failed { error: error.into() }, None);
            return None;
        }
    };
    wire::send(&line, &holder.ready(), None).ok()?;
    // Until there is a container, it lives as long as who asked for it.
    holder.follow(&line);
    let number = wire::expect(&line).ok()?;
    let pid = Pid::from_raw(i32::try_from(number).ok()?)?;
    let container = pidfd_open(pid, PidfdFlags::empty());
    holder.guard = Some((notes, number));
    holder.note();
    let _ = wire::send(&line, &(), None);
    drop(line);
    holder.follow(&container.ok()?);
    Some(())
}

/// A holder in place of one that was killed.
fn resume(remnant: &HolderRemnant<HeldOptions>, notes: Notes) -> Option<()> {
    let mut holder = Holder::resume(remnant).ok()?;
    holder.guard = Some((notes, remnant.pid));
    holder.note();
    holder.follow(&remnant.container);
    Some(())
}

struct Holder {
    /// Before the namespace: its plugins need that.
    cni: Vec<(Attachment, CniAttachment)>,
    uplink: Option<Uplink>,
    options: HeldOptions,
    /// The line to the guard, and the number of the container's first process.
    guard: Option<(Notes, u32)>,
    namespace: OwnedFd,
    networks: Vec<NetworkEndpoint>,
    place: Surroundings,
    listener: Option<UnixListener>,
}

impl Holder {
    fn new(options: &HeldOptions) -> Result<Holder> {
        let uplink = options.uplink.as_ref().map(Uplink::start).transpose()?;
        let namespace = match &uplink {
            None => namespace::made(|| Ok(()))?.0,
            Some(uplink) => copy(uplink.namespace())?,
        };
        let mut holder = Holder::empty(options, namespace, uplink)?;
        for attachment in &options.attachments {
            holder.enter(attachment, false)?;
        }
        Ok(holder)
    }

    /// Takes over what a killed holder has left.
    fn resume(remnant: &HolderRemnant<HeldOptions>) -> Result<Holder> {
        let path = format!("/proc/{}/ns/net", remnant.pid);
        let namespace = std::fs::File::open(&path).map_err(Error::system("opening", &path))?.into();
        if is_over(&remnant.container) {
            return Err(Error::NotHeld);
        }
        let options = &remnant.known;
        let start = |options| Uplink::start_in(Some(copy(&namespace)?), options);
        let uplink = options.uplink.as_ref().map(start).transpose()?;
        let mut holder = Holder::empty(options, namespace, uplink)?;
        for attachment in &options.attachments {
            // The process of the network may not know yet that the holder was killed.
            let mut tries = TRIES;
            while let Err(error) = holder.enter(attachment, true) {
                if tries == 0 || is_over(&remnant.container) {
                    tracing::warn!(%error, "a container has lost a network");
                    break;
                }
                tries -= 1;
                std::thread::sleep(PAUSE);
            }
        }
        Ok(holder)
    }

    /// A holder whose container is on no network yet.
    fn empty(options: &HeldOptions, namespace: OwnedFd, uplink: Option<Uplink>) -> Result<Holder> {
        let (networks, resolvers) = (options.networks.clone(), options.resolvers.clone());
        let listener = match options.directory.as_os_str().is_empty() {
            true => None,
            false => Some(
                wire::listen(&options.directory, SOCKET)
                    .map_err(Error::system("making", SOCKET))?,
            ),
        };
        let place = Surroundings { networks, resolvers };
        Ok(Holder {
            cni: Vec::new(),
            options: options.clone(),
            guard: None,
            uplink,
            namespace,
            networks: Vec::new(),
            place,
            listener,
        })
    }

    /// Connects the container with a network, named or of CNI.
    fn enter(&mut self, attachment: &Attachment, again: bool) -> Result<()> {
        match &attachment.cni {
            Some(directories) => self.join(attachment, directories, again),
            None => self.connect(attachment.clone(), again).map(drop),
        }
    }

    /// Has the guard know what another holder needs.
    fn note(&self) {
        let Some((notes, pid)) = &self.guard else { return };
        let mut options = self.options.clone();
        if let (Some(wanted), Some(uplink)) = (&mut options.uplink, &self.uplink) {
            settle(&mut wanted.ports, uplink.published());
        }
        let cni = self.cni.iter().map(|(attachment, _)| attachment.clone());
        options.attachments =
            self.networks.iter().map(NetworkEndpoint::settled).chain(cni).collect();
        notes.note(*pid, &options);
    }

    /// The namespace, for other processes.
    fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()).into()
    }

    fn ready(&self) -> First {
        let namespace = self.path();
        let named = self.networks.iter().map(|one| &one.lease);
        let leases: Vec<Lease> =
            named.chain(self.cni.iter().map(|(_, one)| &one.lease)).cloned().collect();
        let published = self.uplink.as_ref().map(|up| up.published().to_vec()).unwrap_or_default();
        First::Ready { namespace, published, leases }
    }

    /// What the container calls its next device.
    fn interface(&self, attachment: &Attachment) -> Result<String> {
        let taken = |name: &str| {
            self.uplink.is_some() && name == "eth0"
                || self.networks.iter().any(|one| one.interface == name)
                || self.cni.iter().any(|(_, one)| one.interface() == name)
        };
        match &attachment.interface {
            Some(name) if taken(name) => {
                let reason = format!("the container has a device {name} already");
                Err(Error::InvalidNetwork { name: attachment.network.clone(), reason })
            }
            Some(name) => Ok(name.clone()),
            None => {
                let mut names = (0..).map(|number| format!("eth{number}"));
                Ok(names.find(|name| !taken(name)).unwrap_or_default())
            }
        }
    }

    /// Adds the container to a network in the format of CNI.
    fn join(
        &mut self,
        attachment: &Attachment,
        directories: &CniDirectories,
        again: bool,
    ) -> Result<()> {
        let interface = self.interface(attachment)?;
        namespace::entered(&self.namespace, || {
            let start =
                || Netlink::open()?.up(sys::interface_index("lo")?, Default::default(), vec![]);
            start().map_err(Error::system("starting", "the loopback device"))
        })?;
        let wish = CniRequest {
            name: attachment.network.strip_prefix(CNI).unwrap_or(&attachment.network),
            directories,
            wanted: &attachment.wanted,
            ports: &attachment.ports,
            interface: &interface,
        };
        let joined = match again {
            true => CniAttachment::take_over(&self.place.networks, &wish, &self.path()),
            false => CniAttachment::add(&self.place.networks, &wish, &self.path()),
        };
        let mut attachment = attachment.clone();
        attachment.interface = Some(interface.clone());
        self.cni.push((attachment, joined?));
        Ok(())
    }

    fn connect(&mut self, attachment: Attachment, again: bool) -> Result<Lease> {
        if self.networks.iter().any(|one| one.lease.network == attachment.network) {
            let reason = format!("container {} is on it already", attachment.wanted.name);
            return Err(Error::InvalidNetwork { name: attachment.network, reason });
        }
        let interface = self.interface(&attachment)?;
        // Later ones count less, and less than an uplink of its own.
        let last = self.networks.last().map_or(0, |one| one.metric);
        let metric = last + 100;
        let attached = NetworkEndpoint::new(
            &self.place,
            attachment,
            (&self.namespace, again),
            (interface, metric),
        )?;
        let lease = attached.lease.clone();
        self.networks.push(attached);
        Ok(lease)
    }

    fn disconnect(&mut self, network: &str) -> Result<()> {
        let Some(at) = self.networks.iter().position(|one| one.lease.network == network) else {
            let reason = "the container is not on it".to_owned();
            return Err(Error::InvalidNetwork { name: network.to_owned(), reason });
        };
        self.networks.remove(at).leave(&self.namespace)
    }

    fn rename(&mut self, name: &str) -> Result<()> {
        self.networks.iter_mut().try_for_each(|network| network.rename(name))
    }

    fn reload(&mut self) -> Result<()> {
        for network in &mut self.networks {
            if is_over(network) {
                network.again(&self.place, &self.namespace)?;
            }
        }
        self.cni.iter().try_for_each(|(_, joined)| joined.check())
    }

    /// Does what is asked until there is something to read: the container has ended.
    fn follow(&mut self, container: &impl AsFd) {
        loop {
            let mut waited = vec![PollFd::new(container, PollFlags::IN)];
            waited
                .extend(self.listener.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
            let first = waited.len();
            waited.extend(self.networks.iter().map(|one| PollFd::new(one, PollFlags::IN)));
            if poll(&mut waited, None).is_err_and(|errno| errno != rustix::io::Errno::INTR) {
                return;
            }
            let woken: Vec<bool> = waited.iter().map(|fd| !fd.revents().is_empty()).collect();
            if woken[0] {
                return;
            }
            if first == 2 && woken[1] {
                self.asked();
                continue;
            }
            for (network, lost) in self.networks.iter_mut().zip(&woken[first..]) {
                if *lost {
                    come_back(network, (&self.place, &self.namespace), container);
                }
            }
        }
    }

    fn asked(&mut self) {
        let Some(Ok((line, _))) = self.listener.as_ref().map(UnixListener::accept) else { return };
        let _ = line.set_read_timeout(Some(Duration::from_secs(10)));
        let Ok(request) = wire::expect(&line) else { return };
        let done = match request {
            Request::Connect(attachment) => self
                .connect(*attachment, false)
                .map(|lease| HolderReply::Connected(Box::new(lease))),
            Request::Disconnect(network) => {
                self.disconnect(&network).map(|()| HolderReply::Disconnected)
            }
            Request::Rename(name) => self.rename(&name).map(|()| HolderReply::Disconnected),
            Request::Reload => self.reload().map(|()| HolderReply::Disconnected),
        };
        self.note();
        let _ = wire::send(
            &line,
            &done.unwrap_or_else(|error| HolderReply::Failed(error.into())),
            None,
        );
    }
}

/// Comes back to a network whose process is gone: the first container to do so starts it again.
fn come_back(
    network: &mut NetworkEndpoint,
    (place, namespace): (&Surroundings, &OwnedFd),
    container: &impl AsFd,
) {
    for _ in 0..TRIES {
        match network.again(place, namespace) {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "a network cannot be joined again"),
        }
        std::thread::sleep(PAUSE);
        if is_over(container) {
            return;
        }
    }
}

fn copy(namespace: &OwnedFd) -> Result<OwnedFd> {
    namespace.try_clone().map_err(Error::system("copying", "a network namespace"))
}
