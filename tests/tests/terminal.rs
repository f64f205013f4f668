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
