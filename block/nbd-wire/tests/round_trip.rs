//! What is encoded decodes to the same, and arbitrary bytes decode to an error at worst.

use cairn_nbd_wire::*;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> + Clone {
    prop::collection::vec(prop::char::range('\u{1}', '\u{2fff}'), 0..40).prop_map(String::from_iter)
}

fn option() -> impl Strategy<Value = OptionRequest> {
    let info = (text(), prop::collection::vec(any::<u16>().prop_map(InfoType), 0..6))
        .prop_map(|(name, items)| InfoRequest { name, items });
    let meta = (text(), prop::collection::vec(text(), 0..6))
        .prop_map(|(name, queries)| MetaRequest { name, queries });
    prop_oneof![
        Just(OptionRequest::Abort),
        text().prop_map(OptionRequest::ExportName),
        Just(OptionRequest::ExtendedHeaders),
        info.clone().prop_map(OptionRequest::Go),
        info.prop_map(OptionRequest::Info),
        Just(OptionRequest::List),
        meta.clone().prop_map(OptionRequest::ListMetaContext),
        meta.prop_map(OptionRequest::SetMetaContext),
        Just(OptionRequest::StartTls),
        Just(OptionRequest::StructuredReply),
        (12u32..).prop_map(|code| OptionRequest::Unknown(OptionCode(code))),
    ]
}

