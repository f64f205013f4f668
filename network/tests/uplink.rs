//! What a program sees behind an uplink. Each test has a machine of its own: a network namespace
//! with its own loopback and, on it, addresses that stand for the world.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use network::{Uplink, UplinkOptions, ports, resolvers};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// After this long a test fails.
const PATIENCE: Duration = Duration::from_secs(20);
const WORLD_4: &str = "10.77.0.1";
const WORLD_6: &str = "2001:db8:77::1";

/// Runs `work` on a machine of its own.
fn on_a_machine(work: impl FnOnce() + Send + 'static) {
    let machine = thread::spawn(move || {
        // SAFETY: a network namespace is a property of this thread; no memory is shared by it.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace: run as root");
        for line in [
            "link set lo up".to_owned(),
            format!("address add {WORLD_4}/32 dev lo"),
            format!("address add {WORLD_6}/128 dev lo nodad"),
            "-6 route add default dev lo".to_owned(),
        ] {
            let ip = Command::new("ip").args(line.split(' ')).status().expect("ip");
            assert!(ip.success(), "ip {line}");
        }
        work();
    });
    machine.join().expect("the machine");
}

/// Runs `work` as a program in the container would.
fn inside<T: Send>(uplink: &Uplink, work: impl FnOnce() -> T + Send) -> T {
    let path = uplink.path();
    thread::scope(|scope| {
        let program = scope.spawn(|| {
            let namespace = std::fs::File::open(path).expect("the namespace");
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind)
                .expect("joining the namespace");
            work()
        });
        program.join().expect("the program")
    })
}

fn uplink() -> Uplink {
    let options = UplinkOptions {
        resolvers: resolvers(b"nameserver 127.0.0.1\n"),
        ..UplinkOptions::default()
    };
    Uplink::start(&options).expect("an uplink")
}

fn world() -> [IpAddr; 2] {
    [WORLD_4, WORLD_6].map(|text| text.parse().expect("an address"))
}

/// Bytes that show loss, repetition and disorder.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place / 251 + place % 251) as u8).collect()
}

#[test]
fn bytes_arrive_whole_in_both_directions_at_once() {
    on_a_machine(|| {
        let uplink = uplink();
        for address in world() {
            let listener = TcpListener::bind((address, 0)).unwrap();
            let at = listener.local_addr().unwrap();
            let server = thread::spawn(move || {
                let (stream, from) = listener.accept().unwrap();
                assert_eq!(from.ip(), address, "the machine's own address is the client's");
                both_ways(&stream);
            });
            inside(&uplink, || both_ways(&TcpStream::connect(at).unwrap()));
            server.join().unwrap();
        }
    });
}

/// Sends and receives at the same time, then ends its own direction first.
fn both_ways(stream: &TcpStream) {
    let sent = pattern(20 << 20);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = stream;
            stream.write_all(&sent).expect("writing");
            stream.shutdown(Shutdown::Write).expect("ending");
        });
        let (mut reader, mut received) = (stream, Vec::new());
        reader.read_to_end(&mut received).expect("reading");
        assert!(received == sent, "{} bytes came", received.len());
    });
}

#[test]
fn one_direction_ends_and_the_other_goes_on() {
    on_a_machine(|| {
        let uplink = uplink();
        let listener = TcpListener::bind((WORLD_4, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            // The client ends first, then the server.
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = String::new();
            stream.read_to_string(&mut question).unwrap();
            write!(stream, "{question}?").unwrap();
            drop(stream);
            // The server ends first, then the client.
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"hello").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        inside(&uplink, || {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.write_all(b"what").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "what?");
            let mut stream = TcpStream::connect(at).unwrap();
            let mut greeting = String::new();
            stream.read_to_string(&mut greeting).unwrap();
            write!(stream, "{greeting} you").unwrap();
        });
        assert_eq!(server.join().unwrap(), "hello you");
    });
}

