//! A client's handshake: as much as it takes to list a server's exports, and to attach a device of the
//! kernel. The block layer has the client that does I/O.

use cairn_nbd_wire::{
    BlockSizes, ClientFlags, ExportFlags, GREETING_MAGIC_LEN, Greeting, HandshakeFlags, InfoItem,
    InfoRequest, InfoType, MetaRequest, OptionReply, OptionReplyHeader, OptionRequest, ReplyCode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::{Error, Result};
use crate::stream::BoxStream;

/// Longest answer to an option that is read, in bytes.
const MAX_ANSWER: u32 = 64 << 10;
/// Most answers to one option: exports or contexts that a listing may have.
const MAX_ANSWERS: usize = 100_000;

/// What a server says of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListedExport {
    /// Its name.
    pub(crate) name: String,
    /// What it is, for people.
    pub(crate) description: String,
    /// Size in bytes, and flags, if the server tells.
    pub(crate) properties: Option<(u64, ExportFlags)>,
    /// Block sizes, if the server tells.
    pub(crate) block_sizes: Option<BlockSizes>,
    /// Names of its metadata contexts.
    pub(crate) contexts: Vec<String>,
}

/// The exports of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The server knows requests and replies with lengths of 64 bits.
    pub(crate) extended: bool,
    /// The exports, in the server's order.
    pub(crate) exports: Vec<ListedExport>,
}

/// A handshake in which options can be sent.
pub(crate) struct Negotiation {
    stream: BoxStream,
}

fn failed(source: std::io::Error) -> Error {
    Error::System { what: "talk to the server".to_owned(), source }
}

fn protocol(text: &str) -> Error {
    Error::Usage(format!("the server does not keep to the protocol: {text}"))
}

impl Negotiation {
    /// Reads the greeting and answers it.
    pub(crate) async fn begin(mut stream: BoxStream) -> Result<Negotiation> {
        let mut magic = [0; GREETING_MAGIC_LEN];
        stream.read_exact(&mut magic).await.map_err(failed)?;
        if Greeting::decode(&magic)? == Greeting::Oldstyle {
            return Err(Error::Usage("the server knows the oldstyle handshake only".to_owned()));
        }
        let flags = HandshakeFlags::from_bits_retain(stream.read_u16().await.map_err(failed)?);
        if !flags.contains(HandshakeFlags::FIXED_NEWSTYLE) {
            return Err(Error::Usage("the server does not know the fixed newstyle".to_owned()));
        }
        let mut answer = ClientFlags::FIXED_NEWSTYLE;
        answer.set(ClientFlags::NO_ZEROES, flags.contains(HandshakeFlags::NO_ZEROES));
        stream.write_u32(answer.bits()).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        Ok(Negotiation { stream })
    }

    /// Goes on over `stream`, under which there is TLS now.
    pub(crate) fn resume(stream: BoxStream) -> Negotiation {
        Negotiation { stream }
    }

    /// Gives the stream up, at the end of the handshake or for TLS.
    pub(crate) fn into_stream(self) -> BoxStream {
        self.stream
    }

    /// Sends an option and returns the answers that come before the last one; fails if that is a
    /// refusal.
    pub(crate) async fn ask(&mut self, request: &OptionRequest) -> Result<Vec<OptionReply>> {
        self.stream.write_all(&request.encode()?).await.map_err(failed)?;
        self.stream.flush().await.map_err(failed)?;
        let mut answers = Vec::new();
        loop {
            let mut header = [0; OptionReplyHeader::LEN];
            self.stream.read_exact(&mut header).await.map_err(failed)?;
            let header = OptionReplyHeader::decode(&header)?;
            if header.option != request.code() {
                return Err(protocol("it answers an option that was not sent"));
            }
            if header.len > MAX_ANSWER || answers.len() >= MAX_ANSWERS {
                return Err(protocol("its answer has no end"));
            }
            let mut payload = vec![0; usize::try_from(header.len).unwrap_or_default()];
            self.stream.read_exact(&mut payload).await.map_err(failed)?;
            match OptionReply::decode(header.code, &payload)? {
                OptionReply::Ack => return Ok(answers),
                OptionReply::Error { code, message } => {
                    return Err(Error::Refused {
                        option: request.code().to_string(),
                        code,
                        message,
                    });
                }
                answer => answers.push(answer),
            }
        }
    }

    /// Whether the server agrees to an option that it may not know.
    async fn agrees(&mut self, request: &OptionRequest) -> Result<bool> {
        match self.ask(request).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { code: ReplyCode::ERR_UNSUP | ReplyCode::ERR_POLICY, .. }) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Lists the exports with what the server tells of each, and leaves.
    pub(crate) async fn list(mut self) -> Result<Listing> {
        let extended = self.agrees(&OptionRequest::ExtendedHeaders).await?;
        let structured = extended || self.agrees(&OptionRequest::StructuredReply).await?;
        let mut exports = Vec::new();
        for answer in self.ask(&OptionRequest::List).await? {
            if let OptionReply::Server { name, description } = answer {
                exports.push(ListedExport { name, description, ..ListedExport::default() });
            }
        }
        for export in &mut exports {
            self.describe(export, structured).await?;
        }
        // The server may hang up instead of answering.
        let _ = self.ask(&OptionRequest::Abort).await;
        Ok(Listing { extended, exports })
    }

    async fn describe(&mut self, export: &mut ListedExport, structured: bool) -> Result<()> {
        let items = vec![InfoType::NAME, InfoType::DESCRIPTION, InfoType::BLOCK_SIZE];
        let request = InfoRequest { name: export.name.clone(), items };
        let answers = match self.ask(&OptionRequest::Info(request)).await {
            Ok(answers) => answers,
            // Servers need not know this option, nor tell of every export.
            Err(Error::Refused { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        for answer in answers {
            match answer {
                OptionReply::Info(InfoItem::Export { size, flags }) => {
                    export.properties = Some((size, flags));
                }
                OptionReply::Info(InfoItem::BlockSize(sizes)) => export.block_sizes = Some(sizes),
                OptionReply::Info(InfoItem::Description(text)) => export.description = text,
                _ => {}
            }
        }
        if structured {
            let request = MetaRequest { name: export.name.clone(), queries: Vec::new() };
            match self.ask(&OptionRequest::ListMetaContext(request)).await {
                Ok(answers) => {
                    let contexts = answers.into_iter().filter_map(|answer| match answer {
                        OptionReply::MetaContext { name, .. } => Some(name),
                        _ => None,
                    });
                    export.contexts = contexts.collect();
                }
                Err(Error::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Chooses an export and begins transmission. Returns its size in bytes, flags, and smallest block.
    pub(crate) async fn go(&mut self, name: &str) -> Result<(u64, ExportFlags, u32)> {
        let request = InfoRequest { name: name.to_owned(), items: vec![InfoType::BLOCK_SIZE] };
        let mut properties = None;
        let mut block = 512;
        for answer in self.ask(&OptionRequest::Go(request)).await? {
            match answer {
                OptionReply::Info(InfoItem::Export { size, flags }) => {
                    properties = Some((size, flags));
                }
                OptionReply::Info(InfoItem::BlockSize(sizes)) => {
                    block = sizes.validated()?.min.max(block);
                }
                _ => {}
            }
        }
        let (size, flags) = properties.ok_or_else(|| protocol("it does not tell the size"))?;
        Ok((size, flags, block))
    }
}
