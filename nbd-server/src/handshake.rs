//! The handshake: options until one of them begins transmission (protocol document, "Newstyle
//! negotiation").
//!
//! What a client gets to hear before it has shown who it is, and what it may not do then, is decided
//! here: where TLS is required nothing but `STARTTLS` and `ABORT` is answered, and what was negotiated
//! before TLS is forgotten.

use std::io;
use std::sync::Arc;

use cairn_block::authz::Authorizer;
use cairn_block::tls::TlsCreds;
use cairn_nbd_wire::{
    ClientFlags, ExportFlags, ExportNameReply, Greeting, HandshakeFlags, HeaderStyle, InfoItem,
    InfoRequest, InfoType, MAX_OPTION, MAX_PAYLOAD, MetaQuery, MetaRequest, OptionCode,
    OptionHeader, OptionReply, OptionRequest, ReplyCode, WireError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::export::{Export, Exports};
use crate::notices::Notices;
use crate::session::Session;
use crate::stream::BoxStream;

/// Options that a client may send before it has to begin transmission.
const MAX_OPTIONS: usize = 1024;
/// Bytes that are skipped at a time.
const SKIPPED: usize = 16 << 10;

/// What handshakes need to know of their server.
#[derive(Clone, Default)]
pub(crate) struct Terms {
    pub(crate) exports: Arc<Exports>,
    /// TLS is required if this is there.
    pub(crate) tls: Option<Arc<TlsCreds>>,
    /// Who may use the server, judged by the name that TLS has established.
    pub(crate) authorizer: Option<Arc<Authorizer>>,
    pub(crate) notices: Notices,
}

/// What a client and the server have agreed on so far.
#[derive(Default)]
struct Agreed {
    style: HeaderStyle,
    /// The export whose contexts were selected, and their numbers.
    contexts: Option<(Arc<Export>, Vec<u32>)>,
}

/// A client that has chosen an export, and waits to be told that transmission begins.
pub(crate) struct Ready {
    pub(crate) stream: BoxStream,
    pub(crate) session: Session,
    /// The server's last word of the handshake.
    farewell: Vec<u8>,
}

impl Ready {
    /// Begins transmission.
    pub(crate) async fn begin(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.farewell).await?;
        self.stream.flush().await
    }
}

/// One handshake.
struct Handshake<'t> {
    terms: &'t Terms,
    stream: BoxStream,
    agreed: Agreed,
    /// The client understands that options are refused.
    is_fixed: bool,
    no_zeroes: bool,
    is_secure: bool,
}