#[test]
fn loopback_services_of_the_machine_are_not_reachable() {
    on_a_machine(|| {
        let uplink = uplink();
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let six = TcpListener::bind("[::1]:0").unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (port, port_6) = (four.local_addr().unwrap().port(), six.local_addr().unwrap().port());
        let udp_port = datagrams.local_addr().unwrap().port();
        inside(&uplink, || {
            let tries = [
                format!("127.0.0.1:{port}"),
                format!("192.0.0.1:{port}"),
                format!("192.0.0.3:{port}"),
                format!("[::1]:{port_6}"),
                format!("[fd72:6275:696c:6400::1]:{port_6}"),
            ];
            for address in tries {
                let error = TcpStream::connect(&address).expect_err(&address);
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
            }
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"x", ("192.0.0.1", udp_port)).unwrap();
        });
        // The datagram has been judged once what was sent after it has been answered.
        inside(&uplink, || {
            TcpStream::connect(("192.0.0.1", 1)).expect_err("nobody");
        });
        datagrams.set_nonblocking(true).unwrap();
        assert_eq!(datagrams.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn loopback_services_of_the_machine_are_reachable_where_asked() {
    on_a_machine(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let options = UplinkOptions { loopback: true, ..UplinkOptions::default() };
        let uplink = Uplink::start(&options).unwrap();
        let server =
            thread::spawn(move || listener.accept().unwrap().0.write_all(b"here").unwrap());
        inside(&uplink, || {
            let mut stream = TcpStream::connect((Uplink::MACHINE, port)).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text, "here");
        });
        server.join().unwrap();
    });
}

#[test]
fn names_are_asked_of_a_resolver_on_the_machines_loopback() {
    on_a_machine(|| {
        let udp = UdpSocket::bind("127.0.0.1:53").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:53").unwrap();
        let uplink = uplink();
        let server = thread::spawn(move || {
            let mut question = [0; 9000];
            let (count, from) = udp.recv_from(&mut question).unwrap();
            udp.send_to(&question[..count], from).unwrap();
            let (mut stream, _) = tcp.accept().unwrap();
            let mut question = [0; 4];
            stream.read_exact(&mut question).unwrap();
            stream.write_all(&question).unwrap();
        });
        inside(&uplink, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect("192.0.0.1:53").unwrap();
            let question = pattern(8000);
            socket.send(&question).unwrap();
            let mut answer = [0; 9000];
            let count = socket.recv(&mut answer).unwrap();
            assert!(answer[..count] == question[..]);
            let mut stream = TcpStream::connect("192.0.0.1:53").unwrap();
            stream.write_all(b"name").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "name");
        });
        server.join().unwrap();
    });
}

#[test]
fn datagrams_find_their_way_and_their_size() {
    on_a_machine(|| {
        let uplink = uplink();
        for address in world() {
            let server = UdpSocket::bind((address, 0)).unwrap();
            let at = server.local_addr().unwrap();
            let echo = thread::spawn(move || {
                let mut buffer = vec![0; 70_000];
                for _ in 0..3 {
                    let (count, from) = server.recv_from(&mut buffer).unwrap();
                    server.send_to(&buffer[..count], from).unwrap();
                }
            });
            inside(&uplink, || {
                let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.connect(at).unwrap();
                let mut buffer = vec![0; 70_000];
                for length in [0, 1400, 60_000] {
                    let sent = pattern(length);
                    socket.send(&sent).unwrap();
                    let received = socket.recv(&mut buffer);
                    let count = received.unwrap_or_else(|e| panic!("{length} bytes to {at}: {e}"));
                    assert!(buffer[..count] == sent[..], "{length} bytes to {at}");
                }
            });
            echo.join().unwrap();
        }
    });
}

#[test]
fn a_closed_port_is_refused_and_an_unreachable_network_is_told() {
    on_a_machine(|| {
        let uplink = uplink();
        inside(&uplink, || {
            for address in world() {
                let error = TcpStream::connect((address, 9)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.connect((address, 9)).unwrap();
                socket.send(b"x").unwrap();
                let error = socket.recv(&mut [0]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
            // The machine has no route to this one.
            let error = TcpStream::connect("203.0.113.1:80").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HostUnreachable);
        });
    });
}

#[test]
fn a_reset_is_a_reset_on_the_other_side() {
    on_a_machine(|| {
        let uplink = uplink();
        let listener = TcpListener::bind((WORLD_4, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let reset = |stream: &TcpStream| {
            rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
        };
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0]).unwrap();
            reset(&stream);
            drop(stream);
            let (mut stream, _) = listener.accept().unwrap();
            stream.read(&mut [0]).unwrap_err().kind()
        });
        inside(&uplink, || {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.write_all(b"x").unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            let stream = TcpStream::connect(at).unwrap();
            reset(&stream);
            drop(stream);
        });
        assert_eq!(server.join().unwrap(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_slow_reader_holds_up_its_writer_and_nobody_else() {
    on_a_machine(|| {
        let uplink = uplink();
        let listener = TcpListener::bind((WORLD_4, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (slow, _) = listener.accept().unwrap();
            let (mut quick, _) = listener.accept().unwrap();
            quick.write_all(b"quick").unwrap();
            drop(quick);
            slow
        });
        inside(&uplink, || {
            let mut slow = TcpStream::connect(at).unwrap();
            // Until nothing more goes: as much as the buffers on the way take, and no more.
            slow.set_nonblocking(true).unwrap();
            let block = vec![7; 1 << 20];
            let mut sent = 0;
            let mut full = 0;
            while full < 20 {
                match slow.write(&block) {
                    Ok(count) => (sent, full) = (sent + count, 0),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        full += 1;
                        thread::sleep(Duration::from_millis(10));
                    }
                }
            }
            assert!(sent < 64 << 20, "{sent} bytes are on the way");
            let mut text = String::new();
            TcpStream::connect(at).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "quick");
            // The reader takes all of it in the end.
            let mut stream = server.join().unwrap();
            let reader = thread::spawn(move || {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                all.len()
            });
            drop(slow);
            assert_eq!(reader.join().unwrap(), sent);
        });
    });
}

#[test]
fn hundreds_of_connections_live_side_by_side() {
    const MANY: usize = 200;
    on_a_machine(|| {
        let uplink = uplink();
        let listener = TcpListener::bind((WORLD_4, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let streams: Vec<_> = (0..MANY).map(|_| listener.accept().unwrap().0).collect();
            for mut stream in streams {
                let mut number = [0; 4];
                stream.read_exact(&mut number).unwrap();
                stream.write_all(&number).unwrap();
            }
        });
        inside(&uplink, || {
            let connect = |_| TcpStream::connect(at).unwrap();
            let mut streams: Vec<_> = (0..MANY).map(connect).collect();
            for (number, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&(number as u32).to_le_bytes()).unwrap();
            }
            for (number, stream) in streams.iter_mut().enumerate() {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes, (number as u32).to_le_bytes());
            }
        });
        server.join().unwrap();
    });
}

#[test]
fn an_address_of_the_container_is_nobodys_and_ends_with_the_uplink() {
    on_a_machine(|| {
        let uplink = uplink();
        let socket = |target: &str| {
            let target: SocketAddr = target.parse().unwrap();
            inside(&uplink, || {
                let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).unwrap();
                socket.connect(target).unwrap();
                socket.local_addr().unwrap().ip().to_string()
            })
        };
        assert_eq!(socket("10.77.0.1:9"), "192.0.0.2");
        assert_eq!(socket("[2001:db8::1]:9"), "fd72:6275:696c:6400::2");
        let path = uplink.path();
        drop(uplink);
        assert!(!path.exists());
    });
}

