//! What an image is made of and how: SBOMs, provenance, and building it again.

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
fn a_real_package_database_is_listed_as_its_own_tool_lists_it() {
    let Some(dpkg) = peer("dpkg-query") else { return };
    let format = "${db:Status-Status} ${Package} ${Version}\n";
    let listed = run(std::process::Command::new(dpkg).args(["-W", "-f", format])).ok();
    let mut expected: Vec<_> = listed
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .map(str::to_owned)
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
    assert_eq!(found, expected);
}
