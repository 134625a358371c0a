//! Numbers in commands, and the words for what is wrong with them.

use cairn_block::options::{NumberError, parse_i64, parse_size};

use super::command::Fault;

/// Longest plain request in bytes: whole sectors below 2 GiB.
pub(super) const MAX_REQUEST: u64 = (1 << 31) - 512;
/// Unit of requests to the machine state and of compressed writes in bytes.
const SECTOR: u64 = 512;

/// Reads an offset or a length in bytes.
pub(super) fn bytes(text: &str) -> Result<u64, Fault> {
    match parse_size(text) {
        Ok(value) if i64::try_from(value).is_ok() => Ok(value),
        Ok(_) | Err(NumberError::OutOfRange) => {
            Err(Fault::Result(format!("Parsing error: argument too large -- {text}")))
        }
        Err(NumberError::NotANumber) => Err(Fault::Result(format!(
            "Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {text}"
        ))),
    }
}

/// Reads the length of one request.
pub(super) fn request_length(text: &str) -> Result<u64, Fault> {
    match bytes(text)? {
        length if length <= MAX_REQUEST => Ok(length),
        _ => Err(Fault::Result(format!("length cannot exceed {MAX_REQUEST}, given {text}"))),
    }
}

/// Reads the lengths of the buffers of one request and returns their sum.
pub(super) fn total_length(texts: &[&str]) -> Result<u64, Fault> {
    let mut total = 0;
    for text in texts {
        let length = bytes(text)?;
        if length > MAX_REQUEST {
            return Err(Fault::Result(format!(
                "Argument '{text}' exceeds maximum size {MAX_REQUEST}"
            )));
        }
        total += length;
        if total > MAX_REQUEST {
            return Err(Fault::Result(format!(
                "The total number of bytes exceed the maximum size {MAX_REQUEST}"
            )));
        }
    }
    Ok(total)
}

/// Reads a byte as C reads integers.
pub(super) fn pattern(text: &str) -> Result<u8, Fault> {
    parse_i64(text)
        .ok()
        .and_then(|value| u8::try_from(value).ok())
        .ok_or_else(|| Fault::Result(format!("{text} is not a valid pattern byte")))
}

/// Refuses a range that is not made of whole sectors.
pub(super) fn whole_sectors(offset: u64, count: u64) -> Result<(), Fault> {
    for (value, name) in [(offset, "offset"), (count, "count")] {
        if !value.is_multiple_of(SECTOR) {
            return Err(Fault::Result(format!(
                "{value} is not a sector-aligned value for '{name}'"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
        match result {
            Err(Fault::Result(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lengths_have_a_limit_of_their_own() {
        assert_eq!(request_length("64k").expect("a length"), 65536);
        assert_eq!(request_length("2147483136").expect("a length"), MAX_REQUEST);
        assert_eq!(said(request_length("2G")), "length cannot exceed 2147483136, given 2G");
        assert_eq!(said(bytes("8E")), "Parsing error: argument too large -- 8E");
        assert!(said(bytes("1e3")).ends_with("suffix -- 1e3"));
    }

    #[test]
    fn totals_are_limited_too() {
        assert_eq!(total_length(&["512", "1k"]).expect("a total"), 1536);
        assert!(said(total_length(&["1G", "1G"])).starts_with("The total number of bytes"));
        assert!(said(total_length(&["512", "2G"])).starts_with("Argument '2G'"));
    }

    #[test]
    fn patterns_are_bytes() {
        assert_eq!(pattern("0xcd").expect("a byte"), 0xcd);
        for text in ["256", "-1", "x", ""] {
            assert_eq!(said(pattern(text)), format!("{text} is not a valid pattern byte"));
        }
    }
}