#[test]
fn published_ports_keep_the_clients_address_and_loopback_is_the_machine() {
    on_a_machine(|| {
        let wanted = ["10.77.0.1::80", "[2001:db8:77::1]::80", "127.0.0.1::80", "80"];
        let options = UplinkOptions {
            ports: wanted.iter().flat_map(|text| ports(text).unwrap()).collect(),
            ..UplinkOptions::default()
        };
        let uplink = Uplink::start(&options).unwrap();
        let published = uplink.published().to_vec();
        assert_eq!(published.len(), 4);
        thread::scope(|scope| {
            scope.spawn(|| {
                inside(&uplink, || {
                    let listener = TcpListener::bind("[::]:80").unwrap();
                    for _ in 0..5 {
                        let (mut stream, client) = listener.accept().unwrap();
                        let mut name = String::new();
                        stream.read_to_string(&mut name).unwrap();
                        write!(stream, "{name} from {}", client.ip().to_canonical()).unwrap();
                    }
                });
            });
            let ask = |address: IpAddr, port: u16| {
                let mut stream = connect_when_it_listens(address, port);
                stream.write_all(b"me").unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            };
            let [four, six] = world();
            let port = |place: usize| published[place].machine.port();
            assert_eq!(ask(four, port(0)), "me from 10.77.0.1");
            assert_eq!(ask(six, port(1)), "me from 2001:db8:77::1");
            assert_eq!(ask([127, 0, 0, 1].into(), port(2)), "me from 192.0.0.1");
            assert_eq!(ask(four, port(3)), "me from 10.77.0.1");
            assert_eq!(ask(six, port(3)), "me from 2001:db8:77::1");
        });
    });
}

/// An accepted connection from inside: the program there may still be starting.
fn connect_when_it_listens(address: IpAddr, port: u16) -> TcpStream {
    let began = std::time::Instant::now();
    loop {
        let stream = TcpStream::connect((address, port)).expect("a published port");
        // Without a listener inside, a reset follows.
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        match stream.peek(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stream.set_read_timeout(None).expect("no timeout");
                return stream;
            }
            _ => assert!(began.elapsed() < PATIENCE, "nobody listens"),
        }
    }
}

#[test]
fn datagrams_to_a_published_port_are_answered_from_it() {
    on_a_machine(|| {
        let options = UplinkOptions {
            ports: ports("10.77.0.1::53/udp").unwrap(),
            ..UplinkOptions::default()
        };
        let uplink = Uplink::start(&options).unwrap();
        let at = uplink.published()[0].machine;
        let server = inside(&uplink, || UdpSocket::bind("0.0.0.0:53").unwrap());
        let answering = thread::spawn(move || {
            let mut buffer = [0; 100];
            let (count, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..count], from).unwrap();
            from
        });
        let client = UdpSocket::bind("10.77.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect(at).unwrap();
        client.send(b"question").unwrap();
        let mut answer = [0; 100];
        let count = client.recv(&mut answer).unwrap();
        assert_eq!(&answer[..count], b"question");
        assert_eq!(answering.join().unwrap(), client.local_addr().unwrap());
    });
}

#[test]
fn where_nobody_listens_inside_the_client_is_reset() {
    on_a_machine(|| {
        let options =
            UplinkOptions { ports: ports("10.77.0.1::80").unwrap(), ..UplinkOptions::default() };
        let uplink = Uplink::start(&options).unwrap();
        let mut stream = TcpStream::connect(uplink.published()[0].machine).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}
