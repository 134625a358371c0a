//! Every text syntax that options arrive in, and the rules of `blkdebug`.

use cairn_block::filters::blkdebug;
use cairn_block::options::{self, Value, filename, json, keyval, list, tree};

/// Parses `data` as each kind of option text; what parses must survive being written and read again.
pub fn options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = options::parse_size(text).map(options::format_size);
    let _ = options::parse_u64(text);
    let _ = options::parse_i64(text);
    for implied in [None, Some("file")] {
        let _ = list::parse_list(text, implied);
        if let Ok(dict) = keyval::parse_keyval(text, implied) {
            let flat = tree::flatten(dict.clone()).into_iter().collect();
            assert_eq!(tree::expand(flat).as_ref(), Ok(&dict), "flattening loses something");
        }
    }
    let escaped = list::parse_list(&format!("x={}", list::escape_commas(text)), None);
    assert_eq!(escaped.get("x").and_then(Value::as_str), Some(text));
    if let Ok(value) = json::parse(text) {
        // Numbers such as 0.00 are printed shorter, so only what the first text says must be kept. Names in
        // one bucket of the reference's hash table change places with each printing.
        let reread = |text: &str| {
            json::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
        };
        let printed = reread(&json::compact(&value));
        for again in [json::compact(&printed), json::pretty(&printed)] {
            assert_eq!(reread(&again), printed);
        }
    }
    let _ = blkdebug::parse_config(text);
    let _ = filename::parse_json(text);
    let _ = filename::locate(text, None);
    let _ = filename::resolve_backing(text, "/folder/overlay");
    let _ = filename::combine("/folder/overlay", text);
}
