use super::*;
use crate::parse;

fn names(source: &str, context: &LintContext<'_>) -> Vec<String> {
    let (file, _) = parse(source);
    lint(&file, context).iter().map(|d| format!("{} {}", d.rule, d.span.text(source))).collect()
}

#[test]
fn names_are_unique_and_documented() {
    let mut names: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 22);
    assert!(RULES.iter().all(|rule| rule.summary.ends_with('.')));
    assert_eq!(RULES.iter().filter(|rule| rule.experimental).count(), 1);
}

#[test]
fn copied_files_that_are_ignored() {
    let (ignore, _) = Ignore::parse("*.log\nsecret/");
    let context = LintContext { ignore: Some(&ignore), ..LintContext::default() };
    let source = "FROM scratch AS a\nARG F=x.log\nCOPY a.log $F ok secret/key ./ /x/\n\
                  COPY --from=a b.log /\nADD c.log https://x/d.log /\n";
    assert_eq!(
        names(source, &context),
        [
            "CopyIgnoredFile a.log",
            "CopyIgnoredFile $F",
            "CopyIgnoredFile secret/key",
            "CopyIgnoredFile c.log"
        ]
    );
    let (ignore, _) = Ignore::parse("*\n");
    let context = LintContext { ignore: Some(&ignore), ..LintContext::default() };
    assert_eq!(names("FROM scratch\nCOPY . /\n", &context), ["CopyIgnoredFile ."]);
    let (ignore, _) = Ignore::parse("*\n!a.log\n");
    let context = LintContext { ignore: Some(&ignore), ..LintContext::default() };
    assert!(names(source, &context).is_empty());
    assert!(names(source, &LintContext::default()).is_empty());
}

#[test]
fn base_images_of_another_platform() {
    let platform = |image: &str| (image != "unknown").then(|| "linux/arm64/v8".to_owned());
    let context = LintContext {
        target_platform: Some("linux/amd64"),
        base_platform: Some(&platform),
        ..LintContext::default()
    };
    let source = "ARG I=img\nFROM $I AS a\nFROM a\nFROM scratch\nFROM unknown\n\
                  FROM --platform=linux/aarch64 img AS aarch64\nFROM --platform=$BUILDPLATFORM img\n";
    assert_eq!(names(source, &context), ["InvalidBaseImagePlatform $I"]);
    // A configuration without a platform.
    let nothing = |_: &str| Some("/".to_owned());
    let context = LintContext { base_platform: Some(&nothing), ..context };
    let (file, _) = parse("FROM img\n");
    let findings = lint(&file, &context);
    assert!(findings[0].message.contains("names no platform"), "{}", findings[0].message);
}

#[test]
fn variables_of_the_base_image() {
    let source = "FROM java\nWORKDIR $JAVA_HOME/$NOWHERE\nFROM other\nWORKDIR $NOWHERE\n";
    assert!(names(source, &LintContext::default()).is_empty());
    let environment = |image: &str| (image == "java").then(|| vec!["JAVA_HOME".to_owned()]);
    let context = LintContext { base_environment: Some(&environment), ..LintContext::default() };
    assert_eq!(names(source, &context), ["UndefinedVar $NOWHERE"]);
}

#[test]
fn build_args_count() {
    let source = "ARG TAG\nFROM alpine:${TAG:-}\nFROM alpine:$TAG\n";
    let found = ["InvalidDefaultArgInFrom alpine:${TAG:-}", "InvalidDefaultArgInFrom alpine:$TAG"];
    assert_eq!(names(source, &LintContext::default()), found);
    // Defaults are checked as if nothing was given.
    let args = [("TAG".to_owned(), "3".to_owned())];
    let context = LintContext { build_args: &args, ..LintContext::default() };
    assert_eq!(names(source, &context), found);
}

#[test]
fn a_stage_is_named_in_any_case() {
    let source = "FROM alpine AS Build\nFROM Build\nFROM build AS x\nFROM 0\nFROM Other\n";
    let found = ["StageNameCasing Build", "InvalidDefaultArgInFrom Other"];
    assert_eq!(names(source, &LintContext::default()), found);
}

#[test]
fn checks_can_be_skipped() {
    for (source, expected) in [
        ("FROM a AS B\n", 1),
        ("# check=skip=StageNameCasing\nFROM a AS B\n", 0),
        ("# check=skip=FromAsCasing, StageNameCasing\nFROM a AS B\n", 1),
        ("# check=skip=FromAsCasing,StageNameCasing\nFROM a AS B\n", 0),
        ("# check=skip=all;error=true\nFROM a AS B\n", 0),
        ("ARG X\n# check=skip=StageNameCasing\nFROM a AS B\nFROM a AS C\n", 1),
        ("ARG X\n# check=skip=StageNameCasing\n\nFROM a AS B\n", 1),
    ] {
        assert_eq!(names(source, &LintContext::default()).len(), expected, "{source}");
    }
}

#[test]
fn references() {
    for (name, bad) in [
        ("alpine", false),
        ("alpine:3.20", false),
        ("localhost:5000/a/b_c:v1", false),
        ("registry.example.org/a@sha256:abc", false),
        ("oci:some/Dir:tag", false),
        ("${X:-alpine}", false),
        ("alpine:", true),
        ("Alpine", true),
        ("a//b", true),
        ("$X", true),
        ("a:b:c", true),
    ] {
        let source = format!("ARG X\nFROM {name}\n");
        assert_eq!(!names(&source, &LintContext::default()).is_empty(), bad, "{name}");
    }
}
