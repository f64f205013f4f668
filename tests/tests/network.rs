//! Networks of RUN and of containers: what can be reached from inside, and what cannot.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::{Bench, root, user::User};

/// A service on this machine's loopback that says hello, and counts who came.
struct Service {
    port: u16,
    visits: Arc<AtomicUsize>,
}

impl Service {
    fn start() -> Service {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let visits = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&visits);
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let mut stream = stream.expect("a connection");
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
            }
        });
        Service { port, visits }
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

/// Does the same as root and as an ordinary user.
fn as_everybody(work: impl Fn(&Bench)) {
    if !root() {
        return;
    }
    let user = User::get();
    let of = |user: &Arc<User>| Bench::of(user.uid, user.gid);
    for bench in user.iter().map(of).chain([Bench::new()]) {
        bench.busybox();
        work(&bench);
    }
}

#[test]
fn run_does_not_reach_loopback_services_of_the_machine_unless_told_to() {
    let service = Service::start();
    let port = service.port;
    as_everybody(|bench| {
        let before = service.visits();
        let dockerfile = format!(
            "FROM localhost/busybox\nRUN for host in 127.0.0.1 192.0.0.1 localhost; do \
             wget -q -O- http://$host:{port}/ && exit 1; done; grep -q eth0 /proc/net/dev\n"
        );
        bench.build("app", &dockerfile, &[]).ok();
        assert_eq!(service.visits(), before);
        // Where it was asked for, by the machine's name or with the machine's network.
        let named = format!("FROM localhost/busybox\nRUN wget -q -O- http://me:{port}/ >/got\n");
        bench.write("context/Dockerfile", &named);
        let bud = |flags: &[&str]| {
            bench.rbuild([&["bud", "--no-cache"], flags, &["-t", "app", "context"]].concat())
        };
        bud(&["--add-host=me:host-gateway"]).ok();
        bud(&["--network=host", "--add-host=me:host-gateway"]).ok();
        assert_eq!(service.visits(), before + 2);
    });
}

#[test]
fn the_machines_network_is_gated_where_it_is_not_the_builds() {
    as_everybody(|bench| {
        bench.write("context/Dockerfile", "FROM localhost/busybox\nRUN --network=host true\n");
        let bud = |flag: &str| bench.rbuild(["bud", flag, "-t", "app", "context"]);
        bud("--allow=network.host").ok();
        bud("--network=host").ok();
        for name in ["private", "pasta", "slirp4netns", "default", "none"] {
            bud(&format!("--network={name}")).fails(&["the entitlement network.host", "--allow"]);
        }
    });
}

#[test]
fn abstract_sockets_of_the_machine_are_not_seen() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let name = format!("rbuild-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("a socket");
    as_everybody(|bench| {
        let dockerfile = format!(
            "FROM localhost/busybox\nRUN test -e /proc/net/unix && ! grep {name} /proc/net/unix\n"
        );
        bench.build("app", &dockerfile, &[]).ok();
    });
}

#[test]
fn a_working_container_and_a_container_that_ends_with_its_command_have_the_same_network() {
    let service = Service::start();
    let url = format!("http://192.0.0.1:{}/", service.port);
    as_everybody(|bench| {
        bench.rbuild(["from", "--name", "box", "busybox"]).ok();
        let run = ["run", "box", "wget", "-q", "-O-", &url];
        assert_ne!(bench.rbuild(run).code, 0);
        let line = ["run", "--rm", "--network=private", "busybox", "wget", "-q", "-O-", &url];
        assert_ne!(bench.rbuild(line).code, 0);
        let open = ["run", "--rm", "--network=private", "--add-host=me:host-gateway"];
        let line = [&open[..], &["busybox", "wget", "-q", "-O-", &url]].concat();
        assert_eq!(bench.rbuild(line).ok().stdout, "hello");
    });
}

/// What the service at a port says; `None` where there is none, after a while of trying if it is
/// `wanted`.
fn answer(port: u16, wanted: bool) -> Option<String> {
    let began = Instant::now();
    loop {
        let mut text = String::new();
        let told = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).and_then(|mut stream| {
            stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
            stream.read_to_string(&mut text)
        });
        let good = told.is_ok() && text.contains("200 OK");
        if good == wanted || began.elapsed() > Duration::from_secs(30) {
            return good.then_some(text);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

const SERVE: [&str; 7] = ["busybox", "httpd", "-f", "-p", "80", "-h", "/etc"];

#[test]
fn a_published_port_leads_into_the_container_and_ends_with_it() {
    as_everybody(|bench| {
        let port = e2e::free_port();
        let publish = format!("--publish=127.0.0.1:{port}:80");
        let run = ["run", "-d", "--name=web", "--hostname=here", &publish, "busybox"];
        bench.rbuild([&run[..], &SERVE].concat()).ok();
        let text = answer(port, true).expect("an answer");
        assert!(text.ends_with("here\n"), "{text}");
        let at = format!("127.0.0.1:{port}\n");
        assert_eq!(bench.rbuild(["port", "web"]).ok().stdout, format!("80/tcp -> {at}"));
        assert_eq!(bench.rbuild(["port", "web", "80"]).ok().stdout, at);
        bench.rbuild(["port", "web", "81/udp"]).fails(&["81/udp"]);
        // The port is taken, which the next one learns at once.
        let second = ["run", "--rm", &publish, "busybox", "true"];
        bench.rbuild(second).code(125).fails(&[&format!("127.0.0.1:{port}/tcp"), "another"]);
        bench.rbuild(["exec", "web", "wget", "-q", "-O-", "http://127.0.0.1/hostname"]).ok();
        bench.rbuild(["stop", "-t", "0", "web"]).ok();
        assert_eq!(answer(port, false), None);
        // It has its port again when it starts again.
        bench.rbuild(["start", "web"]).ok();
        assert!(answer(port, true).is_some());
        bench.rbuild(["stop", "-t", "0", "web"]).ok();
        bench.rbuild(["rm", "web"]).ok();
    });
}

#[test]
fn all_ports_that_are_named_are_published_on_demand() {
    as_everybody(|bench| {
        let line = ["run", "--rm", "-P", "--expose=80", "--expose=53/udp", "busybox", "true"];
        bench.rbuild(line).ok();
        for (flags, words) in [
            (["--publish=80/sctp", "--name=x"], &["sctp", "network create"][..]),
            (["--publish=1:2:3:4", "--name=x"], &["1:2:3:4"]),
            (["--publish=80", "--network=none"], &["port 80", "none"]),
            (["--publish=80", "--network=host"], &["port 80", "host"]),
        ] {
            let line = [&["run", "--rm"], &flags[..], &["busybox", "true"]].concat();
            bench.rbuild(line).code(125).fails(words);
        }
    });
}

#[test]
fn a_container_shares_the_network_of_another() {
    as_everybody(|bench| {
        bench.rbuild([&["run", "-d", "--name=web", "busybox"][..], &SERVE].concat()).ok();
        let namespace = |network: &str| {
            let command = ["busybox", "sh", "-c", "readlink /proc/self/ns/net; id -u"];
            bench.rbuild([&["run", "--rm", network][..], &command].concat())
        };
        let own = bench.rbuild(["exec", "web", "readlink", "/proc/self/ns/net"]).ok().stdout;
        assert!(namespace("--network=container:web").ok().stdout.starts_with(&own));
        assert!(!namespace("--network=private").ok().stdout.starts_with(&own));
        namespace("--network=container:nobody").code(125).fails(&["nobody"]);
        namespace("--network=ns:/nowhere").fails(&["/nowhere"]);
        bench.rbuild(["rm", "-f", "web"]).ok();
    });
}
