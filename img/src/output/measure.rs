//! What `measure` prints.

use std::fmt::Write as _;

use cairn_block::driver::Measure;
use cairn_block::options::Dict;

use super::json_document;

/// The result for people.
pub fn human(measure: &Measure) -> String {
    let mut text = format!(
        "required size: {}\nfully allocated size: {}\n",
        measure.required, measure.fully_allocated
    );
    if let Some(bitmaps) = measure.bitmaps {
        let _ = writeln!(text, "bitmaps size: {bitmaps}");
    }
    text
}

/// The result for programs.
pub fn json(measure: &Measure) -> String {
    let mut dict = Dict::new();
    if let Some(bitmaps) = measure.bitmaps {
        dict.insert("bitmaps", bitmaps);
    }
    dict.insert("required", measure.required);
    dict.insert("fully-allocated", measure.fully_allocated);
    json_document(dict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let measure =
            Measure { required: 1_441_792, fully_allocated: 67_436_544, bitmaps: Some(0) };
        assert_eq!(
            human(&measure),
            "required size: 1441792\nfully allocated size: 67436544\nbitmaps size: 0\n"
        );
        assert_eq!(
            json(&measure),
            "{\n    \"bitmaps\": 0,\n    \"required\": 1441792,\n    \"fully-allocated\": \
             67436544\n}\n"
        );
    }

    #[test]
    fn no_bitmaps_line_where_bitmaps_do_not_exist() {
        let measure = Measure { required: 1, fully_allocated: 2, bitmaps: None };
        assert_eq!(human(&measure), "required size: 1\nfully allocated size: 2\n");
    }
}
