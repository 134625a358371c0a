//! Instruction pattern files and what is made of them.
//!
//! A pattern file describes the encodings of an instruction set: *fields*, *argument sets*, *formats*
//! and *patterns*, in the language known as decodetree. [`compile`] turns one or several files into a
//! [`Unit`]; from it come Rust decoders ([`codegen::rust`], usually through [`Build`] in a build script),
//! run-time decoding for disassemblers ([`Decoder::decode`]) and random instructions for tests
//! ([`random::Generator`]).
//!
//! The passes are pure functions in this order: `lexer` → `parser` → `sema` → `tree` → `codegen` or
//! `runtime`. [`compile`] does no I/O, accepts any text, and its work is bounded by the limits in
//! [`sema`], so it can be fuzzed directly. The page `docs/decodetree.md` describes the language.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]

mod ast;
mod bits;
mod build;
pub mod codegen;
mod diagnostic;
mod lexer;
pub mod model;
mod parser;
pub mod random;
pub mod runtime;
pub mod sema;
mod source;
pub mod tree;

pub use build::{Build, BuildError};
pub use diagnostic::{Diagnostic, Errors};
pub use model::{ArgSet, ArgType, Decoder, Extract, Pattern, Unit};
pub use source::{Source, Span, Widths};

/// Compiles pattern files that share argument sets, functions and translated patterns.
///
/// Each source becomes one [`Decoder`]. All errors found are returned, in source order.
pub fn compile(sources: &[Source]) -> Result<Unit, Errors> {
    let mut errors = Errors::default();
    let mut files = Vec::with_capacity(sources.len());
    for source in sources {
        match parser::parse(source) {
            Ok(file) => files.push(file),
            Err(found) => errors.merge(found),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    sema::check(sources, &files)
}

/// Makes the examples of the documentation page part of the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/decodetree.md")]
struct Page;
