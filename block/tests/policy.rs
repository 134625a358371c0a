//! A graph's policy holds for every image that is opened in it, however it is named.

use std::fs;
use std::path::Path;

use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::{Bounds, Graph, NodeFlags, OpenOptions, Place, Policy, References, Rule};
use cairn_block::options::{Dict, Value};
use cairn_block::{Error, Result, driver};

fn on_io_thread<F: Future>(future: F) -> F::Output {
    block_on(&EngineConfig::default(), future).expect("an I/O thread")
}

async fn create(path: &Path, options: &[(&'static str, Value)]) {
    let mut dict = Dict::new();
    dict.insert("size", 1u64 << 20);
    for (name, value) in options {
        dict.insert(*name, value.clone());
    }
    let create = driver::find("qcow2").and_then(|info| info.create).expect("qcow2 can");
    create(&Graph::new(), path.to_str().expect("UTF-8"), dict).await.expect("created");
}

/// What opening `path` as qcow2 is refused for, if it is.
async fn refusal(policy: &Policy, path: &Path) -> Option<Rule> {
    let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
    let what = OpenOptions::file(path.to_str().expect("UTF-8"), Some("qcow2"), flags);
    rule(Graph::with_policy(policy.clone()).open(what).await.map(drop))
}

fn rule(result: Result<()>) -> Option<Rule> {
    match result {
        Ok(()) => None,
        Err(Error::Refused { rule, .. }) => Some(rule),
        Err(Error::Context { source, .. }) => rule(Err(*source)),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn backing_and_data_files_need_leave() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    on_io_thread(async {
        create(&path("base"), &[]).await;
        let backing = [("backing_file", "base".into()), ("backing_fmt", "qcow2".into())];
        create(&path("top"), &backing).await;
        let data = path("data").to_str().expect("UTF-8").to_owned();
        create(&path("split"), &[("data_file", data.into())]).await;
        for name in ["top", "split"] {
            let none = Policy { references: References::None, ..Policy::default() };
            assert_eq!(refusal(&none, &path(name)).await, Some(Rule::References), "{name}");
            let places = References::Places(vec![Place::SameDirectory]);
            let near = Policy { references: places, ..Policy::default() };
            assert_eq!(refusal(&near, &path(name)).await, None, "{name}");
            fs::create_dir_all(path("other")).expect("a directory");
            let places = References::Places(vec![Place::Below(path("other"))]);
            let far = Policy { references: places, ..Policy::default() };
            assert_eq!(refusal(&far, &path(name)).await, Some(Rule::References), "{name}");
            assert_eq!(refusal(&Policy::default(), &path(name)).await, None, "{name}");
        }
    });
}

#[test]
fn bounds_hold_for_each_image_of_a_chain() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    on_io_thread(async {
        create(&path("base"), &[("size", (8u64 << 20).into())]).await;
        let backing = [("backing_file", "base".into()), ("backing_fmt", "qcow2".into())];
        create(&path("top"), &backing).await;
        let with = |bounds| Policy { bounds, ..Policy::default() };
        let small = with(Bounds { virtual_size: Some(2 << 20), ..Bounds::default() });
        assert_eq!(refusal(&small, &path("top")).await, Some(Rule::VirtualSize));
        let large = with(Bounds { virtual_size: Some(8 << 20), ..Bounds::default() });
        assert_eq!(refusal(&large, &path("top")).await, None);
        let short = with(Bounds { chain_depth: Some(1), ..Bounds::default() });
        assert_eq!(refusal(&short, &path("top")).await, Some(Rule::ChainDepth));
        assert_eq!(refusal(&short, &path("base")).await, None);
    });
}

#[test]
fn a_partial_description_of_a_data_file_gives_no_leave() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    let data = dir.path().join("data").to_str().expect("UTF-8").to_owned();
    on_io_thread(async {
        create(&path, &[("data_file", data.clone().into())]).await;
        let open = async |data_file: Dict| {
            let policy = Policy { references: References::None, ..Policy::default() };
            let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
            let mut what = OpenOptions::file(path.to_str().expect("UTF-8"), Some("qcow2"), flags);
            what.options.insert("data-file", data_file);
            rule(Graph::with_policy(policy).open(what).await.map(drop))
        };
        let cache = Dict::from([("no-flush", true)]);
        assert_eq!(open(Dict::from([("cache", cache)])).await, Some(Rule::References));
        let given = Dict::from([("driver", "file"), ("filename", &data)]);
        assert_eq!(open(given).await, None, "the user's own word");
    });
}
