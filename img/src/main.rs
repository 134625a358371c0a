//! `cairn-img`: create, inspect, convert, check and compare disk images.

fn main() {}
