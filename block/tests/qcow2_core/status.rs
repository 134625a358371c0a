//! Block status against what the reference maps.

use std::path::Path;

use cairn_block::driver::Status;
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::{Graph, NodeFlags, OpenOptions, content_above, status_above};
use cairn_testkit::{Memory, Profile, Reopen, Workload, run};
use futures_util::future::LocalBoxFuture;

use crate::image::{KINDS, Kind, create, open, qemu_img};

struct Image<'k>(Memory, &'k Kind);

impl Reopen for Image<'_> {
    fn open(&self) -> LocalBoxFuture<'_, cairn_block::Result<cairn_block::graph::Backend>> {
        Box::pin(open(self.0.clone(), self.1.runtime, false))
    }
}

/// One line for each run, as `qemu-img map --output=json` prints them, of the fields that come from
/// the format.
async fn our_map(path: &Path) -> Vec<String> {
    let graph = Graph::new();
    let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
    let what = OpenOptions::file(path.to_str().unwrap(), Some("qcow2"), flags);
    let node = graph.open(what).await.unwrap();
    let mut runs: Vec<(u64, u64, Status, Option<u64>)> = Vec::new();
    let mut at = 0;
    while at < node.size() {
        let extent = node.block_status(at, node.size() - at, true).await.unwrap();
        let kinds = Status::DATA | Status::ZERO | Status::ALLOCATED | Status::COMPRESSED;
        let host = extent.map.filter(|_| extent.status.contains(Status::OFFSET_VALID));
        let status = extent.status & kinds;
        let host = host.map(|(_, host)| host);
        match runs.last_mut() {
            Some((_, len, s, h)) if *s == status && h.map(|h| h + *len) == host => {
                *len += extent.len;
            }
            _ => runs.push((at, extent.len, status, host)),
        }
        at += extent.len;
    }
    let line = |(start, len, status, host): (u64, u64, Status, Option<u64>)| {
        let has = |flag| status.contains(flag);
        let place = host.map_or(String::new(), |host| format!(", \"offset\": {host}"));
        format!(
            "{{ \"start\": {start}, \"length\": {len}, \"depth\": 0, \"present\": {}, \
             \"zero\": {}, \"data\": {}, \"compressed\": {}{place}}}",
            has(Status::ALLOCATED),
            has(Status::ZERO),
            has(Status::DATA),
            has(Status::COMPRESSED),
        )
    };
    runs.into_iter().map(line).collect()
}

/// The content of the chain in `path` in runs of (length, data and zero flags), and the number of
/// queries that took; with or without the places.
async fn contents(path: &Path, places: bool) -> (Vec<(u64, Status)>, usize) {
    let graph = Graph::new();
    let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
    let what = OpenOptions::file(path.to_str().unwrap(), Some("qcow2"), flags);
    let node = graph.open(what).await.unwrap();
    let mut runs: Vec<(u64, Status)> = Vec::new();
    let (mut at, mut queries) = (0, 0);
    while at < node.size() {
        let len = node.size() - at;
        let found = if places {
            status_above(&node, None, at, len, true).await
        } else {
            content_above(&node, None, at, len).await
        };
        let found = found.unwrap();
        let status = found.extent.status & (Status::DATA | Status::ZERO | Status::ALLOCATED);
        match runs.last_mut() {
            Some((len, last)) if *last == status => *len += found.extent.len,
            _ => runs.push((found.extent.len, status)),
        }
        at += found.extent.len;
        queries += 1;
    }
    (runs, queries)
}

fn stock_map(path: &Path) -> Vec<String> {
    let text = qemu_img(&["map", "--output=json", "-f", "qcow2", path.to_str().unwrap()]);
    let trim = |line: &str| line.trim_matches(['[', ']', ',', '\n']).to_owned();
    text.lines().map(trim).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_map_is_the_reference_s() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("map.qcow2");
    block_on(&EngineConfig::default(), async {
        for kind in KINDS {
            for seed in 0..4 {
                let profile = Profile {
                    compressed: kind.compressed,
                    ..Profile::new(kind.cluster * 150 + 512, kind.cluster, 100)
                };
                let disk = Memory::new(create(dir.path(), kind.options, &[], profile.size));
                let image = Image(disk.clone(), kind);
                let workload = Workload::generate(seed, &profile);
                let model = cairn_testkit::Model::new(profile.size);
                run(&image, &workload, model).await.unwrap();
                disk.disk().store(&path).unwrap();
                assert_eq!(our_map(&path).await, stock_map(&path), "{} {seed}", kind.options);
                let (with_places, queries) = contents(&path, true).await;
                let (without, fewer) = contents(&path, false).await;
                assert_eq!(without, with_places, "{} {seed}", kind.options);
                assert!(fewer <= queries, "{fewer} > {queries}, {} {seed}", kind.options);
            }
        }
    })
    .unwrap();
}
