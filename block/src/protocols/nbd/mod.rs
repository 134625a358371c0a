//! `nbd`: disks served over the Network Block Device protocol.
//!
//! The protocol document (NetworkBlockDevice/nbd, `doc/proto.md`) is followed on the client's side:
//! every style of handshake, simple and structured replies, extended headers, TLS. [`client`] says
//! how connections are used, [`connection`] how requests travel on one.

mod client;
mod connection;
mod create;
mod extents;
mod handshake;
mod name;
mod options;
mod replies;
mod request;
mod stream;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use cairn_nbd_wire::{
    BASE_ALLOCATION, Command, CommandFlags, ExportFlags, Extent as WireExtent, HOLE, MAX_PAYLOAD,
    ZERO,
};

use self::client::{Client, Config};
use self::extents::{Extents, Lookup};
use self::handshake::Export;
use self::options::{Address, Options};
use self::request::{Body, Done};
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{
    Driver, DriverFuture, DriverInfo, DriverKind, Extent, Limits, Perm, Resize, Status, WriteFlags,
};
use crate::error::{Error, Op, Result};
use crate::graph::OpenContext;
use crate::options::OptionError;

/// The driver's entry in the registry.
pub(crate) static NBD: DriverInfo = DriverInfo {
    name: "nbd",
    kind: DriverKind::Protocol,
    open: |context| Box::pin(open(context)),
    probe: None,
    prefixes: name::PREFIXES,
    parse_filename: Some(name::parse),
    probe_device: None,
    options: Options::TABLE,
    create_options: create::CreateOptions::TABLE,
    create: Some(|graph, filename, options| Box::pin(create::create(graph, filename, options))),
    measure: None,
    supports_backing: false,
};

/// Longest effect of a request without data, in bytes. Servers take more, but then nothing else gets
/// its turn for long.
const MAX_EFFECT: u64 = 1 << 30;
/// Longest range whose status is asked at once: what a compact request can say, and a multiple of
/// every block size.
const MAX_STATUS: u64 = (1 << 32) - (64 << 10);
/// Unit of servers that announce no block sizes, and so may be old.
const OLD_ALIGNMENT: u32 = 512;

/// The context that tells of layers, whose values are numbers.
const ALLOCATION_DEPTH: &str = "qemu:allocation-depth";

async fn open(context: &mut OpenContext<'_>) -> Result<Box<dyn Driver>> {
    let options = Options::take(&mut context.options)?;
    let address = options.address()?;
    let exact = name::format(&address, options.export.as_deref(), options.require_tls);
    let label = exact.clone().unwrap_or_else(|| format!("{address}"));
    context.set_exact_filename(exact);
    let tls = match &options.tls_creds {
        Some(id) => Some(context.tls_credentials(id)?),
        None if options.require_tls => Some(context.only_tls_credentials()?),
        None => None,
    };
    let hostname = match (&options.tls_hostname, &address) {
        (Some(name), _) => Some(name.clone()),
        (None, Address::Inet(inet)) => Some(inet.host.clone()),
        (None, _) => None,
    };
    if options.tls_hostname.is_some() && tls.is_none() {
        return Err(Error::Option(OptionError::Conflict {
            name: "tls-hostname".to_owned(),
            problem: "only goes with tls-creds".to_owned(),
        }));
    }
    let client = Client::open(Config {
        label,
        address,
        export: options.export.clone().unwrap_or_default(),
        context: options.dirty_bitmap.clone().unwrap_or_else(|| BASE_ALLOCATION.to_owned()),
        tls,
        hostname,
        reconnect_delay: Duration::from_secs(options.reconnect_delay.into()),
        open_timeout: Duration::from_secs(options.open_timeout.into()),
        connections: usize::try_from(options.connections).unwrap_or(usize::MAX).max(1),
    })
    .await?;
    if client.export().flags.contains(ExportFlags::READ_ONLY)
        && let Err(error) = context.require_read_only("the server's export is read-only")
    {
        client.close().await;
        return Err(error);
    }
    let shows_depth = options.dirty_bitmap.as_deref() == Some(ALLOCATION_DEPTH);
    Ok(Box::new(Nbd { client, shows_depth, extents: Extents::default() }))
}

