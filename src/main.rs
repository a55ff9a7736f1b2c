//! The `atlasknn` command.

fn main() {}
