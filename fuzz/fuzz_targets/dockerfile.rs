//! Dockerfiles: parsed, linted, outlined.
#![no_main]
use dockerfile::LintContext;
libfuzzer_sys::fuzz_target!(|text: &str| {
    let (file, _) = dockerfile::parse(text);
    let _ = dockerfile::lint(&file, &LintContext::default());
    let _ = file.targets();
    for target in 0..file.stages.len().min(4) {
        let _ = file.outline(target, &[]);
        let _ = file.needed_stages(target, &[]);
    }
});
