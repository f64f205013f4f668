//! The options of `rbuild bud`, in journeys.

use e2e::{Bench, root};
use serde_json::Value;

const CHECKED: &str = "\
# app holds the greeting
FROM busybox AS app
# GREETING is what it says
ARG GREETING=hello
RUN --mount=type=secret,id=key,required --mount=type=cache,target=/c echo $GREETING > /greeting
COPY ignored.log /
CMD echo hi
";

#[test]
fn a_dockerfile_is_checked_and_asked_without_building() {
    if !root() {
        return;
    }
    let bench = Bench::new();
    bench.write("context/Dockerfile", CHECKED);
    bench.write("context/.dockerignore", "*.log\n");
    let ask = |more: &[&str]| {
        let line = ["bud"].iter().chain(more).chain(&["context"]).copied().collect::<Vec<_>>();
        bench.rbuild(line)
    };
    // No image is in the store, and none is asked for.
    let text = ask(&["--check"]).code(1).stdout;
    for words in
        ["warning[CopyIgnoredFile]", "warning[JSONArgsRecommended]", "Dockerfile:7:5", "2 warnings"]
    {
        assert!(text.contains(words), "{words} is missing in {text}");
    }
    let json = |more: &[&str], code: i32| -> Value {
        serde_json::from_str(&ask(more).code(code).stdout).unwrap()
    };
    let found = json(&["--call=check,format=json"], 1);
    assert_eq!(found["warnings"][0]["ruleName"], "CopyIgnoredFile");
    assert_eq!(found["warnings"][0]["location"]["ranges"][0]["start"]["line"], 6);
    assert_eq!(json(&["--call=check,format=json,ignorestatus"], 0), found);
    let sarif = json(&["--check", "--check-format=sarif"], 1);
    assert_eq!(sarif["runs"][0]["results"][1]["ruleId"], "JSONArgsRecommended");
    let skip = "BUILDKIT_DOCKERFILE_CHECK=skip=CopyIgnoredFile,JSONArgsRecommended";
    ask(&["--check", "--build-arg", skip]).ok();
    let outline = json(&["--call=outline,format=json", "--build-arg=GREETING=bye"], 0);
    assert_eq!(outline["args"][0]["value"], "bye");
    assert_eq!(outline["args"][0]["description"], "is what it says");
    assert_eq!(outline["secrets"][0]["required"], true);
    assert_eq!(outline["cache"][0]["id"], "/c");
    let targets = ask(&["--call=targets"]).ok().stdout;
    assert!(targets.contains("app (default)  busybox  holds the greeting"), "{targets}");
    ask(&["--call=outline", "--target=nowhere"]).fails(&["nowhere"]);
    ask(&["--call=test"]).code(2).fails(&["--call", "test"]);
    // A Dockerfile that cannot be read is a finding, too.
    bench.write("context/Dockerfile", "FROM busybox\nRNU x\n");
    assert!(ask(&["--check"]).code(1).stdout.contains("error["));
    // What the file says of checks holds for builds.
    bench.busybox();
    bench.write("context/Dockerfile", "FROM busybox\nCMD echo hi\n");
    assert!(ask(&["-t=lax"]).ok().stderr.contains("JSONArgsRecommended"));
    bench.write(
        "context/Dockerfile",
        "# check=error=true\nFROM busybox\nRUN touch /x\nCMD echo hi\n",
    );
    let refused = ask(&["-t=strict"]).code(1).fails(&["JSONArgsRecommended", "Dockerfile:4"]);
    assert!(!refused.stderr.contains("RUN touch"), "{}", refused.told());
}
