//! Looks at both images of a script: each tool must say the same about each of them, what can be read
//! must be what the model says, and the two images must be alike but for where things lie in the file.

use std::fs;

use cairn_tests::bitmaps::bitmaps;
use cairn_tests::json::Json;
use cairn_tests::tool::Tool;

use super::player::{LIMITS, Player, Side, difference};

/// Members that differ between two looks at one file: the file system may allocate late.
const VOLATILE: [&str; 1] = ["actual-size"];
/// Members that differ between the two images: where the tools put things, hence the length of the file,
/// when snapshots were made, and what is random in keys or depends on the time that was spent on them.
const LAYOUT: [&str; 7] =
    ["actual-size", "children", "date-sec", "date-nsec", "uuid", "iters", "master-key-iters"];

impl Player {
    /// Compares all there is; `thorough` does so for snapshots and files below, and with both tools.
    pub(crate) fn look(&self, thorough: bool) -> Result<(), String> {
        let [a, b] = &self.sides;
        let reports_a = self.reports(a)?;
        let reports_b = self.reports(b)?;
        for side in &self.sides {
            self.contents(side, thorough)?;
        }
        let differences = reports_a.info.differences(&reports_b.info, &LAYOUT);
        if !differences.is_empty() {
            return Err(format!("the images differ: {}", differences.join("; ")));
        }
        self.compare_maps(&runs(&reports_a.map), &runs(&reports_b.map))?;
        let stored = |side: &Side| {
            let qcow2 = self.config.format == "qcow2";
            qcow2.then(|| bitmaps(&fs::read(side.dir.join("disk")).expect("the image")))
        };
        let (left, right) = (stored(a), stored(b));
        if left != right {
            return Err(format!("the images' bitmaps differ:\n{left:?}\n{right:?}"));
        }
        Ok(())
    }

    /// Both maps must say the same about every byte, but for zeroes that [`Model::tells_zeroes`] excepts.
    ///
    /// [`Model::tells_zeroes`]: super::model::Model::tells_zeroes
    fn compare_maps(&self, left: &[Run], right: &[Run]) -> Result<(), String> {
        let (mut lefts, mut rights) = (left.iter().peekable(), right.iter().peekable());
        let mut at = 0;
        while let (Some(left), Some(right)) = (lefts.peek(), rights.peek()) {
            let end = left.end.min(right.end);
            if left.kind != right.kind
                && (!left.kind.may_be_zeroes_of(&right.kind) || self.model.tells_zeroes(at..end))
            {
                return Err(format!("the images' maps differ at {at}: {left:?} is not {right:?}"));
            }
            lefts.next_if(|run| run.end == end);
            rights.next_if(|run| run.end == end);
            at = end;
        }
        match lefts.next().or_else(|| rights.next()) {
            Some(more) => Err(format!("one image's map goes on at {at}: {more:?}")),
            None => Ok(()),
        }
    }

    /// What both tools say of an image, which must be the same. Nothing is to be repaired, so `check`
    /// only looks: where an image has a bitmap as well as a snapshot, stock's `check -r` loses the
    /// snapshot, even of images that only stock worked on.
    fn reports(&self, side: &Side) -> Result<Reports, String> {
        let info = self.report(side, "info")?;
        let map = self.report(side, "map")?;
        if self.config.format != "raw" {
            let check = self.report(side, "check")?;
            for finding in ["corruptions", "leaks"] {
                if let Some(count) = check.field(finding).and_then(Json::integer)
                    && count > 0
                {
                    return Err(format!("{}: {count} {finding}", side.dir.display()));
                }
            }
        }
        Ok(Reports { info, map })
    }

    fn report(&self, side: &Side, command: &str) -> Result<Json, String> {
        let mut args = vec![command.to_owned(), "--output=json".to_owned()];
        args.extend(self.config.target());
        let [ours, stock] = self.tools.each_ref().map(|tools| {
            let outcome = tools.img.run_with(&side.dir, &args, LIMITS);
            (outcome.code(), outcome.out(), outcome.err())
        });
        let of = side.dir.display();
        if ours.0 != stock.0 || ours.0.is_none() {
            return Err(format!("{command} of {of}: ours: {ours:?}; stock: {stock:?}"));
        }
        let parse = |text: &str| Json::parse(text).map_err(|e| format!("{command}: {e}: {text}"));
        let (ours, stock) = (parse(&ours.1)?, parse(&stock.1)?);
        if command == "map" && self.config.data_file && runs(&ours) == runs(&stock) {
            // Stock takes the start of a data file for no place at all, so that it tells it apart.
            return Ok(ours);
        }
        let mut noise = VOLATILE.to_vec();
        // Stock names an encrypted image by its options, in no certain order.
        noise.extend(self.config.encrypted.then_some("filename"));
        // The same is why it does not count that as allocated, nor what follows as apart from it.
        if self.config.data_file {
            noise.extend(["allocated-clusters", "fragmented-clusters"]);
        }
        let differences = stock.differences(&ours, &noise);
        if differences.is_empty() {
            return Ok(ours);
        }
        Err(format!("{command} of {of}: stock is left, ours right: {}", differences.join("; ")))
    }

