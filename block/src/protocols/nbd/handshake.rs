//! The handshake: from a new connection to an export that can be used (sections "Handshake" and
//! "Option haggling" of the protocol document).
//!
//! Nothing of what the server says is believed: answers are bounded in number and length, and every
//! error ends the connection. Nothing is read ahead, so that no bytes from before TLS count after it.

use std::io;

use cairn_nbd_wire::{
    BASE_ALLOCATION, BlockSizes, ClientFlags, ExportFlags, ExportNameReply, GREETING_MAGIC_LEN,
    Greeting, HandshakeFlags, HeaderStyle, InfoItem, InfoRequest, InfoType, MetaRequest,
    OldstyleExport, OptionCode, OptionReply, OptionReplyHeader, OptionRequest, ReplyCode,
    WireError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::printable;
use super::stream::Stream;
use crate::error::{Error, Result};
use crate::graph::MAX_SIZE;
use crate::tls::TlsCreds;

/// Most answers to one option.
const MAX_REPLIES: usize = 64;
/// Longest payload of an answer in bytes: two strings with their lengths.
const MAX_REPLY: u32 = 16 << 10;

/// What a client wants of a server.
pub(super) struct Wanted<'a> {
    /// What messages call the server's export.
    pub(super) label: &'a str,
    /// Name of the export.
    pub(super) export: &'a str,
    /// Metadata context for block status.
    pub(super) context: &'a str,
}

/// What the server has told of its export, and what was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Export {
    /// Size in bytes.
    pub(super) size: u64,
    /// What it is and can do.
    pub(super) flags: ExportFlags,
    /// Block sizes, if the server announced any.
    pub(super) sizes: Option<BlockSizes>,
    /// Form of requests and replies.
    pub(super) style: HeaderStyle,
    /// Number of the metadata context, if the server has it.
    pub(super) context: Option<u32>,
}

impl Wanted<'_> {
    fn refused(&self, problem: impl Into<String>) -> Error {
        self.error(libc::EINVAL, problem)
    }

    fn error(&self, errno: i32, problem: impl Into<String>) -> Error {
        Error::Server { node: self.label.to_owned(), problem: problem.into(), errno }
    }

    fn broken(&self, error: &WireError) -> Error {
        self.error(libc::EPROTO, format!("does not keep to the protocol: {error}"))
    }

    fn lost(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                self.error(libc::ECONNRESET, "hung up during the handshake")
            }
            _ => self.error(error.raw_os_error().unwrap_or(libc::EIO), format!("is lost: {error}")),
        }
    }
}

/// How far a handshake came before options can be sent.
enum Greeted {
    /// An oldstyle server has nothing to haggle about.
    Oldstyle(Export),
    /// A newstyle server.
    Newstyle { fixed: bool, no_zeroes: bool },
}

/// A connection during the handshake.
struct Haggling<'a, S> {
    stream: S,
    wanted: &'a Wanted<'a>,
}

/// Agrees with a server on an export, over TLS if there are credentials.
pub(super) async fn negotiate<S: Stream + 'static>(
    stream: S,
    wanted: &Wanted<'_>,
    tls: Option<(&TlsCreds, Option<&str>)>,
) -> Result<(Box<dyn Stream>, Export)> {
    let mut plain = Haggling { stream, wanted };
    let greeted = plain.greet().await?;
    let Some((creds, hostname)) = tls else {
        let export = plain.choose(greeted).await?;
        return Ok((Box::new(plain.stream), export));
    };
    if !matches!(greeted, Greeted::Newstyle { fixed: true, .. }) {
        return Err(wanted.refused("is too old for TLS, for which there are credentials"));
    }
    plain.send(&OptionRequest::StartTls).await?;
    match plain.reply(OptionCode::STARTTLS).await? {
        OptionReply::Ack => {}
        OptionReply::Error { code, message } => {
            return Err(plain.option_error("refuses TLS", code, &message));
        }
        other => return Err(plain.unexpected(OptionCode::STARTTLS, &other)),
    }
    let stream = creds.connect(plain.stream, hostname).await?;
    let mut secure = Haggling { stream, wanted };
    let export = secure.choose(greeted).await?;
    Ok((Box::new(secure.stream), export))
}

