//! Several platforms in one build.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use e2e::registry::DockerRegistry;
use e2e::{Bench, peer, root, run};
use serde_json::Value;

/// The beginning of an executable for s390x: enough for the kernel to say that it is none of its.
fn s390x() -> Vec<u8> {
    let mut header = vec![0; 128];
    header[..7].copy_from_slice(b"\x7fELF\x02\x02\x01");
    header[16..20].copy_from_slice(&[0, 2, 0, 22]);
    header
}

/// A program for arm64 that makes the directory `/made`.
fn arm64() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const CODE: u64 = 120;
    // mkdirat(AT_FDCWD, "/made", 0755); exit(0)
    let code: [u32; 8] = [
        0x9280_0c60, // mov x0, #-100
        0x1000_00e1, // adr x1, path
        0xd280_3da2, // mov x2, #0o755
        0xd280_0448, // mov x8, #34
        0xd400_0001, // svc
        0xd280_0000, // mov x0, #0
        0xd280_0ba8, // mov x8, #93
        0xd400_0001, // svc
    ];
    let size = CODE + 4 * 8 + 8;
    let mut program = Vec::new();
    program.extend(b"\x7fELF\x02\x01\x01");
    program.resize(16, 0);
    program.extend([2u16, 183].iter().flat_map(|half| half.to_le_bytes()));
    program.extend(1u32.to_le_bytes());
    program.extend([BASE + CODE, 64, 0].iter().flat_map(|wide| wide.to_le_bytes()));
    program.extend(0u32.to_le_bytes());
    program.extend([64u16, 56, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    program.extend([1u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    program.extend([0, BASE, BASE, size, size, 0x1000].iter().flat_map(|wide| wide.to_le_bytes()));
    program.extend(code.iter().flat_map(|word| word.to_le_bytes()));
    // What the `adr` names, seven instructions behind it.
    program.extend(b"/made\0\0\0");
    program
}

fn program(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

const SEVERAL: &str = r#"
FROM --platform=$BUILDPLATFORM busybox AS tools
RUN cat /proc/sys/kernel/random/uuid > /id
FROM scratch
ARG TARGETARCH TARGETPLATFORM BUILDPLATFORM
COPY --from=tools /id /id
COPY --from=tools /bin/busybox /bin/busybox
COPY of-$TARGETARCH /of
LABEL target=$TARGETPLATFORM build=$BUILDPLATFORM
"#;

#[test]
fn several_platforms_give_one_index_and_share_what_is_the_same() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.busybox();
    let context = bench.write("context/Dockerfile", SEVERAL);
    let context = context.parent().unwrap().to_owned();
    bench.write("context/of-amd64", "amd64\n");
    bench.write("context/of-arm64", "arm64\n");
    let build = |more: &[&str]| {
        let line = ["bud", "--progress=plain", "--platform=linux/amd64,linux/arm64"];
        let line: Vec<&str> = line.iter().chain(more).copied().collect();
        bench.rbuild(line.into_iter().chain([context.to_str().unwrap()]))
    };
    let metadata = bench.path().join("metadata");
    let built = build(&[
        "-t=several",
        "--output=out",
        "--output=type=oci,dest=several.tar",
        "--output=type=tar,dest=files.tar",
        &format!("--metadata-file={}", metadata.display()),
    ])
    .ok();
    assert_eq!(built.stderr.matches("] RUN cat").count(), 1, "{}", built.told());
    // Files of each platform in a directory of its own; the shared step ran once.
    let read = |name: &str| std::fs::read_to_string(bench.path().join(name)).unwrap();
    assert_eq!(read("out/linux_amd64/of"), "amd64\n");
    assert_eq!(read("out/linux_arm64/of"), "arm64\n");
    assert_eq!(read("out/linux_amd64/id"), read("out/linux_arm64/id"));
    let listed =
        run(std::process::Command::new("tar").args(["tf"]).arg(bench.path().join("files.tar")));
    assert!(listed.ok().stdout.lines().any(|line| line == "linux_arm64/of"));
    // The name is the index's; this machine's image is found below it.
    let metadata: Value = serde_json::from_str(&read(metadata.to_str().unwrap())).unwrap();
    let digest = metadata["containerimage.digest"].as_str().unwrap().to_owned();
    let raw = bench.rcopy(["inspect", "--raw", "store:several"]).ok();
    let index: Value = serde_json::from_str(&raw.stdout).unwrap();
    let platforms: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    let ran = bench.rbuild(["run", "--rm", "several", "/bin/busybox", "cat", "/of"]).ok();
    assert_eq!(ran.stdout, "amd64\n");
    // Built again, the same; from what the cache knows.
    let again = build(&["-t=again"]).ok();
    assert!(
        again.stderr.contains(&digest) && again.stderr.contains("0 steps run"),
        "{}",
        again.told()
    );
    // A form that holds one image only says so, and nothing is left of it.
    build(&["--output=type=docker,dest=one.tar"]).fails(&["docker-archive", "index"]);
    assert!(!bench.path().join("one.tar").exists());
    let Some(registry) = DockerRegistry::start() else { return };
    let name = registry.name("several:1");
    build(&["--push", "-t", &name]).ok();
    let Some(skopeo) = peer("skopeo") else { return };
    for architecture in ["amd64", "arm64"] {
        let seen = run(std::process::Command::new(&skopeo).args([
            "inspect",
            "--config",
            "--tls-verify=false",
            "--override-arch",
            architecture,
            &format!("docker://{name}"),
        ]));
        let config: Value = serde_json::from_str(&seen.ok().stdout).unwrap();
        assert_eq!(config["architecture"], architecture);
        assert_eq!(config["config"]["Labels"]["target"], format!("linux/{architecture}"));
        assert_eq!(config["config"]["Labels"]["build"], "linux/amd64");
    }
}

#[test]
fn commands_of_another_machine_need_an_emulator_and_say_so() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    let file =
        bench.write("context/Dockerfile", "FROM scratch\nCOPY program /\nRUN [\"/program\"]\n");
    let context = file.parent().unwrap().to_owned();
    let build = |platform: &str, bytes: &[u8]| {
        program(&context.join("program"), bytes);
        bench.rbuild([
            "bud",
            "-t=foreign",
            "-o=out",
            "--platform",
            platform,
            context.to_str().unwrap(),
        ])
    };
    let handlers = Path::new("/proc/sys/fs/binfmt_misc");
    if handlers.join("qemu-s390x").exists() {
        e2e::cannot("an emulator for s390x is registered");
    } else {
        build("linux/s390x", &s390x()).fails(&[
            "Dockerfile:3",
            "RUN [\"/program\"]",
            "linux/s390x",
            "binfmt_misc",
            "qemu-user-static",
        ]);
        bench.rbuild(["run", "--rm", "foreign"]).fails(&["foreign"]);
    }
    let flags = std::fs::read_to_string(handlers.join("qemu-aarch64")).unwrap_or_default();
    if flags.lines().any(|line| line.starts_with("flags:") && line.contains('F')) {
        build("linux/arm64", &arm64()).ok();
        assert!(bench.path().join("out/made").is_dir());
    } else {
        e2e::cannot("no emulator for arm64 is registered");
    }
}

#[test]
fn all_platforms_are_those_that_the_bases_have_in_common() {
    let bench = Bench::new();
    let context = bench.path().join("context");
    let build = |dockerfile: &str, more: &[&str]| {
        bench.write("context/Dockerfile", dockerfile);
        let line = ["bud", "--progress=plain"].into_iter().chain(more.iter().copied());
        bench.rbuild(line.chain([context.to_str().unwrap()]))
    };
    let platforms = |name: &str| -> Vec<String> {
        let raw = bench.rcopy(["inspect", "--raw", &format!("store:{name}")]).ok();
        let index: Value = serde_json::from_str(&raw.stdout).unwrap();
        let text = |one: &Value| {
            let part = |name: &str| one["platform"][name].as_str().unwrap().to_owned();
            format!("{}/{}", part("os"), part("architecture"))
        };
        index["manifests"].as_array().unwrap().iter().map(text).collect()
    };
    let base = "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /of-$TARGETARCH\n";
    build(
        base,
        &[
            "--platform=linux/amd64,linux/arm64,linux/s390x",
            "-t=three",
            "-o=type=oci,tar=false,dest=three",
        ],
    )
    .ok();
    build(base, &["--platform=linux/s390x,linux/riscv64,linux/arm64", "-t=other"]).ok();
    build(base, &["--platform=linux/riscv64,linux/ppc64le", "-t=apart"]).ok();
    build(base, &["-t=single"]).ok();
    build("FROM three\nLABEL a=b\n", &["--all-platforms", "-t=all"]).ok();
    assert_eq!(platforms("all"), ["linux/amd64", "linux/arm64", "linux/s390x"]);
    // Of several bases only what they have in common; stages that are not needed, and those of a
    // platform of their own, say nothing.
    let common = "FROM apart AS unused\nFROM --platform=$BUILDPLATFORM single AS tools\n\
                  FROM other AS more\nFROM three\nCOPY --from=more / /more/\n\
                  COPY --from=tools / /tools/\n";
    build(common, &["--all-platforms", "-t=common"]).ok();
    assert_eq!(platforms("common"), ["linux/s390x", "linux/arm64"]);
    // From a layout, and from a registry, whose index is asked for.
    let file = "FROM oci:three\n".replace("three", bench.path().join("three").to_str().unwrap());
    build(&file, &["--all-platforms", "-t=layout"]).ok();
    assert_eq!(platforms("layout").len(), 3);
    if let Some(registry) = DockerRegistry::start() {
        let name = registry.name("three:1");
        bench.rcopy(["copy", "--all", "store:three", &format!("docker://{name}")]).ok();
        let again = ["--all-platforms", "-t=fetched"];
        build(&format!("FROM {name}\n"), &again).ok();
        // One image of it is in the store by that name now; the index still counts.
        build(&format!("FROM {name}\nLABEL again=1\n"), &again).ok();
        assert_eq!(platforms("fetched"), ["linux/amd64", "linux/arm64", "linux/s390x"]);
    }
    for (dockerfile, words) in [
        ("FROM single\n", &["single", "is one image"][..]),
        ("FROM three AS a\nFROM apart\nCOPY --from=a / /a\n", &["apart", "no platform in common"]),
        ("FROM scratch\nCOPY Dockerfile /\n", &["nothing the target needs"]),
        ("FROM absent\n", &["absent"]),
    ] {
        build(dockerfile, &["--all-platforms", "--pull=never", "-t=refused"]).fails(words);
    }
    bench.rbuild(["bud", "--all-platforms", "--platform=linux/arm64", "."]).code(125);
}
