//! The `ringcask` command.
fn main() {}
