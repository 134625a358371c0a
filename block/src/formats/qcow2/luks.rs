//! What a LUKS header says about itself (LUKS On-Disk Format Specification, version 1.2.3). No key is
//! touched.

use crate::options::{Dict, Value};

/// Length of the header in bytes.
pub(crate) const HEADER_LEN: u64 = 592;
const MAGIC: &[u8] = b"LUKS\xba\xbe";
const KEY_SLOTS: usize = 8;
/// Host offset of the first key slot's description, and the length of each.
const SLOTS: (usize, usize) = (208, 48);
/// The mark of a key slot in use.
const ACTIVE: u32 = 0x00ac_71f3;
/// Unit of offsets in the header, in bytes.
const SECTOR: u64 = 512;

fn be32(header: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?))
}

/// Text that ends at the first zero byte.
fn text(header: &[u8], at: usize, len: usize) -> Option<&str> {
    let field = header.get(at..at + len)?;
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(len);
    std::str::from_utf8(field.get(..end)?).ok()
}

/// The facts that `info` shows, in addition to the format's name; `None` if this is no LUKS header of
/// version 1.
pub(crate) fn describe(header: &[u8]) -> Option<Dict> {
    if !header.starts_with(MAGIC) || header.get(6..8)? != [0, 1] {
        return None;
    }
    let (cipher, mode) = (text(header, 8, 32)?, text(header, 40, 32)?);
    let (mode, ivgen) = mode.split_once('-').unwrap_or((mode, "plain"));
    let (ivgen, ivgen_hash) = match ivgen.split_once(':') {
        Some((ivgen, hash)) => (ivgen, Some(hash)),
        None => (ivgen, None),
    };
    let key_bits = u64::from(be32(header, 108)?) * 8;
    // XTS takes two keys.
    let key_bits = if mode == "xts" { key_bits / 2 } else { key_bits };
    let mut facts = Dict::default();
    facts.insert("ivgen-alg", ivgen);
    facts.insert("detached-header", false);
    if let Some(hash) = ivgen_hash {
        facts.insert("ivgen-hash-alg", hash);
    }
    facts.insert("hash-alg", text(header, 72, 32)?);
    facts.insert("cipher-alg", format!("{cipher}-{key_bits}"));
    facts.insert("uuid", text(header, 168, 40)?);
    facts.insert("cipher-mode", mode);
    let slots = (0..KEY_SLOTS).map(|number| describe_slot(header, number));
    facts.insert("slots", Value::List(slots.collect::<Option<Vec<Value>>>()?));
    facts.insert("payload-offset", u64::from(be32(header, 104)?) * SECTOR);
    facts.insert("master-key-iters", be32(header, 164)?);
    Some(facts)
}

fn describe_slot(header: &[u8], number: usize) -> Option<Value> {
    let at = SLOTS.0 + number * SLOTS.1;
    let active = be32(header, at)? == ACTIVE;
    let mut slot = Dict::default();
    slot.insert("active", active);
    if active {
        slot.insert("iters", be32(header, at + 4)?);
        slot.insert("stripes", be32(header, at + 44)?);
    }
    slot.insert("key-offset", u64::from(be32(header, at + 40)?) * SECTOR);
    Some(Value::Dict(slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut header = vec![0; 592];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(7, &[1]);
        put(8, b"aes");
        put(40, b"cbc-essiv:sha256");
        put(72, b"sha1");
        put(104, &4040u32.to_be_bytes());
        put(108, &16u32.to_be_bytes());
        put(164, &7557u32.to_be_bytes());
        put(168, b"6eb488bc-76d1-442d-9d18-17d9c688fe71");
        put(208, &ACTIVE.to_be_bytes());
        put(212, &1000u32.to_be_bytes());
        put(248, &8u32.to_be_bytes());
        put(252, &4000u32.to_be_bytes());
        header
    }

    #[test]
    fn the_cipher_is_taken_apart() {
        let facts = describe(&sample()).expect("a header");
        let word = |key: &str| facts.get(key).and_then(Value::as_str).unwrap_or_default();
        assert_eq!(word("cipher-alg"), "aes-128");
        assert_eq!(word("cipher-mode"), "cbc");
        assert_eq!(word("ivgen-alg"), "essiv");
        assert_eq!(word("ivgen-hash-alg"), "sha256");
        assert_eq!(facts.get("payload-offset"), Some(&Value::Int(2_068_480)));
        let slots = facts.get("slots").and_then(Value::as_list).expect("a list");
        assert_eq!(slots.len(), 8);
        assert_eq!(slots[0].as_dict().and_then(|s| s.get("key-offset")), Some(&Value::Int(4096)));
    }

    #[test]
    fn other_bytes_are_no_header() {
        assert!(describe(&[]).is_none());
        assert!(describe(&sample()[..300]).is_none());
        assert!(describe(&[0; 592]).is_none());
    }
}
