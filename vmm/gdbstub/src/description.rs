//! Registers, and how GDB is told of them (Debugging with GDB, appendix G).

use std::fmt::Write;

/// A register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// Its name.
    pub name: String,
    /// Width; a multiple of eight.
    pub bits: u32,
    /// A type of GDB's, or one that the feature defines.
    pub kind: &'static str,
    /// GDB's number for it.
    pub number: usize,
    /// Whether it is among those that are sent together. They have the lowest numbers, and GDB asks for the others one by
    /// one.
    pub general: bool,
}

/// Registers that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// A name that GDB knows.
    pub name: &'static str,
    /// Types, as XML.
    pub types: &'static str,
    /// The registers.
    pub registers: Vec<Register>,
}

/// The registers of an architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    architecture: &'static str,
    features: Vec<Feature>,
}

impl Registers {
    /// The registers in `features`, of an architecture by GDB's name.
    pub fn new(architecture: &'static str, features: Vec<Feature>) -> Registers {
        Registers { architecture, features }
    }

    /// All registers, in the order of their indices.
    pub fn iter(&self) -> impl Iterator<Item = &Register> {
        self.features.iter().flat_map(|feature| &feature.registers)
    }

    /// The register that GDB gives this number to, and its index.
    pub(crate) fn by_number(&self, number: usize) -> Option<(usize, &Register)> {
        self.iter().enumerate().find(|(_, register)| register.number == number)
    }

    /// `target.xml`
    pub(crate) fn xml(&self) -> String {
        let mut out =
            String::from("<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n");
        // Writing to a string does not fail.
        let _ = writeln!(out, "<target>\n<architecture>{}</architecture>", self.architecture);
        for Feature { name, types, registers } in &self.features {
            let _ = writeln!(out, "<feature name=\"{name}\">{types}");
            for Register { name, bits, kind, number, .. } in registers {
                let _ = writeln!(
                    out,
                    "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\" regnum=\"{number}\"/>"
                );
            }
            out.push_str("</feature>\n");
        }
        out.push_str("</target>\n");
        out
    }
}
