//! The list of images, in buildah's words, and what is removed by it.

use e2e::{Bench, Ran};
use serde_json::Value;

#[test]
fn images_are_listed_filtered_and_pruned_as_buildah_does() {
    let bench = Bench::new();
    for (name, label, epoch) in [("old", "a=1", "1000000000"), ("new:2", "b=2", "1600000000")] {
        bench.write("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
        let label = format!("--label={label}");
        bench.rbuild(["bud", "-q", "--timestamp", epoch, &label, "-t", name, "ctx"]).ok();
    }
    bench.rbuild(["bud", "-q", "--timestamp=1300000000", "ctx"]).ok();
    let images = |more: &[&str]| -> Ran { bench.rbuild([&["images"][..], more].concat()) };
    let names = |filter: &str| {
        let shown = images(&["-n", "--format={{.Name}}:{{.Tag}}", "--filter", filter]).ok();
        shown.text().replace('\n', " ")
    };
    let (old, new, none) = ("localhost/old:latest", "localhost/new:2", "<none>:<none>");
    for (filter, expected) in [
        ("dangling=true", none.to_owned()),
        ("dangling=false", format!("{new} {old}")),
        ("reference=ol*", old.to_owned()),
        ("reference=localhost/*:2", new.to_owned()),
        ("label=a", old.to_owned()),
        ("label=b=2", new.to_owned()),
        ("label!=a", format!("{new} {none}")),
        ("before=new:2", format!("{none} {old}")),
        ("since=old", format!("{new} {none}")),
        ("until=2005-01-01T00:00:00Z", old.to_owned()),
        ("until=24h", format!("{new} {none} {old}")),
        ("readonly=true", String::new()),
    ] {
        assert_eq!(names(filter), expected, "{filter}");
    }
    let table = images(&["--format", "table {{.Repository}}\\t{{.Tag}}", "old"]).ok();
    assert_eq!(table.stdout, "REPOSITORY     IMAGE TAG\nlocalhost/old  latest\n");
    assert_eq!(images(&["-a"]).ok().stdout.lines().count(), 4);
    assert_eq!(images(&["--noheading"]).ok().stdout.lines().count(), 3);
    let json: Value = serde_json::from_str(&images(&["--json", "old"]).ok().stdout).expect("JSON");
    assert_eq!(json[0]["names"][0], old);
    assert_eq!(json[0]["created"], 1_000_000_000);
    for (line, word) in [
        (&["--history"][..], "--history"),
        (&["--filter=colour=red"], "colour=red"),
        (&["--filter=before=nothing"], "nothing"),
        (&["--filter=dangling=perhaps"], "perhaps"),
        (&["--format={{.Id", "old"], "{{.Id"),
    ] {
        images(line).fails(&[word]);
    }
    let pruned = bench.rbuild(["rmi", "--prune"]).ok();
    assert_eq!(pruned.stdout.lines().count(), 1, "{}", pruned.told());
    assert_eq!(names("dangling=true"), "");
    bench.rbuild(["rmi", "-a"]).ok();
    assert_eq!(images(&["-q"]).ok().stdout, "");
}
