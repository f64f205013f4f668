//! The error of an everyday mistake names the cause that a person needs, once, and what to do.
#![allow(clippy::unwrap_used, reason = "a test")]

use e2e::served::ServedRegistry;
use e2e::{Bench, Ran, run};

/// A line, the words its error must have, and those it must not.
type Mistake<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

/// Words of libraries and of the kernel that help nobody.
const NOISE: &[&str] = &[
    "InvalidContentType",
    "corrupt message",
    "invalid peer certificate",
    "UnknownIssuer",
    "os error 22",
    "unpack already there",
];

fn check(bench: &Bench, mistakes: &[Mistake<'_>]) {
    for (line, words, never) in mistakes {
        let ran = bench.line(line);
        let ran = ran.fails(words);
        assert_eq!(ran.errors(), 1, "one error: {}", ran.told());
        for word in NOISE.iter().chain(*never) {
            assert!(!ran.stderr.contains(word), "{word:?}: {}", ran.told());
        }
        said_once(&ran);
    }
}

/// No line of an error repeats another.
fn said_once(ran: &Ran) {
    let lines: Vec<&str> =
        ran.stderr.lines().map(str::trim).filter(|line| line.len() > 8).collect();
    for (at, line) in lines.iter().enumerate() {
        let cause = line.trim_start_matches("caused by: ").trim_start_matches("error: ");
        let again = lines[..at].iter().find(|earlier| earlier.contains(cause));
        assert_eq!(again, None, "said twice: {}", ran.told());
    }
}

#[test]
fn a_registry_that_cannot_serve_says_which_part_is_missing() {
    let bench = Bench::new();
    let plain = ServedRegistry::start(bench.command("rbuild"), &["--directory", "registry"]);
    bench.build("app", "FROM scratch\nCOPY f /f\n", &[("f", "text")]);
    bench.rbuild(["push", "-q", "app", &plain.name("team/app:1")]).ok();
    let a = &plain.address;
    let none = "0".repeat(64);
    let (inspect, pull) = (
        format!("rcopy inspect --tls-verify=true docker://{a}/team/app:1"),
        format!("rbuild pull --tls-verify=true {a}/team/app:1"),
    );
    check(
        &bench,
        &[
            (&inspect, &["speaks plain HTTP, not TLS", "hint: use --tls-verify=false"], &[]),
            (&pull, &["speaks plain HTTP, not TLS", "registries.conf"], &[]),
            (&format!("rcopy digest {a}/team/app:2"), &["no such tag"], &["no such repository"]),
            (&format!("rbuild pull {a}/none:1"), &["no such repository"], &["no such tag"]),
            (&format!("rcopy ls {a}/none"), &["no such repository"], &[]),
            (&format!("rcopy blob get {a}/team/app@sha256:{none}"), &["no such blob"], &[]),
            (&format!("rbuild pull https://{a}/team/app"), &["hint: docker://"], &[]),
            (&format!("rbuild pull http://{a}/team/app"), &["hint: docker://"], &[]),
            (&format!("rbuild push app docker://{a}/UPPER"), &["lowercase"], &[]),
        ],
    );
}

#[test]
fn a_host_or_proxy_that_does_not_answer_is_named() {
    let bench = Bench::new();
    let nowhere = "check that 127.0.0.1:1 is its name and that this machine reaches it";
    bench.build("app", "FROM scratch\nLABEL a=b\n", &[]);
    check(
        &bench,
        &[
            (
                "rbuild pull 127.0.0.1:1/x",
                &["127.0.0.1:1 failed: connection refused", nowhere],
                &[],
            ),
            ("rcopy inspect docker://127.0.0.1:1/x", &["connection refused", nowhere], &[]),
            ("rbuild push app 127.0.0.1:1/x", &["connection refused", nowhere], &[]),
            ("rbuild login -u a -p b 127.0.0.1:1", &["connection refused", nowhere], &[]),
        ],
    );
    let mut behind = bench.command("rcopy");
    behind.env("HTTPS_PROXY", "http://127.0.0.1:1").args(["digest", "registry.example/app"]);
    let ran = run(&mut behind);
    ran.fails(&["the proxy 127.0.0.1:1 on the way to registry.example", "NO_PROXY"]);
}

#[test]
fn a_certificate_of_ones_own_is_named_with_what_to_do() {
    if requires::program("openssl").is_none() {
        return;
    }
    let bench = Bench::new();
    let mut openssl = std::process::Command::new("openssl");
    openssl.current_dir(bench.path());
    let made = openssl
        .args("req -x509 -newkey rsa:2048 -nodes -days 2".split(' '))
        .args("-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1".split(' '))
        .args("-keyout key.pem -out cert.pem".split(' '))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let text = "[storage]\ndirectory = \"registry\"\n[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n";
    bench.write("registry.toml", text);
    let served = ServedRegistry::start(bench.command("rbuild"), &["--config", "registry.toml"]);
    let name = served.name("app");
    let what = ["certificate", "certs.d", "--tls-verify=false"];
    check(
        &bench,
        &[
            (&format!("rcopy digest --tls-verify=true {name}"), &what, &[]),
            (&format!("rbuild pull --tls-verify=true {name}"), &what, &[]),
        ],
    );
}

#[test]
fn a_file_where_a_directory_is_needed_and_an_image_that_is_not_here_are_named() {
    let bench = Bench::new();
    bench.build("app", "FROM scratch\nCOPY f /f\n", &[("f", "text")]);
    std::fs::create_dir(bench.path().join("directory")).unwrap();
    bench.write("file", "text");
    bench.write("context/Dockerfile", "FROM scratch\nCOPY f /f\n");
    bench.write("context/f", "text");
    let here =
        ["there is no image \"nothere\" in the store", "rbuild images", "rbuild pull nothere"];
    check(
        &bench,
        &[
            ("rcopy copy store:app oci:file", &["file: it is not a directory"], &[]),
            ("rcopy copy store:app dir:file", &["file: it is not a directory"], &[]),
            ("rcopy copy store:app oci-archive:directory", &["it is not a regular file"], &[]),
            ("rbuild save -o directory app", &["it is not a regular file"], &[]),
            (
                "rbuild bud -o type=local,dest=file context",
                &["making", "not a directory"],
                &["exists"],
            ),
            ("rbuild bud -o type=tar,dest=directory context", &["s a directory"], &[]),
            ("rbuild tag nothere x", &here, &[]),
            ("rbuild push nothere 127.0.0.1:1/x", &here, &[]),
            ("rbuild inspect nothere", &["\"nothere\""], &[]),
            ("rcopy copy store:nothere oci:x", &here, &[]),
        ],
    );
}

#[test]
fn an_empty_password_on_standard_input_is_no_password() {
    let bench = Bench::new();
    let served = ServedRegistry::start(bench.command("rbuild"), &["--directory", "registry"]);
    for program in ["rbuild", "rcopy"] {
        let mut login = bench.command(program);
        login.args(["login", "-u", "ann", "--password-stdin", &served.address]);
        run(&mut login).fails(&["the password on standard input is empty"]);
    }
}

#[test]
fn a_misspelled_platform_is_warned_of() {
    let bench = Bench::new();
    bench.write("context/Dockerfile", "FROM scratch\nLABEL a=b\n");
    let ran = bench.rbuild(["bud", "--platform=linux/none", "context"]).ok();
    assert!(ran.stderr.contains("warning: the platform linux/none is not known"), "{}", ran.told());
    let ran = bench.rbuild(["bud", "--platform=linux/s390x,wasi/wasm", "context"]).ok();
    assert!(!ran.stderr.contains("warning"), "{}", ran.told());
}

/// The manifest takes so long that what runs is shown.
#[test]
fn a_pull_that_fails_does_not_say_that_the_image_is_there() {
    use registry_server::{Effect, Fault, Options, Registry};
    let bench = Bench::new();
    let registry = Registry::start(Options::default()).unwrap();
    bench.build("app", "FROM scratch\nCOPY f /f\n", &[("f", "text")]);
    let name = format!("{}/team/app:1", registry.address());
    bench.rbuild(["push", "-q", "app", &name]).ok();
    let slowly = Effect::Drip(std::time::Duration::from_millis(2));
    registry.fault(Fault::always("GET", "/v2/team/app/manifests/*", slowly));
    registry.fault(Fault::always("GET", "/v2/team/app/blobs/*", Effect::status(404)));
    let ran = Bench::new().rbuild(["pull", "--progress=plain", &name]).fails(&["answered 404"]);
    assert!(!ran.stderr.contains("unpack"), "{}", ran.told());
}
