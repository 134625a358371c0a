//! A client of an NBD server as small as it can be: simple replies, one request at a time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use cairn_nbd_wire::{
    ClientFlags, Command, CommandFlags, GREETING_LEN, InfoRequest, OptionReplyHeader,
    OptionRequest, ReplyCode, Request,
};

/// Bytes of a simple reply's header.
const SIMPLE_REPLY: usize = 16;
/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// A connection in transmission.
pub(super) struct Client {
    stream: UnixStream,
    cookie: u64,
}

fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

impl Client {
    /// Connects and chooses the default export. `patience` bounds every wait.
    pub(super) fn connect(path: &Path, patience: Duration) -> io::Result<Client> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut greeting = [0; GREETING_LEN];
        stream.read_exact(&mut greeting)?;
        let flags = ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES;
        stream.write_all(&flags.bits().to_be_bytes())?;
        let go = OptionRequest::Go(InfoRequest::default()).encode().map_err(failed)?;
        stream.write_all(&go)?;
        loop {
            let mut header = [0; OptionReplyHeader::LEN];
            stream.read_exact(&mut header)?;
            let header = OptionReplyHeader::decode(&header).map_err(failed)?;
            io::copy(&mut (&stream).take(header.len.into()), &mut io::sink())?;
            match header.code {
                ReplyCode::ACK => return Ok(Client { stream, cookie: 0 }),
                ReplyCode::INFO => {}
                other => return Err(failed(format!("the server answers {other}"))),
            }
        }
    }

    /// Asks for `len` bytes at `offset`.
    pub(super) fn ask(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.cookie += 1;
        let request = Request {
            flags: CommandFlags::empty(),
            command: Command::READ,
            cookie: self.cookie,
            offset,
            len,
        };
        self.stream.write_all(&request.encode_compact().map_err(failed)?)
    }

    /// Reads the page at `offset`.
    pub(super) fn read_page(&mut self, offset: u64) -> io::Result<[u8; PAGE]> {
        self.ask(offset, PAGE as u64)?;
        let mut header = [0; SIMPLE_REPLY];
        self.stream.read_exact(&mut header)?;
        if header[4..8] != [0; 4] {
            return Err(failed("the server could not read"));
        }
        let mut page = [0; PAGE];
        self.stream.read_exact(&mut page)?;
        Ok(page)
    }

    /// Takes at most `bytes` of what the server sends.
    pub(super) fn sip(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.read(bytes)
    }
}