    /// Reads an image with the tool whose turn it is, and compares what it reads with the model.
    fn contents(&self, side: &Side, thorough: bool) -> Result<(), String> {
        let tools: Vec<&Tool> = if thorough {
            self.tools.iter().map(|tools| &tools.img).collect()
        } else {
            vec![&self.tools[side.next].img]
        };
        for tool in tools {
            read(side, tool, &[], &self.config.target(), &self.model.disk)?;
            if !thorough {
                continue;
            }
            for (name, content) in &self.model.snapshots {
                // As much is copied as the disk has now, whatever the snapshot had.
                if content.len() != self.model.disk.len() {
                    continue;
                }
                read(side, tool, &["-l", name], &self.config.target(), content)?;
            }
            for (name, content) in self.backing() {
                let format = super::config::Config::backing_format(name);
                let source = ["-f", format, name].map(str::to_owned);
                read(side, tool, &[], &source, content)?;
            }
        }
        if self.config.data_file {
            // The file may end before zeroes at the end of the disk, or after a whole cluster.
            let mut data = fs::read(side.dir.join("disk.data")).expect("the data file");
            data.resize(self.model.disk.len(), 0);
            if let Some(wrong) = difference(&data, &self.model.disk) {
                return Err(format!("the data file of {}: {wrong}", side.dir.display()));
            }
        }
        Ok(())
    }
}

/// Converts to raw, and compares with `expected`.
fn read(
    side: &Side,
    tool: &Tool,
    options: &[&str],
    source: &[String],
    expected: &[u8],
) -> Result<(), String> {
    let mut args: Vec<String> = vec!["convert".to_owned(), "-O".to_owned(), "raw".to_owned()];
    args.extend(options.iter().map(|option| (*option).to_owned()));
    args.extend_from_slice(source);
    args.push("read".to_owned());
    let outcome = tool.run_with(&side.dir, &args, LIMITS);
    let what = || format!("{} by {}: {}", side.dir.display(), tool.name, args.join(" "));
    if outcome.code() != Some(0) {
        return Err(format!("{}: {}: {}", what(), outcome.status, outcome.err()));
    }
    let found = fs::read(side.dir.join("read")).expect("the copy");
    let wrong = difference(&found, expected);
    wrong.map_or(Ok(()), |wrong| Err(format!("{}: {wrong}", what())))
}

/// What is said of one image.
struct Reports {
    info: Json,
    map: Json,
}

/// The runs of a map without their places in the file, neighbours that are alike taken together: where
/// they end, and what they are. Whether allocated data is known to be zero depends on the file, too: it is
/// where nothing was written to it yet.
fn runs(map: &Json) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for extent in map.elements() {
        let number = |name| extent.field(name).and_then(Json::integer).expect("a number in a map");
        let (start, length) = (number("start"), number("length"));
        let is = |name| extent.field(name) == Some(&Json::Bool(true));
        let kind = Kind {
            depth: number("depth"),
            present: is("present"),
            data: is("data"),
            zero: is("zero") && !is("data"),
            compressed: is("compressed"),
        };
        assert_eq!(start, runs.last().map_or(0, |last| last.end), "a map has a gap");
        match runs.last_mut() {
            Some(last) if last.kind == kind => last.end = start + length,
            _ => runs.push(Run { end: start + length, kind }),
        }
    }
    runs
}

/// Part of a map: from the end of the part before to `end`.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    end: u64,
    kind: Kind,
}

/// What a map says about a run.
#[derive(Debug, PartialEq, Eq)]
struct Kind {
    depth: u64,
    present: bool,
    data: bool,
    zero: bool,
    compressed: bool,
}

impl Kind {
    /// Whether one of two maps may show zeroes of the same layer that the other one shows as data.
    fn may_be_zeroes_of(&self, other: &Kind) -> bool {
        let (zeroes, data) = if self.data { (other, self) } else { (self, other) };
        zeroes.depth == data.depth && zeroes.zero && !zeroes.data && data.data && !data.compressed
    }
}
