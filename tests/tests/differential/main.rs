//! Images of every kind, each made once by stock and once by ours: both tools must report the same about
//! both, read the same from both, and accept both.
//!
//! A recipe is a row of a table (`raw.rs`, `layouts.rs`, `chains.rs`, `states.rs`); `verify.rs` compares.
//! `scripts` lets both tools work on the same images in turn, operation by operation.

mod chains;
mod layouts;
mod maker;
mod raw;
mod scripts;
mod states;
mod verify;

/// Declares one test an image: its name, its format, and the steps that make it.
macro_rules! images {
    ($($name:ident: $format:literal, |$maker:ident| $steps:expr;)+) => {
        $(
            #[test]
            fn $name() {
                crate::verify::verify($format, |$maker| { $steps; });
            }
        )+
    };
}
pub(crate) use images;