/// What an option leads to.
enum Next {
    /// More options.
    Options,
    /// Transmission, behind these last bytes.
    Transmission { export: Arc<Export>, farewell: Vec<u8> },
    /// The end of the session.
    End,
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// Performs the handshake on `stream`. `None` if the client left, as one that only asks does.
pub(crate) async fn handshake(stream: BoxStream, terms: &Terms) -> io::Result<Option<Ready>> {
    let mut handshake = Handshake {
        terms,
        stream,
        agreed: Agreed::default(),
        is_fixed: false,
        no_zeroes: false,
        is_secure: false,
    };
    let flags = HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES;
    handshake.send(&Greeting::newstyle(flags)).await?;
    let flags = ClientFlags::from_bits_retain(handshake.stream.read_u32().await?);
    if !(ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES).contains(flags) {
        return Err(invalid(format!("unknown client flags {:#x}", flags.bits())));
    }
    handshake.is_fixed = flags.contains(ClientFlags::FIXED_NEWSTYLE);
    handshake.no_zeroes = flags.contains(ClientFlags::NO_ZEROES);
    handshake.options().await
}

impl Handshake<'_> {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Takes options until one begins transmission or ends the session.
    async fn options(mut self) -> io::Result<Option<Ready>> {
        for _ in 0..MAX_OPTIONS {
            let mut header = [0; OptionHeader::LEN];
            match self.stream.read_exact(&mut header).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                result => result?,
            };
            let header =
                OptionHeader::decode(&header).map_err(|error| invalid(error.to_string()))?;
            if header.len > MAX_PAYLOAD {
                return Err(invalid("an option is longer than 32 MiB"));
            }
            match self.option(header).await? {
                Next::Options => {}
                Next::Transmission { export, farewell } => {
                    let contexts = match self.agreed.contexts.take() {
                        Some((chosen, ids)) if Arc::ptr_eq(&chosen, &export) => ids,
                        _ => Vec::new(),
                    };
                    let style = self.agreed.style;
                    let notices = self.terms.notices.clone();
                    let session = Session { export, style, contexts, notices };
                    return Ok(Some(Ready { stream: self.stream, session, farewell }));
                }
                Next::End => return Ok(None),
            }
        }
        Err(invalid("the client sent too many options"))
    }

    /// Takes the payload of an option and answers it.
    async fn option(&mut self, header: OptionHeader) -> io::Result<Next> {
        let OptionHeader { code, len } = header;
        let must_secure = self.terms.tls.is_some() && !self.is_secure;
        if must_secure && !matches!(code, OptionCode::STARTTLS | OptionCode::ABORT) {
            if code == OptionCode::EXPORT_NAME {
                return Err(invalid("EXPORT_NAME came before TLS"));
            }
            self.skip(len).await?;
            return self.refuse(code, ReplyCode::ERR_TLS_REQD, "TLS has to come first").await;
        }
        if !self.is_fixed && code != OptionCode::EXPORT_NAME {
            return Err(invalid(format!("{code} came from a client that knows EXPORT_NAME only")));
        }
        if len > MAX_OPTION {
            self.skip(len).await?;
            return self.refuse(code, ReplyCode::ERR_TOO_BIG, "the option is too long").await;
        }
        let mut payload = vec![0; usize::try_from(len).unwrap_or_default()];
        self.stream.read_exact(&mut payload).await?;
        let request = match OptionRequest::decode(code, &payload) {
            Ok(request) => request,
            // There is no way to refuse this one.
            Err(error) if code == OptionCode::EXPORT_NAME => {
                return Err(invalid(error.to_string()));
            }
            Err(error) => {
                let reply = match error {
                    WireError::TooLong { .. } => ReplyCode::ERR_TOO_BIG,
                    _ => ReplyCode::ERR_INVALID,
                };
                return self.refuse(code, reply, &error.to_string()).await;
            }
        };
        self.answer(request).await
    }

    async fn answer(&mut self, request: OptionRequest) -> io::Result<Next> {
        let code = request.code();
        match request {
            OptionRequest::Abort => {
                // The client may be gone already.
                let _ = self.reply(code, &[OptionReply::Ack]).await;
                Ok(Next::End)
            }
            OptionRequest::ExportName(name) => self.export_name(&name),
            OptionRequest::ExtendedHeaders => {
                if self.agreed.style == HeaderStyle::Extended {
                    let text = "extended headers were negotiated already";
                    return self.refuse(code, ReplyCode::ERR_INVALID, text).await;
                }
                self.agreed.style = HeaderStyle::Extended;
                self.reply(code, &[OptionReply::Ack]).await
            }
            OptionRequest::Go(request) => self.info(code, request, true).await,
            OptionRequest::Info(request) => self.info(code, request, false).await,
            OptionRequest::List => self.list().await,
            OptionRequest::ListMetaContext(request) => self.list_contexts(code, request).await,
            OptionRequest::SetMetaContext(request) => self.set_contexts(code, request).await,
            OptionRequest::StartTls => self.start_tls().await,
            OptionRequest::StructuredReply => match self.agreed.style {
                HeaderStyle::Simple => {
                    self.agreed.style = HeaderStyle::Structured;
                    self.reply(code, &[OptionReply::Ack]).await
                }
                HeaderStyle::Structured => {
                    let text = "structured replies were negotiated already";
                    self.refuse(code, ReplyCode::ERR_INVALID, text).await
                }
                HeaderStyle::Extended => {
                    let text = "extended headers were negotiated already";
                    self.refuse(code, ReplyCode::ERR_EXT_HEADER_REQD, text).await
                }
            },
            OptionRequest::Unknown(_) => {
                self.refuse(code, ReplyCode::ERR_UNSUP, "the option is unknown").await
            }
        }
    }

    async fn skip(&mut self, len: u32) -> io::Result<()> {
        let mut scratch = vec![0; SKIPPED];
        let mut left = usize::try_from(len).unwrap_or(usize::MAX);
        while left > 0 {
            let now = left.min(SKIPPED);
            self.stream.read_exact(scratch.get_mut(..now).unwrap_or_default()).await?;
            left -= now;
        }
        Ok(())
    }

    async fn reply(&mut self, option: OptionCode, replies: &[OptionReply]) -> io::Result<Next> {
        let bytes = encode(option, replies)?;
        self.send(&bytes).await?;
        Ok(Next::Options)
    }

    async fn refuse(
        &mut self,
        option: OptionCode,
        code: ReplyCode,
        message: &str,
    ) -> io::Result<Next> {
        self.reply(option, &[OptionReply::Error { code, message: message.to_owned() }]).await
    }

    async fn unknown_export(&mut self, option: OptionCode) -> io::Result<Next> {
        // The name is not repeated: it is the client's, and may be long.
        let text = "there is no export of that name";
        self.refuse(option, ReplyCode::ERR_UNKNOWN, text).await
    }

    /// Flags of `export` for this session. `may_select` tells that the client can still select
    /// contexts.
    fn flags(&self, export: &Arc<Export>, may_select: bool) -> ExportFlags {
        let mut flags = export.flags();
        flags.set(ExportFlags::SEND_DF, self.agreed.style >= HeaderStyle::Structured);
        let selected = match &self.agreed.contexts {
            Some((chosen, ids)) => Arc::ptr_eq(chosen, export) && !ids.is_empty(),
            None => false,
        };
        let has_payload = self.agreed.style == HeaderStyle::Extended && (selected || may_select);
        flags.set(ExportFlags::BLOCK_STATUS_PAYLOAD, has_payload);
        flags
    }

    fn export_name(&self, name: &str) -> io::Result<Next> {
        let Some(export) = self.terms.exports.find(name) else {
            return Err(invalid("the client asked for an export that does not exist"));
        };
        let reply = ExportNameReply { size: export.size(), flags: self.flags(&export, false) };
        let mut farewell = Vec::new();
        reply.encode(self.no_zeroes, &mut farewell);
        Ok(Next::Transmission { export, farewell })
    }

    async fn list(&mut self) -> io::Result<Next> {
        let mut replies: Vec<OptionReply> = Vec::new();
        for export in self.terms.exports.list().iter() {
            let name = export.name().to_owned();
            let description = export.description().unwrap_or_default().to_owned();
            replies.push(OptionReply::Server { name, description });
        }
        replies.push(OptionReply::Ack);
        self.reply(OptionCode::LIST, &replies).await
    }

    async fn info(
        &mut self,
        option: OptionCode,
        request: InfoRequest,
        go: bool,
    ) -> io::Result<Next> {
        let Some(export) = self.terms.exports.find(&request.name) else {
            return self.unknown_export(option).await;
        };
        let wants_sizes = request.items.contains(&InfoType::BLOCK_SIZE);
        let mut sizes = export.block_sizes();
        if !go && !wants_sizes && sizes.min > 1 {
            let text = "the export has block sizes: ask for them";
            return self.refuse(option, ReplyCode::ERR_BLOCK_SIZE_REQD, text).await;
        }
        if go && !wants_sizes {
            // The client does not know of sizes, and need not keep to them.
            sizes.min = 1;
        }
        let mut replies = Vec::new();
        if request.items.contains(&InfoType::NAME) {
            replies.push(OptionReply::Info(InfoItem::Name(export.name().to_owned())));
        }
        if let Some(description) = export.description() {
            replies.push(OptionReply::Info(InfoItem::Description(description.to_owned())));
        }
        replies.push(OptionReply::Info(InfoItem::BlockSize(sizes)));
        let flags = self.flags(&export, !go);
        replies.push(OptionReply::Info(InfoItem::Export { size: export.size(), flags }));
        replies.push(OptionReply::Ack);
        if go {
            let farewell = encode(option, &replies)?;
            return Ok(Next::Transmission { export, farewell });
        }
        self.reply(option, &replies).await
    }

    async fn list_contexts(
        &mut self,
        option: OptionCode,
        request: MetaRequest,
    ) -> io::Result<Next> {
        if self.agreed.style < HeaderStyle::Structured {
            let text = "structured replies have to come first";
            return self.refuse(option, ReplyCode::ERR_INVALID, text).await;
        }
        let Some(export) = self.terms.exports.find(&request.name) else {
            return self.unknown_export(option).await;
        };
        let queries: Vec<_> = request.queries.iter().map(|query| MetaQuery::parse(query)).collect();
        let mut replies: Vec<OptionReply> = export
            .contexts()
            .iter()
            .map(|context| &context.name)
            .filter(|name| queries.is_empty() || queries.iter().any(|query| query.lists(name)))
            .map(|name| OptionReply::MetaContext { id: 0, name: name.to_string() })
            .collect();
        replies.push(OptionReply::Ack);
        self.reply(option, &replies).await
    }

    async fn set_contexts(&mut self, option: OptionCode, request: MetaRequest) -> io::Result<Next> {
        // Whatever comes of it, a former selection is void.
        self.agreed.contexts = None;
        if self.agreed.style < HeaderStyle::Structured {
            let text = "structured replies have to come first";
            return self.refuse(option, ReplyCode::ERR_INVALID, text).await;
        }
        let Some(export) = self.terms.exports.find(&request.name) else {
            return self.unknown_export(option).await;
        };
        let queries: Vec<_> = request.queries.iter().map(|query| MetaQuery::parse(query)).collect();
        let mut ids = Vec::new();
        let mut replies = Vec::new();
        for context in export.contexts() {
            if queries.iter().any(|query| query.selects(&context.name)) {
                ids.push(context.id);
                let name = context.name.to_string();
                replies.push(OptionReply::MetaContext { id: context.id, name });
            }
        }
        replies.push(OptionReply::Ack);
        self.agreed.contexts = Some((export, ids));
        self.reply(option, &replies).await
    }

    async fn start_tls(&mut self) -> io::Result<Next> {
        let option = OptionCode::STARTTLS;
        let Some(creds) = self.terms.tls.clone() else {
            let text = "TLS is not configured";
            return self.refuse(option, ReplyCode::ERR_POLICY, text).await;
        };
        if self.is_secure {
            let text = "the session uses TLS already";
            return self.refuse(option, ReplyCode::ERR_INVALID, text).await;
        }
        self.reply(option, &[OptionReply::Ack]).await?;
        // Options are read to their last byte and no further, so that nothing sent in the clear can pass
        // for encrypted (CVE-2021-3716).
        let stream = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        let stream = creds.accept(stream).await.map_err(|error| invalid(error.to_string()))?;
        let peer = stream.peer_name().map(str::to_owned);
        self.stream = Box::new(stream);
        self.is_secure = true;
        self.agreed = Agreed::default();
        if let Some(authorizer) = &self.terms.authorizer {
            let name = peer.as_deref().unwrap_or_default();
            if peer.is_none() || !authorizer.is_allowed(name) {
                return Err(invalid(format!("'{}' is not authorized", name.escape_debug())));
            }
        }
        Ok(Next::Options)
    }
}

fn encode(option: OptionCode, replies: &[OptionReply]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for reply in replies {
        reply.encode(option, &mut bytes).map_err(|error| invalid(error.to_string()))?;
    }
    Ok(bytes)
}
