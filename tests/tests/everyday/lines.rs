//! Command lines as people type them, in files: `$ LINE` is run by a shell in one directory, the
//! lines below it are what it prints on standard output (nothing means: anything), and `? N` is its
//! exit code where that is not 0. The programs stand in `$PATH` under the names of the tools they
//! stand in for.

use std::os::unix::fs::symlink;
use std::process::Command;

use registry_server::{Options, Registry};

use e2e::{Bench, Ran, binary, run};

/// How lines name the registry of the scene.
const REGISTRY: &str = "localhost:5000";

/// The names under which the programs are started.
const NAMES: &[(&str, &[&str])] = &[
    ("rbuild", &["rbuild", "buildah", "podman", "docker"]),
    ("rcopy", &["rcopy", "skopeo", "crane", "regctl", "oras"]),
];

/// A directory with what everyday lines speak of: a `Dockerfile`, a context, `busybox` in the store,
/// `team/app:1` (an index) and `team/one:1` (an image) on a registry, the layouts `image` and `index`.
pub struct Lines {
    scene: e2e::scene::Scene,
    registry: Registry,
}

/// A line, and what it is to do.
struct Line {
    text: String,
    code: i32,
    prints: Vec<String>,
}

impl Default for Lines {
    fn default() -> Self {
        Lines::new()
    }
}

impl Lines {
    /// The scene.
    pub fn new() -> Lines {
        let lines = Lines {
            scene: e2e::scene::Scene::new(),
            registry: Registry::start(Options::default()).expect("a registry"),
        };
        let bench = &lines.scene.bench;
        let bin = bench.path().join("bin");
        std::fs::create_dir(&bin).expect("a directory");
        for (program, names) in NAMES {
            for name in *names {
                symlink(binary(program), bin.join(name)).expect("a link");
            }
        }
        bench.busybox();
        bench.rbuild(["tag", "localhost/busybox", "docker.io/library/busybox:latest"]).ok();
        bench.rbuild(["untag", "localhost/busybox"]).ok();
        bench.write("Dockerfile", "FROM busybox AS base\nARG V=1\nENV V=$V\nCOPY a /a\nRUN echo $V >/v\nFROM base\nCMD [\"cat\", \"/v\"]\n");
        bench.write("a", "a\n");
        bench.write("dir/b", "b\n");
        bench.write("secret.txt", "secret\n");
        bench.write("args.env", "V=3\n");
        lines.line(&format!("rcopy copy --all oci:index:app docker://{REGISTRY}/team/app:1")).ok();
        lines.line(&format!("rcopy copy oci:image:app docker://{REGISTRY}/team/one:1")).ok();
        lines
    }

    /// The bench.
    pub fn bench(&self) -> &Bench {
        &self.scene.bench
    }

    fn here(&self, text: &str) -> String {
        text.replace(REGISTRY, &self.registry.address())
    }

    /// Runs one line.
    #[track_caller]
    pub fn line(&self, text: &str) -> Ran {
        let bench = self.bench();
        let mut command = Command::new("sh");
        for (variable, value) in bench.command("rbuild").get_envs() {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", bench.path().join("bin").display()));
        run(command.current_dir(bench.path()).args(["-c", &self.here(text)]))
    }

    /// Runs lines one after the other; gives back how many there were, and what is wrong.
    pub fn check(&self, text: &str) -> (usize, Vec<String>) {
        let mut wrong = Vec::new();
        let lines = read(text);
        for line in &lines {
            let ran = self.line(&line.text);
            let prints = self.here(&line.prints.join("\n"));
            if ran.code != line.code || !(prints.is_empty() || prints == ran.text()) {
                let wanted = format!("wanted: exit code {}, {prints:?}", line.code);
                wrong.push(format!("{}\n{}\n{wanted}\n", line.text, ran.told()));
            }
        }
        (lines.len(), wrong)
    }
}

fn read(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in text.lines() {
        if let Some(text) = row.strip_prefix("$ ") {
            lines.push(Line { text: text.to_owned(), code: 0, prints: Vec::new() });
        } else if let Some(last) = lines.last_mut() {
            match row.strip_prefix("? ").and_then(|code| code.parse().ok()) {
                Some(code) => last.code = code,
                None if row.starts_with('#') || row.is_empty() => {}
                None => last.prints.push(row.to_owned()),
            }
        }
    }
    lines
}

/// The blocks of a page that show a terminal: between lines ```` ```console ```` and ```` ``` ````.
pub fn shown(page: &str) -> String {
    let blocks = page.split("```console\n").skip(1);
    blocks.filter_map(|block| block.split("\n```").next()).collect::<Vec<_>>().join("\n")
}
