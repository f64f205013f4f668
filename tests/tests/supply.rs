//! What an image contains and how it was built: SBOMs, provenance, and rebuilds.

use e2e::registry::DockerRegistry;
use e2e::{Bench, peer, run};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn purls(document: &Value) -> Vec<String> {
    let packages = document["packages"].as_array().expect("packages").iter();
    packages
        .filter_map(|package| package["externalRefs"][0]["referenceLocator"].as_str())
        .map(str::to_owned)
        .collect()
}

const STATUS: &str = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\n\
    Source: glibc\nVersion: 2.36-9+deb12u9\n\n";
const BASH: &str = "Package: bash\nStatus: install ok installed\nArchitecture: amd64\n\
    Version: 5.2.15-2+b7\n\n";

/// The base and three layers: one installs, one removes, one replaces.
const PACKAGES: &str = "FROM scratch AS base\n\
    COPY os-release /etc/os-release\n\
    COPY status /var/lib/dpkg/status\n\
    COPY node /app/node_modules\n\
    FROM base\n\
    COPY status2 /var/lib/dpkg/status\n\
    COPY METADATA /usr/lib/python3/dist-packages/requests-2.31.0.dist-info/METADATA\n\
    COPY left-pad2 /app/node_modules/left-pad\n";

#[test]
fn packages_are_listed_with_their_layers_from_the_store_and_from_a_registry() {
    let bench = Bench::new();
    let both = format!("{STATUS}{BASH}");
    let files = [
        ("os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian 12\"\n"),
        ("status", STATUS),
        ("status2", both.as_str()),
        ("node/left-pad/package.json", r#"{"name":"left-pad","version":"1.0.0"}"#),
        ("node/@scope/x/package.json", r#"{"name":"@scope/x","version":"2.0.0","license":"MIT"}"#),
        ("left-pad2/package.json", r#"{"name":"left-pad","version":"1.3.0"}"#),
        ("METADATA", "Metadata-Version: 2.1\nName: requests\nVersion: 2.31.0\n\ntext\n"),
    ];
    bench.build("app", PACKAGES, &files).ok();

    let table = bench.rbuild(["sbom", "app"]).ok();
    for line in [
        "deb   bash      5.2.15-2+b7     3      /var/lib/dpkg/status",
        "deb   libc6     2.36-9+deb12u9  1      /var/lib/dpkg/status",
        "npm   left-pad  1.3.0           5      /app/node_modules/left-pad/package.json",
        "2 deb, 2 npm, 1 pypi",
    ] {
        assert!(table.stdout.contains(line), "{line:?}: {}", table.told());
    }
    assert!(!table.stdout.contains("1.0.0"), "{}", table.told());

    let spdx = bench.rbuild(["sbom", "--format=spdx-json", "app"]).ok();
    let document = json(&spdx.stdout);
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
    let found = purls(&document);
    for purl in [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64&distro=debian-12&upstream=glibc",
        "pkg:npm/%40scope/x@2.0.0",
        "pkg:pypi/requests@2.31.0",
    ] {
        assert!(found.iter().any(|known| known == purl), "{purl}: {found:?}");
    }
    let file = bench.path().join("bom.json");
    let path = file.display().to_string();
    bench.rbuild(["sbom", "--format=cyclonedx-json", "-o", &path, "app"]).ok();
    let document = json(&std::fs::read_to_string(&file).expect("the document"));
    assert_eq!(
        (&document["bomFormat"], &document["specVersion"]),
        (&"CycloneDX".into(), &"1.6".into())
    );

    // The layers are known: nothing is read again, whatever the image is called.
    bench.rbuild(["tag", "app", "again"]).ok();
    let again = bench.rbuild(["sbom", "--progress=plain", "again"]).ok();
    assert!(again.stderr.contains("0 layers read"), "{}", again.told());

    let elsewhere = Bench::new();
    let Some(registry) = DockerRegistry::start() else { return };
    let remote = format!("docker://{}", registry.name("app:1"));
    bench.rbuild(["push", "--tls-verify=false", "app", &remote]).ok();
    let remote =
        elsewhere.rbuild(["sbom", "--tls-verify=false", "--format=spdx-json", &remote]).ok();
    assert_eq!(purls(&json(&remote.stdout))[1..], found[1..]);
    elsewhere.rbuild(["images", "-q"]).ok();
    elsewhere.rbuild(["sbom", "nothing-of-this-name:1"]).fails(&["nothing-of-this-name"]);
}

#[test]
fn modules_of_a_real_go_program_are_listed_as_go_lists_them() {
    let (Some(go), Some(program)) = (peer("go"), peer("kubectl")) else { return };
    let listed = run(std::process::Command::new(go).args(["version", "-m"]).arg(&program)).ok();
    let mut expected: Vec<String> = Vec::new();
    for line in listed.stdout.lines() {
        let columns: Vec<_> = line.trim().split('\t').collect();
        let [kind, name, version, ..] = columns[..] else { continue };
        if kind == "=>" {
            expected.pop();
        }
        if ["mod", "dep", "=>"].contains(&kind) {
            expected.push(format!("{name} {}", version.trim_matches(&['(', ')'][..])));
        }
    }
    let bench = Bench::new();
    bench.write("ctx/Dockerfile", "FROM scratch\nCOPY program /bin/\n");
    std::fs::copy(&program, bench.path().join("ctx/program")).expect("a copy");
    bench.rbuild(["bud", "-q", "-t", "go", "ctx"]).ok();
    let spdx = json(&bench.rbuild(["sbom", "--format=spdx-json", "go"]).ok().stdout);
    let packages = spdx["packages"].as_array().expect("packages").iter().skip(1);
    let text = |value: &Value, default: &str| value.as_str().unwrap_or(default).to_owned();
    let mut found: Vec<_> = packages
        .map(|found| {
            format!("{} {}", text(&found["name"], ""), text(&found["versionInfo"], "devel"))
        })
        .filter(|package| !package.starts_with("stdlib "))
        .collect();
    expected.sort();
    found.sort();
    assert!(expected.len() > 10, "{}", listed.told());
    assert_eq!(found, expected);
}

#[test]
fn a_real_package_database_is_listed_as_its_own_tool_lists_it() {
    let Some(dpkg) = peer("dpkg-query") else { return };
    let format = "${db:Status-Status} ${Package} ${Version}\n";
    let listed = run(std::process::Command::new(dpkg).args(["-W", "-f", format])).ok();
    let mut expected: Vec<_> = listed
        .stdout
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(state, _)| !["not-installed", "config-files", "half-installed"].contains(state))
        .map(|(_, package)| package.to_owned())
        .collect();
    let status = std::fs::read_to_string("/var/lib/dpkg/status").expect("the database");
    let bench = Bench::new();
    bench.build("host", "FROM scratch\nCOPY status /var/lib/dpkg/\n", &[("status", &status)]).ok();
    let spdx = bench.rbuild(["sbom", "--format=spdx-json", "host"]).ok();
    let document = json(&spdx.stdout);
    let packages = document["packages"].as_array().expect("packages").iter().skip(1);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found: Vec<_> = packages
        .map(|package| format!("{} {}", text(&package["name"]), text(&package["versionInfo"])))
        .collect();
    expected.sort();
    found.sort();
    assert!(expected.len() > 50, "{}", listed.told());
    let differ: Vec<_> = found.iter().zip(&expected).find(|(a, b)| a != b).into_iter().collect();
    assert!(found.len() == expected.len() && differ.is_empty(), "{differ:?}");
}

/// A document of the store.
fn blob(bench: &Bench, digest: &str) -> Value {
    let hex = digest.strip_prefix("sha256:").expect("a digest");
    let path = bench.store().join("blobs/sha256").join(hex);
    json(&std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// The statements that refer to an image of the registry, by predicate type; read from the
/// fallback tag with skopeo and fetched into the bench's directory.
fn attached(bench: &Bench, repository: &str, image: &str) -> Vec<(String, Value)> {
    let skopeo =
        |arguments: &[&str]| run(std::process::Command::new("skopeo").args(arguments)).ok();
    let tag = image.replace(':', "-");
    let list = format!("docker://{repository}:{tag}");
    let list = json(&skopeo(&["inspect", "--raw", "--tls-verify=false", &list]).stdout);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for entry in list["manifests"].as_array().expect("referrers") {
        let digest = text(&entry["digest"]);
        assert_eq!(entry["artifactType"], "application/vnd.in-toto+json");
        let kind = text(&entry["annotations"]["in-toto.io/predicate-type"]);
        let from = format!("docker://{repository}@{digest}");
        let manifest = json(&skopeo(&["inspect", "--raw", "--tls-verify=false", &from]).stdout);
        assert_eq!(manifest["subject"]["digest"], image);
        let statement = blob(bench, &text(&manifest["layers"][0]["digest"]));
        assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
        assert_eq!(statement["predicateType"], kind.as_str());
        assert_eq!(format!("sha256:{}", text(&statement["subject"][0]["digest"]["sha256"])), image);
        found.push((kind, statement));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

const SLSA: &str = "https://slsa.dev/provenance/v1";

const ATTESTED: &str = "ARG WHO=nobody\nFROM localhost/busybox\nARG WHO\n\
    SHELL [\"/bin/sh\", \"-e\", \"-c\"]\nHEALTHCHECK --interval=5s CMD true\nONBUILD RUN true\n\
    COPY status /var/lib/dpkg/status\n\
    RUN --network=none --mount=type=secret,id=token echo $WHO > /who\n";

#[test]
fn attestations_are_attached_pushed_and_kept_apart_from_the_digest() {
    let (Some(registry), Some(_)) = (DockerRegistry::start(), peer("skopeo")) else { return };
    let bench = Bench::new();
    bench.busybox();
    bench.write("ctx/Dockerfile", ATTESTED);
    bench.write("ctx/status", STATUS);
    let token = bench.write("token", "very secret");
    let secret = format!("id=token,src={}", token.display());
    let metadata = bench.path().join("metadata.json");
    let build = |name: &str, more: &[&str]| {
        let file = format!("--metadata-file={}", metadata.display());
        let common = ["bud", "--timestamp=1", "--build-arg=WHO=somebody", "--secret", &secret];
        let rest = ["--tls-verify=false", "-q", &file, "-t", name, "ctx"];
        bench.rbuild([&common[..], more, &rest].concat()).ok();
        let metadata = json(&std::fs::read_to_string(&metadata).expect("the metadata"));
        metadata["containerimage.digest"].as_str().expect("a digest").to_owned()
    };
    let plain = build("app", &[]);
    let repository = registry.name("app");
    let name = format!("{repository}:1");
    let max = "--provenance=mode=max,builder-id=https://ci.example/7";
    let pushed = build(&name, &["--sbom", max, "--push"]);
    assert_eq!(pushed, plain, "what is said of an image does not change it");

    let said = attached(&bench, &repository, &pushed);
    let kinds: Vec<_> = said.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, [SLSA, "https://spdx.dev/Document"]);
    assert!(purls(&said[1].1["predicate"])[1].starts_with("pkg:deb/debian/libc6@"));
    let provenance = &said[0].1["predicate"];
    let text = provenance.to_string();
    assert!(!text.contains("very secret"), "{text}");
    let arguments = &provenance["buildDefinition"]["externalParameters"]["request"];
    assert_eq!(arguments["args"]["build-arg:WHO"], "somebody");
    assert_eq!(arguments["secrets"], json(r#"[{"id":"token"}]"#));
    assert_eq!(arguments["locals"], json(r#"[{"name":"context"}]"#));
    let base = &provenance["buildDefinition"]["resolvedDependencies"][0];
    assert!(base["uri"].as_str().is_some_and(|uri| uri.contains("localhost/busybox")), "{base}");
    assert!(base["digest"]["sha256"].is_string(), "{base}");
    assert_eq!(provenance["runDetails"]["builder"]["id"], "https://ci.example/7");
    assert_eq!(provenance["runDetails"]["metadata"]["rbuild_hermetic"], true);
    assert_eq!(provenance["runDetails"]["byproducts"][0]["name"], "Dockerfile");

    // Built again from the cache, the same is said: nothing is added.
    build(&name, &["--sbom", max, "--push"]);
    assert_eq!(attached(&bench, &repository, &pushed).len(), 2);

    // Without a push they wait in the store; `push` carries them, and so does an archive.
    let second = registry.name("second");
    let min = build("waiting", &["--attest=type=provenance", "--label=a=b"]);
    bench.rbuild(["push", "-q", "--tls-verify=false", "waiting", &second]).ok();
    let said = attached(&bench, &second, &min);
    assert_eq!(said.len(), 1);
    let text = said[0].1.to_string();
    assert!(!text.contains("somebody") && !text.contains("byproducts"), "{text}");
    bench.rbuild(["prune", "--all"]).ok();
    let archive = format!("oci-archive:{}", bench.path().join("image.tar").display());
    bench.rbuild(["push", "-q", "waiting", &archive]).ok();
    let saved = bench.path().join("saved").display().to_string();
    bench.rbuild(["save", "-q", "--format=oci-dir", "-o", &saved, "waiting"]).ok();
    let index = std::fs::read_to_string(format!("{saved}/index.json")).expect("an index");
    assert!(index.contains("in-toto"), "{index}");
    let other = Bench::new();
    other.rcopy(["copy", "-q", "--referrers", &archive, "store:localhost/back"]).ok();
    let layout = format!("oci:{}", other.path().join("layout").display());
    other.rbuild(["push", "-q", "back", &layout]).ok();
    let index = std::fs::read_to_string(other.path().join("layout/index.json")).expect("an index");
    assert!(index.contains("in-toto"), "{index}");

    // As BuildKit does it: in the index, as an image for no platform.
    let third = format!("{}:1", registry.name("third"));
    let root = build(&third, &["--provenance", "--attest-as=index", "--push"]);
    assert_ne!(root, plain);
    let from = format!("docker://{third}");
    let inspect = |arguments: &[&str]| {
        let mut command = std::process::Command::new("skopeo");
        command.args(["inspect", "--tls-verify=false"]).args(arguments).arg(&from);
        json(&run(&mut command).ok().stdout)
    };
    let index = inspect(&["--raw"]);
    let entries = index["manifests"].as_array().expect("an index");
    assert_eq!(entries.len(), 2, "{index}");
    assert_eq!(entries[1]["platform"]["os"], "unknown");
    assert_eq!(entries[1]["annotations"]["vnd.docker.reference.digest"], entries[0]["digest"]);
    // A peer finds the image in it, with what only Docker's documents are supposed to have.
    let config = inspect(&["--config", "--raw"]);
    assert_eq!(config["config"]["Healthcheck"]["Test"], json(r#"["CMD-SHELL","true"]"#));
    assert_eq!(config["config"]["Shell"], json(r#"["/bin/sh","-e","-c"]"#));
    assert_eq!(config["config"]["OnBuild"], json(r#"["RUN true"]"#));
    bench.rbuild(["check"]).ok();

    for (flag, word) in [
        ("--sbom=generator=docker/scout", "generator"),
        ("--provenance=mode=huge", "huge"),
        ("--attest=type=vuln", "vuln"),
    ] {
        bench.rbuild(["bud", flag, "ctx"]).fails(&[word]).code(125);
    }
}

#[test]
fn attestations_are_signed_and_only_those_of_the_key_are_believed() {
    let Some(registry) = DockerRegistry::start() else { return };
    let bench = Bench::new();
    bench.write("ctx/Dockerfile", "FROM scratch\nCOPY status /var/lib/dpkg/status\n");
    bench.write("ctx/status", STATUS);
    let name = registry.name("app:1");
    let flags = ["--timestamp=1", "--sbom", "--provenance=mode=max", "--push"];
    let common = ["bud", "--tls-verify=false", "-q", "-t", &name, "ctx"];
    bench.rbuild([&common[..], &flags].concat()).ok();
    let password = bench.write("password", "secret");
    for prefix in ["mine", "other"] {
        let mut make = bench.command("rbuild");
        make.args(["generate-key-pair", "--output", prefix]);
        run(make.env("COSIGN_PASSWORD", "secret")).ok();
    }
    let with = |command: &str, more: &[&str]| {
        bench.rbuild([&[command, &name, "--tls-verify=false"][..], more].concat())
    };
    let file = password.display().to_string();
    let key = ["--key=mine.key", "--passphrase-file", &file];
    with("verify-attestation", &["--key=mine.pub"]).fails(&["no signed statement"]);
    with("attest", &key).ok();
    let good = with("verify-attestation", &["--key=mine.pub", "--type=spdxjson"]).ok();
    let statement = json(good.text());
    assert!(purls(&statement["predicate"])[1].starts_with("pkg:deb/debian/libc6@"));
    with("verify-attestation", &["--key=other.pub"]).fails(&["trusted key"]);

    bench.write("vex.json", r#"{"@context":"https://openvex.dev/ns/v0.2.0"}"#);
    let vex = ["--type=openvex", "--predicate=vex.json"];
    with("attest", &[&key[..], &vex].concat()).ok();
    let good = with("verify-attestation", &["--key=mine.pub", "--type=openvex"]).ok();
    assert_eq!(json(good.text())["predicate"]["@context"], "https://openvex.dev/ns/v0.2.0");
    // A statement is no signature of the image.
    with("verify", &["--key=mine.pub"]).fails(&["no signature"]);

    // What was signed is on the registry; the store has the same image without signatures.
    let remote = format!("docker://{name}");
    let again = |image: &str, key: &str| {
        bench.rbuild(["verify-build", image, "--tls-verify=false", "--context=ctx", key])
    };
    assert!(again(&remote, "--key=mine.pub").ok().text().starts_with("identical"));
    again(&remote, "--key=other.pub").fails(&["trusted key"]).code(125);
    again(&name, "--key=mine.pub").fails(&["no signed statement"]).code(125);
}

#[test]
fn known_vulnerabilities_are_listed_from_a_database_without_a_network() {
    let bench = Bench::new();
    let status = "Package: libhole1\nSource: hole\nStatus: install ok installed\nVersion: 1.0-1\nArchitecture: amd64\n";
    let release = "ID=debian\nVERSION_ID=\"12\"\n";
    let layer = e2e::image::Layer::new()
        .file("etc/os-release", 0o644, release.as_bytes())
        .file("var/lib/dpkg/status", 0o644, status.as_bytes())
        .finish();
    e2e::image::layout(&bench.path().join("image"), "app", &[layer], |_| {});
    let record = |id: &str, ecosystem: &str, fixed: &str| {
        serde_json::json!({
            "id": id, "summary": "a hole", "affected": [{
                "package": { "ecosystem": ecosystem, "name": "hole" },
                "ranges": [{ "type": "ECOSYSTEM", "events": [{ "introduced": "0" }, { "fixed": fixed }] }],
            }],
        })
    };
    let database = [
        record("CVE-2026-0001", "Debian:12", "1.0-2"),
        record("CVE-2026-0002", "Debian:12", "1.0-1"),
        record("CVE-2026-0003", "Debian:11", "9"),
    ];
    bench.write("osv.json", serde_json::json!(database).to_string());
    let list = |more: &[&str]| {
        bench.rbuild([&["sbom", "--vulns", "osv.json", "oci:image:app"][..], more].concat())
    };
    let table = list(&[]).ok();
    let row = table.stdout.lines().find(|line| line.starts_with("CVE")).unwrap();
    let row: Vec<_> = row.split_whitespace().take(4).collect();
    assert_eq!(row, ["CVE-2026-0001", "libhole1", "1.0-1", "1.0-2"], "{}", table.told());
    assert!(table.stdout.ends_with("1 known vulnerability\n"), "{}", table.told());
    let json: serde_json::Value =
        serde_json::from_str(&list(&["--format=json"]).ok().stdout).unwrap();
    assert_eq!(json[0]["fixed"], "1.0-2", "{json}");
    assert_eq!(json.as_array().unwrap().len(), 1);
    list(&["--format=spdx-json"]).fails(&["--vulns takes"]);
    bench.write("osv.json", "[");
    list(&[]).fails(&["osv.json"]);
}