fn option_reply() -> impl Strategy<Value = OptionReply> {
    let flags = any::<u16>().prop_map(ExportFlags::from_bits_retain);
    prop_oneof![
        Just(OptionReply::Ack),
        (1u32 << 31.., text())
            .prop_map(|(code, message)| OptionReply::Error { code: ReplyCode(code), message }),
        (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(min, preferred, max)| {
            OptionReply::Info(InfoItem::BlockSize(BlockSizes { min, preferred, max }))
        }),
        text().prop_map(|text| OptionReply::Info(InfoItem::Description(text))),
        (any::<u64>(), flags)
            .prop_map(|(size, flags)| OptionReply::Info(InfoItem::Export { size, flags })),
        text().prop_map(|text| OptionReply::Info(InfoItem::Name(text))),
        (any::<u32>(), text()).prop_map(|(id, name)| OptionReply::MetaContext { id, name }),
        (text(), text()).prop_map(|(name, description)| OptionReply::Server { name, description }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    (any::<u16>(), any::<u16>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(flags, command, cookie, offset, len)| Request {
            flags: CommandFlags::from_bits_retain(flags),
            command: Command(command),
            cookie,
            offset,
            len,
        },
    )
}

proptest! {
    #[test]
    fn options(option in option()) {
        let bytes = option.encode().expect("short");
        let (head, payload) = bytes.split_first_chunk().expect("header");
        let header = OptionHeader::decode(head).expect("valid");
        prop_assert_eq!(header.len as usize, payload.len());
        prop_assert_eq!(OptionRequest::decode(header.code, payload), Ok(option.clone()));
        // No shorter payload is valid, except where the rest is a name.
        let open_ended = matches!(option, OptionRequest::ExportName(_) | OptionRequest::Abort);
        if !open_ended && !payload.is_empty() {
            let cut = &payload[..payload.len() - 1];
            prop_assert!(OptionRequest::decode(header.code, cut).is_err());
        }
    }

    #[test]
    fn option_replies(reply in option_reply(), option in any::<u32>()) {
        let mut bytes = Vec::new();
        reply.encode(OptionCode(option), &mut bytes).expect("short");
        let (head, payload) = bytes.split_first_chunk().expect("header");
        let header = OptionReplyHeader::decode(head).expect("valid");
        prop_assert_eq!(header.option, OptionCode(option));
        prop_assert_eq!(header.len as usize, payload.len());
        prop_assert_eq!(OptionReply::decode(header.code, payload), Ok(reply));
    }

    #[test]
    fn requests(request in request()) {
        let extended = request.encode_extended();
        prop_assert_eq!(Request::decode_extended(&extended), Ok(request));
        match request.encode_compact() {
            Ok(bytes) => prop_assert_eq!(Request::decode_compact(&bytes), Ok(request)),
            Err(_) => prop_assert!(request.len > u64::from(u32::MAX)),
        }
        let compact = Request { len: request.len & 0xffff_ffff, ..request };
        let bytes = compact.encode_compact().expect("fits");
        prop_assert_eq!(Request::decode_compact(&bytes), Ok(compact));
    }

    #[test]
    fn status_payloads(len in any::<u64>(), contexts in prop::collection::vec(any::<u32>(), 0..9)) {
        let payload = StatusPayload { len, contexts };
        let bytes = payload.encode();
        prop_assert_eq!(StatusPayload::decode(&bytes), Ok(payload));
        prop_assert!(StatusPayload::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn reply_headers(flags in any::<u16>(), kind in any::<u16>(), cookie in any::<u64>(),
                     offset in any::<u64>(), len in any::<u32>(), error in any::<u32>()) {
        let flags = ChunkFlags::from_bits_retain(flags);
        for (style, offset) in [(HeaderStyle::Structured, 0), (HeaderStyle::Extended, offset)] {
            let kind = ChunkType(kind);
            let header = ChunkHeader { flags, kind, cookie, offset, len: len.into() };
            let mut bytes = Vec::new();
            header.encode(style == HeaderStyle::Extended, &mut bytes).expect("fits");
            let magic = *bytes.first_chunk().expect("long");
            prop_assert_eq!(ReplyHeader::len_of(magic, style), Ok(bytes.len()));
            prop_assert!(ReplyHeader::len_of(magic, HeaderStyle::Simple).is_err());
            prop_assert_eq!(ReplyHeader::decode(&bytes), Ok(ReplyHeader::Chunk(header)));
        }
        let simple = SimpleReply { error, cookie };
        let bytes = simple.encode();
        let magic = *bytes.first_chunk().expect("long");
        prop_assert_eq!(ReplyHeader::len_of(magic, HeaderStyle::Structured), Ok(16));
        prop_assert!(ReplyHeader::len_of(magic, HeaderStyle::Extended).is_err());
        prop_assert_eq!(ReplyHeader::decode(&bytes), Ok(ReplyHeader::Simple(simple)));
    }

    #[test]
    fn chunks(context in any::<u32>(), offset in any::<u64>(), message in text(),
              error in 1u32.., at in any::<Option<u64>>(), len in any::<u32>(),
              runs in prop::collection::vec((1u32.., any::<u32>()), 1..20)) {
        let extents =
            runs.iter().map(|&(len, flags)| Extent { len: len.into(), flags: flags.into() });
        let status = BlockStatus { context, extents: extents.collect() };
        for extended in [false, true] {
            let mut bytes = Vec::new();
            status.encode(extended, &mut bytes).expect("fits");
            prop_assert_eq!(bytes.len() as u64, status.encoded_len(extended));
            prop_assert_eq!(BlockStatus::decode(extended, &bytes), Ok(status.clone()));
        }
        let failure = ErrorChunk { error, message, offset: at };
        let mut bytes = Vec::new();
        failure.encode(&mut bytes).expect("short");
        prop_assert_eq!(ErrorChunk::decode(failure.kind(), &bytes), Ok(failure));
        let hole = Hole { offset, len };
        prop_assert_eq!(Hole::decode(&hole.encode()), Ok(hole));
        let data = DataHeader { offset };
        prop_assert_eq!(DataHeader::decode(&data.encode()), data);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(code in 0u32..14, kind in any::<u16>(), refused in any::<bool>(),
                                  bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = OptionRequest::decode(OptionCode(code), &bytes);
        let reply = if refused { code | 1 << 31 } else { code };
        let _ = OptionReply::decode(ReplyCode(reply), &bytes);
        let _ = ReplyHeader::decode(&bytes);
        let _ = BlockStatus::decode(bytes.len().is_multiple_of(2), &bytes);
        let _ = ErrorChunk::decode(ChunkType(kind), &bytes);
        let _ = StatusPayload::decode(&bytes);
    }
}

#[test]
fn long_strings_and_lying_counts_are_refused() {
    let long = "x".repeat(MAX_STRING + 1);
    assert!(OptionRequest::ExportName(long.clone()).encode().is_err());
    let payload = long.as_bytes();
    assert!(matches!(
        OptionRequest::decode(OptionCode::EXPORT_NAME, payload),
        Err(WireError::TooLong { .. })
    ));
    assert!(OptionRequest::decode(OptionCode::EXPORT_NAME, &payload[1..]).is_ok());
    // Four billion queries in twelve bytes.
    let payload = [0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0];
    assert!(OptionRequest::decode(OptionCode::SET_META_CONTEXT, &payload).is_err());
    // A name that ends behind the payload.
    let payload = [0, 0, 1, 0, b'a', 0, 0];
    assert!(OptionRequest::decode(OptionCode::GO, &payload).is_err());
    assert!(OptionRequest::decode(OptionCode::LIST, b"x").is_err());
    assert!(OptionRequest::decode(OptionCode::EXPORT_NAME, b"a\0b").is_err());
    assert!(OptionRequest::decode(OptionCode::EXPORT_NAME, b"\xff").is_err());
    // A message that is longer than its chunk.
    assert!(ErrorChunk::decode(ChunkType::ERROR, &[0, 0, 0, 5, 0, 9, b'x']).is_err());
    assert!(BlockStatus::decode(false, &[0, 0, 0, 1]).is_err());
    assert!(BlockStatus::decode(true, &[0, 0, 0, 1, 0, 0, 0, 9]).is_err());
}

#[test]
fn messages_have_the_bytes_that_the_protocol_says() {
    let go = OptionRequest::Go(InfoRequest { name: "a".into(), items: vec![InfoType::BLOCK_SIZE] });
    assert_eq!(go.encode().expect("short"), b"IHAVEOPT\0\0\0\x07\0\0\0\x09\0\0\0\x01a\0\x01\0\x03");
    let mut bytes = Vec::new();
    OptionReply::Ack.encode(OptionCode::GO, &mut bytes).expect("short");
    assert_eq!(bytes, b"\0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x07\0\0\0\x01\0\0\0\0");
    let request = Request {
        flags: CommandFlags::DF,
        command: Command::READ,
        cookie: 1,
        offset: 512,
        len: 4096,
    };
    let bytes = request.encode_compact().expect("fits");
    assert_eq!(bytes, *b"\x25\x60\x95\x13\0\x04\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x02\0\0\0\x10\0");
    assert_eq!(
        SimpleReply { error: 5, cookie: 2 }.encode(),
        *b"\x67\x44\x66\x98\0\0\0\x05\0\0\0\0\0\0\0\x02"
    );
}
