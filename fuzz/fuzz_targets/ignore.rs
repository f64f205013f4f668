//! Ignore files, and what they say of paths.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: (&str, &str)| {
    let (ignore, _) = dockerfile::Ignore::parse(input.0);
    let _ = ignore.excluded(input.1, false);
    let _ = ignore.may_include_below(input.1);
});