impl<S: Stream> Haggling<'_, S> {
    async fn exactly<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).await.map_err(|error| self.wanted.lost(error))?;
        Ok(bytes)
    }

    async fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| self.wanted.lost(error))
    }

    async fn send(&mut self, option: &OptionRequest) -> Result<()> {
        let bytes = option.encode().map_err(|error| {
            Error::unsupported(self.wanted.label, format!("the option cannot be sent: {error}"))
        })?;
        self.send_bytes(&bytes).await
    }

    /// The next answer to `option`.
    async fn reply(&mut self, option: OptionCode) -> Result<OptionReply> {
        let header = self.exactly().await?;
        let header =
            OptionReplyHeader::decode(&header).map_err(|error| self.wanted.broken(&error))?;
        if header.option != option {
            let problem = format!("answers {} where {option} was asked", header.option);
            return Err(self.wanted.error(libc::EPROTO, problem));
        }
        if header.len > MAX_REPLY {
            let problem = format!("answers {option} with {} bytes", header.len);
            return Err(self.wanted.error(libc::EPROTO, problem));
        }
        let mut payload = Vec::new();
        let len = u64::from(header.len);
        let read = (&mut self.stream).take(len).read_to_end(&mut payload).await;
        read.map_err(|error| self.wanted.lost(error))?;
        if payload.len() as u64 != len {
            return Err(self.wanted.lost(io::ErrorKind::UnexpectedEof.into()));
        }
        OptionReply::decode(header.code, &payload).map_err(|error| self.wanted.broken(&error))
    }

    fn unexpected(&self, option: OptionCode, reply: &OptionReply) -> Error {
        self.wanted.error(libc::EPROTO, format!("answers {option} with {:?}", reply.code()))
    }

    /// What a refusal means for the user.
    fn option_error(&self, what: &str, code: ReplyCode, message: &str) -> Error {
        let export = self.wanted.export;
        let problem = match code {
            ReplyCode::ERR_TLS_REQD => {
                "demands TLS; give credentials with the option tls-creds".to_owned()
            }
            ReplyCode::ERR_UNKNOWN if export.is_empty() => {
                "has no default export; name one with the option export".to_owned()
            }
            ReplyCode::ERR_UNKNOWN => format!("has no export '{export}'"),
            code => format!("{what}: {code}"),
        };
        let said = if message.is_empty() {
            String::new()
        } else {
            format!("\nserver reported: {}", printable(message))
        };
        self.wanted.refused(format!("{problem}{said}"))
    }

    async fn greet(&mut self) -> Result<Greeted> {
        let magic: [u8; GREETING_MAGIC_LEN] = self.exactly().await?;
        match Greeting::decode(&magic).map_err(|error| self.wanted.broken(&error))? {
            Greeting::Oldstyle => {
                let bytes: [u8; OldstyleExport::LEN] = self.exactly().await?;
                let export =
                    OldstyleExport::decode(&bytes).map_err(|error| self.wanted.broken(&error))?;
                Ok(Greeted::Oldstyle(Export {
                    size: export.size,
                    flags: export.flags,
                    sizes: None,
                    style: HeaderStyle::Simple,
                    context: None,
                }))
            }
            Greeting::Newstyle => {
                let offered = HandshakeFlags::from_bits_retain(u16::from_be_bytes(
                    self.exactly::<2>().await?,
                ));
                let fixed = offered.contains(HandshakeFlags::FIXED_NEWSTYLE);
                let no_zeroes = offered.contains(HandshakeFlags::NO_ZEROES);
                let mut accepted = ClientFlags::empty();
                accepted.set(ClientFlags::FIXED_NEWSTYLE, fixed);
                accepted.set(ClientFlags::NO_ZEROES, no_zeroes);
                self.send_bytes(&accepted.bits().to_be_bytes()).await?;
                Ok(Greeted::Newstyle { fixed, no_zeroes })
            }
        }
    }

    /// Chooses the export, with as much of the protocol as the server knows.
    async fn choose(&mut self, greeted: Greeted) -> Result<Export> {
        let export = match greeted {
            Greeted::Oldstyle(export) => {
                if !self.wanted.export.is_empty() {
                    return Err(self.wanted.refused(format!(
                        "is too old to have an export '{}'; it has one without name",
                        self.wanted.export
                    )));
                }
                export
            }
            Greeted::Newstyle { fixed: false, no_zeroes } => {
                self.export_name(no_zeroes, HeaderStyle::Simple, None).await?
            }
            Greeted::Newstyle { fixed: true, no_zeroes } => {
                let style = self.header_style().await?;
                let context = match style {
                    HeaderStyle::Simple => None,
                    HeaderStyle::Structured | HeaderStyle::Extended => self.meta_context().await?,
                };
                match self.go(style, context).await? {
                    Some(export) => export,
                    None => self.export_name(no_zeroes, style, context).await?,
                }
            }
        };
        self.check(export)
    }

    /// Whether the server accepts an option without payload.
    async fn accepts(&mut self, option: OptionRequest) -> Result<bool> {
        self.send(&option).await?;
        match self.reply(option.code()).await? {
            OptionReply::Ack => Ok(true),
            OptionReply::Error { code: code @ ReplyCode::ERR_TLS_REQD, message } => {
                Err(self.option_error("", code, &message))
            }
            OptionReply::Error { .. } => Ok(false),
            other => Err(self.unexpected(option.code(), &other)),
        }
    }

    async fn header_style(&mut self) -> Result<HeaderStyle> {
        if self.accepts(OptionRequest::ExtendedHeaders).await? {
            return Ok(HeaderStyle::Extended);
        }
        let structured = self.accepts(OptionRequest::StructuredReply).await?;
        Ok(if structured { HeaderStyle::Structured } else { HeaderStyle::Simple })
    }

    /// Selects the metadata context; its number, if the server has it.
    async fn meta_context(&mut self) -> Result<Option<u32>> {
        let request = MetaRequest {
            name: self.wanted.export.to_owned(),
            queries: vec![self.wanted.context.to_owned()],
        };
        self.send(&OptionRequest::SetMetaContext(request)).await?;
        let mut selected = None;
        for _ in 0..MAX_REPLIES {
            match self.reply(OptionCode::SET_META_CONTEXT).await? {
                OptionReply::Ack => return Ok(selected),
                OptionReply::MetaContext { id, name } if name == self.wanted.context => {
                    if selected.replace(id).is_some() {
                        let problem = format!("names the context {name} twice");
                        return Err(self.wanted.error(libc::EPROTO, problem));
                    }
                }
                OptionReply::MetaContext { name, .. } => {
                    let problem = format!("offers the unwanted context {}", printable(&name));
                    return Err(self.wanted.error(libc::EPROTO, problem));
                }
                // The export may be unknown, too: the next option tells.
                OptionReply::Error { .. } => return Ok(None),
                other => return Err(self.unexpected(OptionCode::SET_META_CONTEXT, &other)),
            }
        }
        Err(self.wanted.error(libc::EPROTO, "never ends its answer to SET_META_CONTEXT"))
    }

    /// Chooses the export by `GO`. `None` if the server does not know that option.
    async fn go(&mut self, style: HeaderStyle, context: Option<u32>) -> Result<Option<Export>> {
        let request =
            InfoRequest { name: self.wanted.export.to_owned(), items: vec![InfoType::BLOCK_SIZE] };
        self.send(&OptionRequest::Go(request)).await?;
        let (mut described, mut sizes) = (None, None);
        for _ in 0..MAX_REPLIES {
            match self.reply(OptionCode::GO).await? {
                OptionReply::Ack => {
                    let Some((size, flags)) = described else {
                        let problem = "does not tell the size of the export";
                        return Err(self.wanted.error(libc::EPROTO, problem));
                    };
                    return Ok(Some(Export { size, flags, sizes, style, context }));
                }
                OptionReply::Info(InfoItem::Export { size, flags }) => {
                    described = Some((size, flags));
                }
                OptionReply::Info(InfoItem::BlockSize(told)) => {
                    let told = told.validated().map_err(|error| self.wanted.broken(&error))?;
                    sizes = Some(told);
                }
                OptionReply::Info(_) => {}
                OptionReply::Error { code: ReplyCode::ERR_UNSUP, .. } => return Ok(None),
                OptionReply::Error { code, message } => {
                    return Err(self.option_error("refuses the export", code, &message));
                }
                other => return Err(self.unexpected(OptionCode::GO, &other)),
            }
        }
        Err(self.wanted.error(libc::EPROTO, "never ends its answer to GO"))
    }

    /// Chooses the export by `EXPORT_NAME`, to which servers hang up where they refuse.
    async fn export_name(
        &mut self,
        no_zeroes: bool,
        style: HeaderStyle,
        context: Option<u32>,
    ) -> Result<Export> {
        self.send(&OptionRequest::ExportName(self.wanted.export.to_owned())).await?;
        let bytes: [u8; ExportNameReply::len(true)] = self.exactly().await?;
        let reply = ExportNameReply::decode(&bytes).map_err(|error| self.wanted.broken(&error))?;
        if !no_zeroes {
            self.exactly::<{ ExportNameReply::len(false) - ExportNameReply::len(true) }>().await?;
        }
        Ok(Export { size: reply.size, flags: reply.flags, sizes: None, style, context })
    }

    /// Refuses exports that cannot be, or that lack the context that was asked for by name.
    fn check(&self, mut export: Export) -> Result<Export> {
        if export.size > MAX_SIZE {
            let problem = format!("has an export of {} bytes, more than possible", export.size);
            return Err(self.wanted.error(libc::EFBIG, problem));
        }
        if let Some(sizes) = export.sizes
            && !export.size.is_multiple_of(sizes.min.into())
        {
            let problem = format!(
                "has an export of {} bytes, no multiple of its blocks of {} bytes",
                export.size, sizes.min
            );
            return Err(self.wanted.error(libc::EPROTO, problem));
        }
        if self.wanted.context != BASE_ALLOCATION && export.context.is_none() {
            let problem = format!("has no metadata context '{}'", self.wanted.context);
            return Err(self.wanted.refused(problem));
        }
        if !export.flags.contains(ExportFlags::HAS_FLAGS) {
            export.flags = ExportFlags::empty();
        }
        Ok(export)
    }
}
