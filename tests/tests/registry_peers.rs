//! Pull-through caches that find each other by a name of DNS.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::netns::Netns;
use e2e::served::ServedRegistry;
use e2e::{Bench, peer, root, run};
use hickory_proto::op::{Message, OpCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};

/// A name server that knows one name, with these addresses; how often it was asked for them.
fn name_server(socket: UdpSocket, name: &'static str, addresses: [&str; 2]) -> Arc<AtomicUsize> {
    let addresses = addresses.map(|address| address.parse::<Ipv4Addr>().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let Ok(question) = Message::from_vec(&packet[..length]) else { continue };
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            let queries = question.queries.clone();
            for query in &queries {
                let here = query.name().to_ascii().trim_end_matches('.') == name;
                if here && query.query_type() == RecordType::A {
                    count.fetch_add(1, Ordering::Relaxed);
                    let records = addresses.iter().map(|address| RData::A(A(*address)));
                    let name = query.name().clone();
                    answer
                        .add_answers(records.map(|data| Record::from_rdata(name.clone(), 1, data)));
                }
            }
            answer.add_queries(queries);
            let _ = socket.send_to(&answer.to_vec().unwrap(), from);
        }
    });
    asked
}

/// A cache of the upstream that asks this name server, here or at the neighbour.
fn cache(bench: &Bench, neighbour: Option<&Netns>, address: &str) -> ServedRegistry {
    let directory = format!("cache-{address}");
    bench.write(
        &format!("{directory}.toml"),
        format!(
            "[storage]\ndirectory = \"{directory}\"\n[[upstream]]\nprefix = \"mirror\"\n\
             registry = \"{}:4000\"\nplain-http = true\n",
            Netns::HERE
        ),
    );
    let mut command = match neighbour {
        None => Command::new("unshare"),
        Some(netns) => netns.command("unshare"),
    };
    let rbuild = bench.command("rbuild");
    let script = "mount --bind resolv.conf /etc/resolv.conf; exec \"$@\"";
    command.args(["--mount", "sh", "-ec", script, "sh"]).arg(rbuild.get_program());
    command.current_dir(bench.path());
    let (config, address) = (format!("{directory}.toml"), format!("{address}:5000"));
    let peers = ["--peers", "dns:cache.test:5000"];
    ServedRegistry::start(
        command,
        &[&["--config", &config, "--address", &address], &peers[..]].concat(),
    )
}

#[test]
fn caches_that_find_each_other_by_dns_ask_the_upstream_once_for_each_blob() {
    if !root() || ["ip", "unshare", "nsenter"].iter().any(|program| peer(program).is_none()) {
        return;
    }
    let netns = Netns::enter();
    let bench = Bench::new();
    bench.write("resolv.conf", format!("nameserver {}\n", Netns::HERE));
    let socket = UdpSocket::bind((Netns::HERE, 53)).unwrap();
    let asked = name_server(socket, "cache.test", [Netns::HERE, Netns::WORLD]);
    let upstream = format!("{}:4000", Netns::HERE);
    let serving = ["--address", &upstream, "--directory", "upstream", "--access-log"];
    let mut origin = ServedRegistry::start(bench.command("rbuild"), &serving);
    let dockerfile = "FROM scratch\nCOPY a /a\nCOPY b /b\nCOPY c /c\n";
    bench.build("app", dockerfile, &[("a", "1"), ("b", "2"), ("c", "3")]).ok();
    bench.rbuild(["push", "-q", "--tls-verify=false", "app", &format!("{upstream}/app:1")]).ok();

    let here = cache(&bench, None, Netns::HERE);
    let there = cache(&bench, Some(&netns), Netns::WORLD);
    for (cache, layout) in [(&here, "one"), (&there, "two")] {
        let from = format!("docker://{}", cache.name("mirror/app:1"));
        let to = format!("oci:{layout}:app");
        run(bench.command("rcopy").args(["copy", "--src-tls-verify=false", &from, &to])).ok();
    }

    assert!(asked.load(Ordering::Relaxed) >= 2, "both caches ask for the name");
    origin.terminate();
    let lines = origin.ended().1;
    let fetched: Vec<&String> = lines
        .iter()
        .filter(|line| line.contains("\"GET\"") && line.contains("/blobs/sha256:"))
        .collect();
    assert_eq!(fetched.len(), 4, "three layers and a config, each once: {lines:#?}");
}
