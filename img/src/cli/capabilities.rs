//! `--capabilities`: what this program can do, for programs. Made from the command line's description
//! and the registries of the block layer.

use cairn_block::driver::{DriverInfo, DriverKind, amend_options, drivers};
use cairn_block::engine::{self, ActiveMode, EngineConfig};
use cairn_block::object::OBJECTS;
use cairn_block::options::{CacheMode, DetectZeroes, Dict, OptionDesc, OptionKind, Value};

use super::program::{REFERENCE_VERSION, VERSION};
use super::{Program, parse};
use crate::ops::checksum::Algorithm;

/// All of it as one document.
pub(super) fn capabilities(program: Program) -> Dict {
    let of_kind = |kind: DriverKind| {
        let mut chosen: Vec<_> = drivers().filter(|driver| driver.kind == kind).collect();
        chosen.sort_by_key(|driver| driver.name);
        chosen.into_iter().map(driver).collect::<Vec<Dict>>()
    };
    let mut document = Dict::new();
    document.insert("version", VERSION);
    document.insert("reference-version", REFERENCE_VERSION);
    document.insert("commands", commands(program));
    document.insert("formats", of_kind(DriverKind::Format));
    document.insert("protocols", of_kind(DriverKind::Protocol));
    document.insert("filters", of_kind(DriverKind::Filter));
    let objects = OBJECTS.iter().map(|object| object.name).collect::<Vec<_>>();
    document.insert("objects", objects);
    document.insert("features", features());
    document
}

/// What depends on this build and this machine, and the words that options take.
fn features() -> Dict {
    let mode = engine::block_on(&EngineConfig::default(), async { engine::active_mode() });
    let mut features = Dict::new();
    features.insert("io-uring", matches!(mode, Ok(ActiveMode::Uring)));
    features.insert("cache-modes", CacheMode::WORDS.to_vec());
    features.insert("detect-zeroes", DetectZeroes::WORDS.to_vec());
    features.insert("checksum-algorithms", Algorithm::WORDS.to_vec());
    features
}

fn commands(program: Program) -> Vec<Dict> {
    let mut whole = parse::command(program);
    whole.build();
    let commands = whole.get_subcommands().map(|command| {
        let mut entry = Dict::new();
        entry.insert("name", command.get_name());
        entry.insert("about", command.get_about().map(ToString::to_string).unwrap_or_default());
        let options = command.get_opts().chain(flags(command)).map(option);
        entry.insert("options", options.collect::<Vec<Dict>>());
        let operands = command.get_positionals().map(|arg| {
            let names = arg.get_value_names().unwrap_or_default();
            names.iter().map(ToString::to_string).collect::<Vec<String>>().join(" ")
        });
        entry.insert("operands", operands.collect::<Vec<String>>());
        entry
    });
    commands.collect()
}

/// The options of a command that take no value.
fn flags(command: &clap::Command) -> impl Iterator<Item = &clap::Arg> {
    command.get_arguments().filter(|arg| {
        !arg.is_positional() && !arg.get_action().takes_values() && !arg.is_hide_set()
    })
}

fn option(arg: &clap::Arg) -> Dict {
    let mut entry = Dict::new();
    if let Some(long) = arg.get_long() {
        entry.insert("long", format!("--{long}"));
    }
    if let Some(short) = arg.get_short() {
        entry.insert("short", format!("-{short}"));
    }
    if arg.get_action().takes_values() {
        let names = arg.get_value_names().unwrap_or_default();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        entry.insert("value", names.join(" "));
    }
    entry.insert("help", arg.get_help().map(ToString::to_string).unwrap_or_default());
    entry
}

fn driver(info: &'static DriverInfo) -> Dict {
    let mut entry = Dict::new();
    entry.insert("name", info.name);
    entry.insert("create", info.create.is_some());
    entry.insert("measure", info.measure.is_some());
    entry.insert("probe", info.probe.is_some());
    entry.insert("backing-files", info.supports_backing);
    if !info.prefixes.is_empty() {
        entry.insert("prefixes", info.prefixes.to_vec());
    }
    entry.insert("options", descriptions(info.options));
    if !info.create_options.is_empty() {
        entry.insert("create-options", descriptions(info.create_options));
    }
    if let Some(options) = amend_options(info.name) {
        entry.insert("amend-options", descriptions(options));
    }
    entry
}

fn descriptions(options: &[OptionDesc]) -> Vec<Dict> {
    options.iter().map(description).collect()
}

fn description(desc: &OptionDesc) -> Dict {
    let mut entry = Dict::new();
    entry.insert("name", desc.name);
    kind(&mut entry, desc.kind);
    if let Some(default) = desc.default {
        entry.insert("default", default);
    }
    if desc.required {
        entry.insert("required", true);
    }
    if let Some(instead) = desc.deprecated {
        entry.insert("deprecated", instead);
    }
    entry.insert("help", desc.help.trim_end_matches('.'));
    entry
}

fn kind(entry: &mut Dict, kind: OptionKind) {
    let name = match kind {
        OptionKind::Bool => "bool",
        OptionKind::Child => "node",
        OptionKind::Enum(words) => {
            entry.insert("values", words.to_vec());
            "enum"
        }
        OptionKind::List(_) => "list",
        OptionKind::Num => "number",
        OptionKind::Size => "size",
        OptionKind::Str => "string",
        OptionKind::Struct(fields) => {
            entry.insert("fields", Value::from(descriptions(fields)));
            "group"
        }
    };
    entry.insert("type", name);
}