struct Nbd {
    client: Arc<Client>,
    /// Values of the metadata context are numbers of layers.
    shows_depth: bool,
    /// Status that was told ahead.
    extents: Extents,
}

impl Nbd {
    fn export(&self) -> &Export {
        self.client.export()
    }

    fn has(&self, flags: ExportFlags) -> bool {
        self.export().flags.contains(flags)
    }

    fn alignment(&self) -> u32 {
        let export = self.export();
        match export.sizes {
            Some(sizes) => sizes.min,
            // A server that tells of allocation is not old, and a size with half a sector at its end
            // shows that it can do less than one.
            None if export.context.is_some()
                || !export.size.is_multiple_of(OLD_ALIGNMENT.into()) =>
            {
                1
            }
            None => OLD_ALIGNMENT,
        }
    }

    fn check_end(&self, op: Op, offset: u64, len: u64) -> Result<()> {
        let size = self.export().size;
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Error::OutOfRange { op, node: self.client.label().into(), offset, len, size }),
        }
    }

    /// Makes a request that changes data.
    async fn change(
        &self,
        op: Op,
        command: Command,
        flags: CommandFlags,
        range: (u64, u64),
        body: Body,
    ) -> Result<()> {
        self.check_end(op, range.0, range.1)?;
        let _writing = self.extents.writing();
        self.client.request(op, command, flags, range, body).await.map(drop)
    }

    /// The server promised one thing and sent another; the connection's checks exclude it.
    fn mixed_up(&self) -> Error {
        let problem = "answered another question".to_owned();
        Error::Server { node: self.client.label().to_owned(), problem, errno: libc::EIO }
    }

    /// What an extent at `offset`, of which `len` bytes were asked for, says.
    fn status(&self, offset: u64, len: u64, first: WireExtent) -> Extent {
        let unit = u64::from(self.alignment());
        let size = self.export().size;
        let mut flags = if self.shows_depth { first.flags.min(2) } else { first.flags };
        let mut run = first.len.min(len);
        if offset + run != size && !run.is_multiple_of(unit) {
            // Status that ends inside of a block says nothing of that block.
            run = run / unit * unit;
            if run == 0 {
                run = unit.min(len);
                flags = 0;
            }
        }
        let mut status = Status::OFFSET_VALID;
        status.set(Status::DATA, flags & HOLE == 0);
        status.set(Status::ZERO, flags & ZERO != 0);
        Extent { len: run, status, map: None }
    }
}

/// What a server says, without what would move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Flags of a request that writes.
fn write_flags(flags: WriteFlags) -> CommandFlags {
    let mut command = CommandFlags::empty();
    command.set(CommandFlags::FUA, flags.contains(WriteFlags::FUA));
    command
}

