//! Links the programs at a fixed address where the C library is glibc: a position-independent one
//! has 38,000 relocations, which every start pays (docs/decisions/0141-fixed-address.md). Static
//! programs get this from `packaging/static`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "this is how a build script talks to cargo"
)]

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    if of("CARGO_CFG_TARGET_OS") == "linux" && of("CARGO_CFG_TARGET_ENV") == "gnu" {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
