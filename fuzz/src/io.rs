//! Lines of commands for the I/O exerciser, run on a disk that stores nothing.

use cairn_block::engine::{EngineConfig, Mode, block_on};
use cairn_block::options::parse_size;

/// A disk of 1 MiB below a filter that knows breakpoints.
const IMAGE: &str = "driver=blkdebug,image.driver=null-co,image.size=1M,image.read-zeroes=on";
/// Lines that are run at most.
const LINES: usize = 20;
/// Largest number in a line, in bytes: memory of a request is made before the image refuses it.
const LARGEST: u64 = 1 << 20;
/// Commands that reach files or signals, that wait, or that end the program.
const LEFT_OUT: [&str; 8] =
    ["abort", "break", "o", "open", "reopen", "sigraise", "sleep", "wait_break"];

/// Runs the lines of `data`.
pub fn io(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines: Vec<&str> = text.lines().filter(|line| is_harmless(line)).take(LINES).collect();
    // Threads start up faster than a ring, and nothing here does I/O.
    let config = EngineConfig { mode: Mode::Threads, ..EngineConfig::default() };
    block_on(&config, async {
        let ran = cairn_img::io::exercise(IMAGE, &lines).await;
        ran.expect("the disk can be opened and closed");
    })
    .expect("a runtime can be made");
}

fn is_harmless(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let command = words.next().unwrap_or_default();
    // A file may be named right behind its flag.
    let names_a_file = |word: &str| word.starts_with('-') && word.contains('s');
    let is_large = |word: &str| parse_size(word).is_ok_and(|size| size > LARGEST);
    !LEFT_OUT.contains(&command) && !words.any(|word| names_a_file(word) || is_large(word))
}
