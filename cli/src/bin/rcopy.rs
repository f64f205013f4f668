//! rcopy
fn main() {}
