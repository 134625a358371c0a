//! The optimising compiler of regions (T2): micro-operations become Cranelift's IR, and that becomes code of x86-64.
//!
//! Guest registers are values of a whole region, round its loops; memory has them only where somebody may look: at
//! exits, and on the paths on which the interpreter does an operation. These paths are cold and keep all registers.
//! What a region is and what its code may rely on is told by [`cairn_tcg::region`].
//!
//! | file | what it holds |
//! |---|---|
//! | `lower` | the frame of a region: its blocks and operations |
//! | `words` | which values the guest's words have |
//! | `flow` | branches, edges between blocks, exits |
//! | `memory`, `integer`, `float` | operations |
//! | `slow` | the paths on which the interpreter does an operation |
//!
//! Cranelift does not know of other threads that change memory, and would merge loads; its analysis of aliases
//! is off.

#![cfg(target_arch = "x86_64")]

mod float;
mod flow;
mod integer;
mod lower;
mod memory;
mod slow;
mod words;

use cairn_tcg::region::{Compiled, Region, RegionCompiler};
use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{AbiParam, Function, Signature, UserFuncName, types};
use cranelift_codegen::isa::{self, CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

/// The compiler, for the CPU that it runs on.
pub struct Cranelift {
    isa: OwnedTargetIsa,
    fma: bool,
}

/// Code and what it was made of, for those who look on.
struct Made {
    compiled: Compiled,
    listing: Option<String>,
}

impl Cranelift {
    /// A compiler; `None` if Cranelift knows nothing of this CPU.
    pub fn new() -> Option<Cranelift> {
        let features = [
            ("has_sse3", std::arch::is_x86_feature_detected!("sse3")),
            ("has_ssse3", std::arch::is_x86_feature_detected!("ssse3")),
            ("has_sse41", std::arch::is_x86_feature_detected!("sse4.1")),
            ("has_sse42", std::arch::is_x86_feature_detected!("sse4.2")),
            ("has_avx", std::arch::is_x86_feature_detected!("avx")),
            ("has_fma", std::arch::is_x86_feature_detected!("fma")),
            ("has_bmi1", std::arch::is_x86_feature_detected!("bmi1")),
            ("has_bmi2", std::arch::is_x86_feature_detected!("bmi2")),
            ("has_lzcnt", std::arch::is_x86_feature_detected!("lzcnt")),
            ("has_popcnt", std::arch::is_x86_feature_detected!("popcnt")),
        ];
        let present = features.into_iter().filter(|(_, has)| *has).map(|(name, _)| name);
        Cranelift::with(present, std::arch::is_x86_feature_detected!("fma"))
    }

    /// A compiler whose code runs on all CPUs and is the same everywhere.
    pub fn portable() -> Option<Cranelift> {
        Cranelift::with(std::iter::empty(), false)
    }

    fn with(features: impl Iterator<Item = &'static str>, fma: bool) -> Option<Cranelift> {
        let mut shared = settings::builder();
        let choices = [
            ("opt_level", "speed"),
            ("enable_alias_analysis", "false"),
            ("preserve_frame_pointers", "true"),
            ("enable_probestack", "false"),
            ("unwind_info", "false"),
            ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
        ];
        for (name, value) in choices {
            shared.set(name, value).ok()?;
        }
        let mut builder = isa::lookup_by_name("x86_64").ok()?;
        for name in features {
            builder.enable(name).ok()?;
        }
        let isa = builder.finish(settings::Flags::new(shared)).ok()?;
        Some(Cranelift { isa, fma })
    }

    /// How many instructions of the host the code of `region` has; `None` if it cannot be compiled.
    pub fn instructions(&self, region: &Region) -> Option<usize> {
        let listing = self.make(region, true)?.listing?;
        // Instructions are indented; labels are not.
        Some(listing.lines().filter(|line| line.starts_with(' ')).count())
    }

    fn make(&self, region: &Region, list: bool) -> Option<Made> {
        let mut context = Context::new();
        let mut scratch = FunctionBuilderContext::new();
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params = vec![AbiParam::new(types::I64); 4];
        signature.returns = vec![AbiParam::new(types::I64)];
        context.func = Function::with_name_signature(UserFuncName::default(), signature);
        let builder = FunctionBuilder::new(&mut context.func, &mut scratch);
        let (data, needs_inexact) =
            lower::lower(region, builder, self.isa.frontend_config(), self.fma)?;
        context.set_disasm(list);
        context.compile(self.isa.as_ref(), &mut ControlPlane::default()).ok()?;
        let made = context.take_compiled_code()?;
        // Nothing but the code itself and its constants is referred to.
        if !made.buffer.relocs().is_empty() {
            return None;
        }
        let code = made.code_buffer().to_vec();
        let listing = made.vcode.clone();
        Some(Made { compiled: Compiled { code, data, needs_inexact }, listing })
    }
}

impl RegionCompiler for Cranelift {
    fn compile(&self, region: &Region) -> Option<Compiled> {
        self.make(region, false).map(|made| made.compiled)
    }
}
