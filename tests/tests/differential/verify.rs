//! Compares what the two tools say about an image and read from it.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use cairn_tests::json::Json;
use cairn_tests::process::Outcome;
use cairn_tests::tool::Tool;

use crate::maker::Maker;

/// Members that may differ between two files with the same contents.
const NOISE: [&str; 1] = ["actual-size"];

/// Reports that both tools must give alike; `{}` stands for the format.
const REPORTS: [&str; 10] = [
    "info --output=json -f {} disk",
    "info --output=json --backing-chain disk",
    "info -f {} disk",
    "map --output=json -f {} disk",
    "map -f {} disk",
    "map --output=json -f {} --start-offset 66048 --max-length 1M disk",
    "check --output=json -f {} disk",
    "check -f {} disk",
    "measure --output=json -O qcow2 -f {} disk",
    "measure --output=json -O raw -f {} disk",
];

/// Makes an image with stock and with ours and compares everything both tools say about both.
#[track_caller]
pub(crate) fn verify(format: &'static str, steps: impl Fn(&Maker)) {
    let (stock, ours) = (Tool::stock(), Tool::ours());
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut room = tempfile::Builder::new().prefix("image-").tempdir_in(parent).expect("a folder");
    let mut found = Vec::new();
    for maker in [&stock, &ours] {
        let dir = room.path().join(maker.name);
        fs::create_dir(&dir).expect("a folder");
        steps(&Maker::new(&dir, format, maker));
        let before = modified(&dir);
        let mut differences = reports(&dir, format, &stock, &ours);
        differences.extend(contents(&dir, format, &stock, &ours));
        if modified(&dir) != before {
            differences.push("a report changed the image".to_owned());
        }
        found.extend(differences.into_iter().map(|line| format!("made by {}: {line}", maker.name)));
    }
    found.extend(same_description(room.path(), format, &stock));
    if !found.is_empty() {
        room.disable_cleanup(true);
        panic!("stock is left, ours is right; see {}\n{}", room.path().display(), found.join("\n"));
    }
}

/// Differences between the tools' reports on `disk`.
fn reports(dir: &Path, format: &str, stock: &Tool, ours: &Tool) -> Vec<String> {
    let mut found = Vec::new();
    for report in REPORTS {
        let args = report.replace("{}", format);
        let (left, right) = (stock.run(dir, &args), ours.run(dir, &args));
        let differences = compare_reports(&left, &right, args.contains("json"));
        found.extend(differences.into_iter().map(|line| format!("{args}: {line}")));
    }
    found
}

fn compare_reports(left: &Outcome, right: &Outcome, json: bool) -> Vec<String> {
    if left.code() != right.code() {
        return vec![format!("exit {} is not {}: {}", left.status, right.status, right.err())];
    }
    if left.code() == Some(0) && left.stderr.is_empty() && !right.stderr.is_empty() {
        return vec![format!("noise on stderr: {}", right.err())];
    }
    if json && !left.stdout.is_empty() {
        let fields = match (Json::parse(&left.out()), Json::parse(&right.out())) {
            (Ok(left), Ok(right)) => left.differences(&right, &NOISE),
            (Err(error), _) => vec![format!("stock: {error}: {}", left.out())],
            (_, Err(error)) => vec![format!("ours: {error}: {}", right.out())],
        };
        if !fields.is_empty() {
            return fields;
        }
    }
    let (left, right) = (quiet(&left.out()), quiet(&right.out()));
    if left == right { Vec::new() } else { vec![format!("text differs:\n{left}\n---\n{right}")] }
}

/// A report without the lines that show how many blocks a file occupies.
fn quiet(report: &str) -> String {
    let noise = |line: &&str| !line.contains("actual-size") && !line.starts_with("disk size:");
    report.lines().filter(noise).collect::<Vec<_>>().join("\n")
}

/// Differences between what the tools read: each converts `disk` to raw, and each must find the other's
/// result identical to `disk`.
fn contents(dir: &Path, format: &str, stock: &Tool, ours: &Tool) -> Vec<String> {
    let mut found = Vec::new();
    let convert =
        |tool: &Tool, name: &str| tool.run(dir, &format!("convert -f {format} -O raw disk {name}"));
    let (left, right) = (convert(stock, "stock.raw"), convert(ours, "ours.raw"));
    if left.code() != right.code() {
        found.push(format!("convert: {} is not {}: {}", left.status, right.status, right.err()));
    }
    if left.code() == Some(0) && right.code() == Some(0) {
        for (tool, other) in [(stock, "ours.raw"), (ours, "stock.raw")] {
            let compared = tool.run(dir, &format!("compare -f {format} -F raw disk {other}"));
            if compared.code() != Some(0) || !compared.out().contains("Images are identical.") {
                let said = compared.out() + &compared.err();
                found.push(format!("{} compare: {}: {said}", tool.name, compared.status));
            }
        }
    }
    for name in ["stock.raw", "ours.raw"] {
        let _ = fs::remove_file(dir.join(name));
    }
    found
}

/// Differences between what stock says about its own image and about ours: same options, same description.
fn same_description(room: &Path, format: &str, stock: &Tool) -> Vec<String> {
    let noise = [NOISE[0], "children", "date-sec", "date-nsec"];
    let info = |maker: &str| {
        let text = stock.ok(&room.join(maker), &format!("info --output=json -f {format} disk"));
        Json::parse(&text).expect("stock reports JSON")
    };
    let differences = info("stock").differences(&info("ours"), &noise);
    differences.into_iter().map(|line| format!("the makers' images: {line}")).collect()
}

/// When each file of `dir` was last changed, in name order.
fn modified(dir: &Path) -> Vec<(std::ffi::OsString, SystemTime)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .expect("the folder can be read")
        .map(|entry| {
            let entry = entry.expect("the folder can be read");
            let changed = entry.metadata().and_then(|data| data.modified());
            (entry.file_name(), changed.expect("the file has a time"))
        })
        .collect();
    files.sort();
    files
}
