//! `rbuild bake`: targets of HCL, JSON and compose files.
#![allow(clippy::unwrap_used, reason = "tests")]

use e2e::{Bench, Ran};
use serde_json::Value;

const HCL: &str = r#"
variable "TAG" { default = "latest" }
variable "NAME" { default = "app-${TAG}" }
variable "DEBUG" { default = false }
group "default" { targets = ["app", "tools"] }
target "base" {
  args = { A = "1", B = "base" }
  labels = { made = "by-bake" }
}
target "app" {
  inherits = ["base"]
  dockerfile-inline = <<EOT
FROM scratch
ARG A
ARG B
LABEL a=$A b=$B
COPY a /a
EOT
  args = { B = upper(TAG) }
  tags = ["app:${TAG}", NAME]
}
target "tools" {
  name = "tools-${os}"
  matrix = { os = ["one", "two"] }
  inherits = ["base"]
  dockerfile = "Dockerfile.tools"
  tags = ["tools:${os}"]
  no-cache = DEBUG
}
"#;

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("docker-bake.hcl", HCL);
    bench.write("Dockerfile.tools", "FROM scratch\nCOPY a /tool\n");
    bench.write("a", "a");
    bench
}

fn print(bench: &Bench, line: &[&str]) -> Value {
    let ran = bench.rbuild([&["bake", "--print"][..], line].concat()).ok();
    serde_json::from_str(&ran.stdout).unwrap()
}

#[track_caller]
fn label(bench: &Bench, image: &str, label: &str) -> String {
    let template = format!("{{{{index .Config.Labels {label:?}}}}}");
    bench.rbuild(["inspect", "--format", &template, image]).ok().text().to_owned()
}

#[test]
fn targets_inherit_and_a_matrix_makes_several() {
    let bench = bench();
    let shown = print(&bench, &[]);
    assert_eq!(shown["group"]["default"]["targets"], serde_json::json!(["app", "tools"]));
    let app = &shown["target"]["app"];
    assert_eq!(app["tags"], serde_json::json!(["app:latest", "app-latest"]));
    assert_eq!(app["args"], serde_json::json!({"A": "1", "B": "LATEST"}));
    assert_eq!(app["labels"]["made"], "by-bake");
    assert_eq!(shown["target"]["tools-two"]["tags"][0], "tools:two");
    assert!(shown["target"].get("base").is_none(), "{shown}");
    let set = print(
        &bench,
        &[
            "app",
            "--var",
            "TAG=v2",
            "--set",
            "*.args.A=5",
            "--set",
            "app.tags=x",
            "--set",
            "app.tags=y",
        ],
    );
    let app = &set["target"]["app"];
    assert_eq!(app["args"], serde_json::json!({"A": "5", "B": "V2"}));
    assert_eq!(app["tags"], serde_json::json!(["x", "y"]));

    bench.rbuild(["bake", "--metadata-file", "meta.json"]).ok();
    for name in ["app:latest", "app-latest", "tools:one", "tools:two"] {
        assert_eq!(label(&bench, name, "made"), "by-bake", "{name}");
    }
    assert_eq!(label(&bench, "app", "a"), "1");
    assert_eq!(label(&bench, "app", "b"), "LATEST");
    let metadata = std::fs::read_to_string(bench.path().join("meta.json")).unwrap();
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    assert!(metadata["tools-one"]["containerimage.digest"].is_string(), "{metadata}");
    let listed = bench.rbuild(["bake", "--list", "targets"]).ok();
    assert_eq!(listed.text(), "app\nbase\ntools-one\ntools-two");
    let listed = bench.rbuild(["buildx", "bake", "--list", "variables"]).ok();
    assert_eq!(listed.text(), "DEBUG\tfalse\nNAME\t\"app-latest\"\nTAG\t\"latest\"");
}

#[test]
fn a_target_may_be_the_context_of_another() {
    let bench = bench();
    bench.write(
        "chain.json",
        r#"{"variable": {"V": {"default": "1"}},
            "target": {
              "below": {"dockerfile-inline": "FROM scratch\nCOPY a /a\nLABEL v=${V}\n"},
              "above": {"dockerfile-inline": "FROM below\nCOPY a /b\n", "tags": ["above"],
                        "contexts": {"below": "target:below"}}}}"#,
    );
    bench.rbuild(["bake", "-f", "chain.json", "above"]).ok();
    assert_eq!(label(&bench, "above", "v"), "1");
    assert!(bench.rbuild(["images", "-q", "below"]).ok().stdout.is_empty());
}

