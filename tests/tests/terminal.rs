//! What comes from images and registries does not steer the terminal it is shown on.
#![allow(clippy::unwrap_used, reason = "tests")]

use e2e::Bench;
use e2e::terminal::on_terminal;

const ESCAPE: &str = "\u{1b}]0;owned\u{7}";

#[test]
fn escapes_of_images_are_shown_on_terminals_and_kept_in_pipes() {
    let bench = Bench::new();
    let one = |name: &str, file: &str| {
        let layer = e2e::image::Layer::new().file(file, 0o644, b"x").finish();
        e2e::image::layout(&bench.path().join(name), "app", &[layer], |config| {
            config.config.labels.insert("name".to_owned(), ESCAPE.to_owned());
            config.author = Some(ESCAPE.to_owned());
            config.config.cmd = Some(vec!["sh".to_owned(), ESCAPE.to_owned()]);
            let step = config.history.last_mut();
            if let Some(step) = step {
                step.created_by = Some(format!("RUN {ESCAPE}"));
            } else {
                config.history = vec![image::History {
                    created_by: Some(format!("RUN {ESCAPE}")),
                    ..image::History::default()
                }];
            }
        });
    };
    one("image", &format!("file{ESCAPE}"));
    one("other", &format!("other{ESCAPE}"));
    let pulled = bench.rbuild(["pull", "-q", "oci:image:app"]).ok();
    let id = pulled.text().to_owned();
    bench.rbuild(["create", "--name", "c", &id]).ok();
    let label = "{{index .Config.Labels \"name\"}}";
    for (program, line) in [
        ("rbuild", &["history", "--no-trunc", &id][..]),
        ("rbuild", &["history", "--format", "{{.CreatedBy}}", &id]),
        ("rbuild", &["inspect", "--format", label, &id]),
        ("rbuild", &["inspect", "--format", "{{.Author}}", &id]),
        ("rbuild", &["ps", "--all", "--no-trunc"]),
        ("rbuild", &["ps", "--all", "--format", "{{.Command}} {{.Labels}}"]),
        ("rbuild", &["inspect", "--type=container", "--format", "{{.Args}}", "c"]),
        ("rcopy", &["diff", "oci:image:app", "oci:other:app"]),
        ("rcopy", &["inspect", "--format", "{{.Labels.name}}", "oci:image:app"]),
        ("rcopy", &["explore", "--summary", "oci:image:app"]),
        ("rbuild", &["inspect", &format!("no{ESCAPE}thing")]),
    ] {
        let shown = on_terminal(&bench, program, line, "");
        let text = shown.stdout.replace("\u{1b}[", "");
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{program} {line:?}: {text:?}");
        assert!(text.contains("u001b]0;owned"), "{program} {line:?}: {text:?}");
    }
    let piped = bench.rbuild(["inspect", "--format", label, &id]).ok();
    assert_eq!(piped.stdout, format!("{ESCAPE}\n"));
}

/// The lines that a terminal of so many columns shows one after the other, without their colours.
fn lines(shown: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut chars = shown.chars();
    while let Some(letter) = chars.next() {
        match letter {
            '\u{1b}' => drop(chars.by_ref().skip(1).find(|end| end.is_ascii_alphabetic())),
            letter => plain.push(letter),
        }
    }
    plain.split(['\r', '\n']).map(str::to_owned).collect()
}

/// The rows that a line of progress takes: bars fill theirs, so that the next one begins below.
fn rows(line: &str, columns: usize) -> Vec<String> {
    let bars = line.split("copied ").next().unwrap();
    let letters: Vec<char> = bars.chars().collect();
    let rows = letters.chunks(columns).map(|row| row.iter().collect::<String>());
    rows.filter(|row| !row.trim().is_empty()).collect()
}

#[test]
fn progress_on_a_terminal_says_total_speed_and_time_left_and_fits_it() {
    use registry_server::{Effect, Fault, Options, Registry};
    if requires::program("script").is_none() {
        return;
    }
    let bench = Bench::new();
    let registry = Registry::start(Options::default()).unwrap();
    bench.build("app", "FROM scratch\nCOPY f /f\n", &[("f", "text")]);
    let name = format!("{}/team/of-a-long-name-that-does-not-fit/app:1", registry.address());
    bench.rbuild(["push", "-q", "app", &name]).ok();
    // Some 400 bytes of a config, for three seconds.
    let slowly = Effect::Drip(std::time::Duration::from_millis(8));
    registry.fault(Fault::always(
        "GET",
        "/v2/team/of-a-long-name-that-does-not-fit/app/blobs/*",
        slowly,
    ));
    for columns in [60, 100] {
        let line = format!(
            "stty rows 30 cols {columns}; exec {} copy docker://{name} oci:layout-{columns}:app",
            e2e::binary("rcopy").display()
        );
        let mut script = std::process::Command::new("script");
        script.current_dir(bench.path()).args(["-qec", &line, "/dev/null"]);
        let shown =
            e2e::run(script.env("TERM", "xterm-256color").stdin(std::process::Stdio::null()));
        let shown = lines(&shown.ok().stdout);
        for row in shown.iter().flat_map(|line| rows(line, columns)) {
            let begins = row.trim_start().starts_with(|first: char| !first.is_ascii());
            assert!(
                begins,
                "a row of {columns} columns is the end of another: {row:?} in {shown:#?}"
            );
        }
        let far = shown.iter().any(|line| line.contains("B/1") || line.contains("B/4"));
        assert!(far, "how far of the total: {shown:#?}");
        if columns == 100 {
            let pace = shown.iter().any(|line| line.contains("B/s") && line.contains("left"));
            assert!(pace, "speed and time left: {shown:#?}");
        }
    }
}