impl Driver for Nbd {
    fn info(&self) -> &'static DriverInfo {
        &NBD
    }

    fn size(&self) -> u64 {
        self.export().size
    }

    fn limits(&self) -> Limits {
        let alignment = self.alignment();
        let sizes = self.export().sizes;
        let longest = sizes.map_or(MAX_PAYLOAD, |sizes| sizes.max).min(MAX_PAYLOAD);
        let unit = u64::from(alignment);
        Limits {
            request_alignment: alignment,
            max_transfer: (u64::from(longest) / unit * unit).max(unit),
            opt_transfer: sizes
                .filter(|sizes| sizes.preferred > 4096)
                .map_or(0, |sizes| sizes.preferred.into()),
            max_write_zeroes: MAX_EFFECT,
            max_discard: MAX_EFFECT,
            ..Limits::default()
        }
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn write_flags(&self) -> WriteFlags {
        let mut flags = WriteFlags::MAY_UNMAP | WriteFlags::NO_FALLBACK;
        flags.set(WriteFlags::FUA, self.has(ExportFlags::SEND_FUA));
        flags
    }

    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(async move {
            let len = buf.len() as u64;
            self.check_end(Op::Read, offset, len)?;
            let body = Body::Read(buf);
            let flags = CommandFlags::empty();
            match self.client.request(Op::Read, Command::READ, flags, (offset, len), body).await? {
                Done::Data(buf) => Ok(buf),
                Done::Nothing | Done::Extents(_) => Err(self.mixed_up()),
            }
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        let range = (offset, buf.len() as u64);
        let flags = write_flags(flags);
        Box::pin(self.change(Op::Write, Command::WRITE, flags, range, Body::Write(buf)))
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let only_fast = flags.contains(WriteFlags::NO_FALLBACK);
            if !self.has(ExportFlags::SEND_WRITE_ZEROES)
                || (only_fast && !self.has(ExportFlags::SEND_FAST_ZERO))
            {
                let what = "the server has no request to write zeroes, or none that is known fast";
                return Err(Error::unsupported(self.client.label(), what));
            }
            let mut command = write_flags(flags);
            command.set(CommandFlags::NO_HOLE, !flags.contains(WriteFlags::MAY_UNMAP));
            command.set(CommandFlags::FAST_ZERO, only_fast);
            let range = (offset, len);
            self.change(Op::WriteZeroes, Command::WRITE_ZEROES, command, range, Body::None).await
        })
    }

    fn discard(&self, offset: u64, len: u64) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            if !self.has(ExportFlags::SEND_TRIM) {
                // Discarding is advice, which this server does not take.
                return Ok(());
            }
            let flags = CommandFlags::empty();
            self.change(Op::Discard, Command::TRIM, flags, (offset, len), Body::None).await
        })
    }

    fn flush(&self) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            if !self.has(ExportFlags::SEND_FLUSH) {
                // By the protocol, such a server has nothing to flush.
                return Ok(());
            }
            let (op, command, flags) = (Op::Flush, Command::FLUSH, CommandFlags::empty());
            self.client.request(op, command, flags, (0, 0), Body::None).await.map(drop)
        })
    }

    fn block_status(&self, offset: u64, len: u64, _precise: bool) -> DriverFuture<'_, Extent> {
        Box::pin(async move {
            if self.export().context.is_none() {
                let status = Status::DATA | Status::OFFSET_VALID;
                return Ok(Extent { len, status, map: None });
            }
            let rest = self.export().size.saturating_sub(offset);
            let flags = match self.extents.lookup(offset) {
                Lookup::Known(extent) => return Ok(self.status(offset, len.min(rest), extent)),
                Lookup::One => CommandFlags::REQ_ONE,
                Lookup::Many => CommandFlags::empty(),
            };
            let asked = self.extents.now();
            let len = len.min(rest).clamp(1, MAX_STATUS);
            let (op, command) = (Op::BlockStatus, Command::BLOCK_STATUS);
            let done = self.client.request(op, command, flags, (offset, len), Body::Status).await?;
            let Done::Extents(extents) = done else { return Err(self.mixed_up()) };
            let Some(first) = extents.first() else { return Err(self.mixed_up()) };
            let status = self.status(offset, len, *first);
            self.extents.keep(offset, &extents, asked);
            Ok(status)
        })
    }

    fn resize(&self, size: u64, how: Resize) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let present = self.export().size;
            if size == present || (size < present && !how.exact) {
                return Ok(());
            }
            let what = format!("the size of a server's export is fixed: {present} bytes");
            Err(Error::unsupported(self.client.label(), what))
        })
    }

    fn set_permissions(&self, perm: Perm, _shared: Perm) -> Result<()> {
        if perm.intersects(Perm::WRITE | Perm::WRITE_UNCHANGED) && self.has(ExportFlags::READ_ONLY)
        {
            return Err(Error::ReadOnly { node: self.client.label().to_owned() });
        }
        Ok(())
    }

    fn reopen(&self, read_only: bool) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            if !read_only && self.has(ExportFlags::READ_ONLY) {
                return Err(Error::ReadOnly { node: self.client.label().to_owned() });
            }
            Ok(())
        })
    }

    fn close(&self) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            self.client.close().await;
            Ok(())
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