#[test]
fn services_of_compose_files_are_targets() {
    let bench = bench();
    bench.write(
        "compose.yaml",
        "services:\n  web:\n    image: web:1\n    build:\n      context: .\n      dockerfile: Dockerfile.tools\n      \
         args: [\"A=1\"]\n      labels:\n        made: $$compose\n      x-bake:\n        tags: [\"web:2\"]\n  db:\n    image: db\n",
    );
    bench.rbuild(["bake", "-f", "compose.yaml"]).ok();
    assert_eq!(label(&bench, "web:2", "made"), "$compose");
    let files = print(&bench, &["-f", "docker-bake.hcl", "-f", "compose.yaml", "web", "app"]);
    assert_eq!(files["target"]["web"]["args"]["A"], "1");
    assert_eq!(files["target"]["app"]["args"]["A"], "1");
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let bench = Bench::new();
    let fails = |text: &str, words: &[&str]| -> Ran {
        bench.write("docker-bake.hcl", text);
        bench.rbuild(["bake"]).code(125).fails(words)
    };
    bench.rbuild(["bake"]).code(125).fails(&["docker-bake.hcl", "--file"]);
    fails("target \"a\" {", &["docker-bake.hcl"]);
    fails("target \"a\" {}", &["default"]);
    fails("target \"default\" { odd = 1 }", &["default", "odd", "not known"]);
    fails("target \"default\" { tags = [no] }", &["default", "tags", "no"]);
    fails("target \"default\" { inherits = [\"default\"] }", &["circle"]);
    fails("group \"default\" { targets = [\"default\"] }", &["circle"]);
    fails("target \"default\" { no-cache = \"x\" }", &["no-cache", "type"]);
    fails("function \"f\" {}", &["function", "f", "result"]);
    let endless = "function \"f\" { result = f() }\ntarget \"default\" { tags = [f()] }";
    fails(endless, &["without an end"]);
    let contexts = "target \"default\" { contexts = { x = \"target:default\" } }";
    fails(contexts, &["built on each other"]);
}

#[test]
fn functions_of_the_file_and_of_the_clock_are_called() {
    let bench = Bench::new();
    let text = r#"
variable "TEAM" { default = "ours" }
function "tag" {
  params = [name, version]
  result = "${TEAM}/${name}:${bump(version)}"
}
function "bump" {
  params = [number]
  result = add(number, 1)
}
function "all" {
  params = [first]
  variadic_params = rest
  result = concat([first], rest)
}
target "default" {
  context = "."
  tags = all(tag("app", 1), tag("app", 2))
  args = {
    NOW = timestamp()
    LATER = timeadd("2026-01-31T23:30:00Z", "1h30m")
    EARLIER = timeadd("2026-01-01T00:00:00Z", "-10s")
  }
}
"#;
    bench.write("docker-bake.hcl", text);
    bench.write("Dockerfile", "FROM scratch\n");
    let target = &print(&bench, &[])["target"]["default"];
    assert_eq!(target["tags"], serde_json::json!(["ours/app:2", "ours/app:3"]));
    assert_eq!(target["args"]["LATER"], "2026-02-01T01:00:00Z");
    assert_eq!(target["args"]["EARLIER"], "2025-12-31T23:59:50Z");
    let now = target["args"]["NOW"].as_str().unwrap();
    assert!(now.len() == 20 && now.starts_with("20") && now.ends_with('Z'), "{now}");
}

#[test]
fn functions_of_the_standard_library_are_known() {
    let bench = Bench::new();
    let text = r#"
variable "REF" { default = "refs/tags/v1.20.3" }
variable "VERSIONS" { default = ["1.9", "1.20"] }
target "default" {
  context = "."
  tags = [for v in sort(VERSIONS) : format("app:%s-%03d", regex_replace(v, "[.]", "-"), length(VERSIONS))]
  args = {
    MINOR = regex("v([0-9]+[.][0-9]+)", REF)[0]
    NAME = substr(basename(REF), 1, -1)
    NEXT = add(element(split(".", basename(REF)), 1), 1)
  }
  labels = { list = jsonencode(flatten([VERSIONS, ["x"]])) }
}
"#;
    bench.write("docker-bake.hcl", text);
    bench.write("Dockerfile", "FROM scratch\n");
    let shown = print(&bench, &[]);
    let target = &shown["target"]["default"];
    assert_eq!(target["tags"], serde_json::json!(["app:1-20-002", "app:1-9-002"]));
    assert_eq!(target["args"], serde_json::json!({"MINOR": "1.20", "NAME": "1.20.3", "NEXT": 21}));
    assert_eq!(target["labels"]["list"], r#"["1.9","1.20","x"]"#);
    bench.write("docker-bake.hcl", "target \"default\" { tags = [nothing(1)] }\n");
    bench.rbuild(["bake", "--print"]).code(125).fails(&["nothing"]);
}
