//! Images with secrets are not pushed where that is asked for.
#![allow(clippy::unwrap_used, reason = "test support fails loudly")]

use e2e::{Bench, root};
use registry_server::{Options, Registry};

/// A key of no value, in pieces, so that no scanner finds it here.
fn key() -> String {
    let body = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgiMPyskHE29XBVjba\n".repeat(3);
    format!("-----BEGIN {}PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n", "")
}

#[test]
fn planted_secrets_keep_an_image_from_being_pushed() {
    if !root() {
        return;
    }
    let (bench, registry) = (Bench::new(), Registry::start(Options::default()).unwrap());
    let token = format!("gh{}_{}", 'p', "aZ3kQ9xT7bW1mR5cV8nL2pY6dF4gH0jKsUeX");
    bench.write("ctx/key.pem", key());
    bench.write("ctx/none", "");
    let replaced = "FROM scratch\nCOPY key.pem /root/key.pem\nCOPY none /root/key.pem\n";
    let variable = format!("FROM scratch\nCOPY none /\nENV DEPLOY={token}\n");
    let argument = format!("FROM scratch\nARG DEPLOY={token}\nCOPY none /\nLABEL by=$DEPLOY\n");
    let clean = "FROM scratch\nCOPY none /\nENV DEPLOY=later\n";
    let name = |image: &str| format!("{}/team/{image}:1", registry.address());
    let push = |image: &str, dockerfile: &str, more: &[&str]| {
        bench.write("ctx/Dockerfile", dockerfile);
        let name = name(image);
        let line = ["bud", "--push", "--tls-verify=false", "-t", &name, "ctx"];
        bench.rbuild([&line[..], more].concat())
    };
    let fail = "--secret-scan=fail";
    let refused = push("replaced", replaced, &[fail]).code(125);
    // A file that a later layer replaces travels all the same.
    refused.fails(&[
        "a private key in root/key.pem, line 1, of layer 1",
        "COPY key.pem",
        "--secret-allow",
    ]);
    push("variable", &variable, &[fail]).fails(&["token of GitHub", "environment"]);
    push("argument", &argument, &[fail]).fails(&["token of GitHub", "label by"]);
    for image in ["replaced", "variable", "argument"] {
        let there =
            bench.rcopy(["digest", "--tls-verify=false", &format!("docker://{}", name(image))]);
        assert_ne!(there.code, 0, "{}", there.told());
    }
    push("clean", clean, &[fail]).ok();
    let warned = push("replaced", replaced, &["--secret-scan=warn"]).ok();
    assert!(warned.stderr.contains("warning: secret: a private key"), "{}", warned.told());
    assert!(!warned.stderr.contains("MIGHAgEA"), "{}", warned.told());
    // What is allowed by rule and place passes; another place does not.
    bench.write("allowed", "# ours\nprivate-key root/*.pem\n");
    bench.write("other", "private-key etc/*\n");
    push("replaced", replaced, &[fail, "--secret-allow=allowed"]).ok();
    push("replaced", replaced, &[fail, "--secret-allow=other"]).fails(&["a private key"]);
    push("replaced", replaced, &["--secret-allow=allowed"]).fails(&["needs --secret-scan"]);
    // An image of the store, by `push`.
    let line = ["push", "--tls-verify=false", fail, &name("replaced")];
    bench.rbuild(line).fails(&["a private key"]);
    bench.rbuild(["push", "--tls-verify=false", &name("replaced")]).ok();
}

#[test]
fn the_record_of_a_failed_build_has_no_secret() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    bench.write("secret", "correct-horse");
    let token = format!("gh{}_{}", 'p', "aZ3kQ9xT7bW1mR5cV8nL2pY6dF4gH0jKsUeX");
    let command = format!("echo {token} https://me:pw12@a.example/x correct-horse; exit 3");
    bench.write("ctx/Dockerfile", format!("FROM localhost/busybox\nRUN {command}\n"));
    bench.rbuild(["bud", "--secret=id=a,src=secret", "ctx"]).code(3);
    let records = std::fs::read_dir(bench.store().join("builds")).unwrap();
    let texts = records.map(|record| std::fs::read_to_string(record.unwrap().path()).unwrap());
    let all: String = texts.collect();
    assert!(all.contains("echo REDACTED https://a.example/x REDACTED; exit 3"), "{all}");
    for secret in [token.as_str(), "pw12", "correct-horse"] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
}
