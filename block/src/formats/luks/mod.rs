//! `luks`: a LUKS volume of version 1 whose payload is the disk. The header may be in a file of its
//! own (child `header`); then the file has nothing but the payload.

pub mod create;
mod options;

use std::any::Any;
use std::sync::Arc;

use options::{CreateOptions, LuksOptions};

use crate::buf::{IoBuf, IoBufMut};
pub(crate) use crate::crypto::luks::AmendOptions;
use crate::crypto::luks::{Area, Header, Volume, is_luks};
use crate::crypto::{EncryptedData, SectorCipher};
use crate::driver::{
    Amendment, Driver, DriverFuture, DriverInfo, DriverKind, FormatInfo, Limits, Resize, Role,
    WriteFlags,
};
use crate::error::{Error, Op, Result};
use crate::graph::{Edge, Graph, OpenContext};
use crate::options::{OptionDesc, OptionError};

/// The driver's entry in the registry.
pub(crate) static LUKS: DriverInfo = DriverInfo {
    name: "luks",
    kind: DriverKind::Format,
    open: |context| Box::pin(open(context)),
    probe: Some(|head, _| if is_luks(head) { 100 } else { 0 }),
    prefixes: &[],
    parse_filename: None,
    probe_device: None,
    options: LuksOptions::TABLE,
    create_options: CreateOptions::TABLE,
    create: Some(create::create),
    measure: Some(|options, source| Box::pin(async move { create::measure(options, source) })),
    supports_backing: false,
};

/// Length of a sector in bytes.
const SECTOR: u64 = SectorCipher::SECTOR as u64;

struct Luks {
    file: Arc<Edge>,
    /// Where the disk begins in the file, in bytes.
    payload_offset: u64,
    detached: bool,
    state: State,
}

enum State {
    /// The passphrase was given.
    Unlocked(Volume),
    /// Only metadata is looked at.
    Locked(Header),
}

async fn open(context: &mut OpenContext<'_>) -> Result<Box<dyn Driver>> {
    let options = LuksOptions::take(&mut context.options)?;
    let header_file = context.optional_child("header", Role::METADATA, None).await?;
    let detached = header_file.is_some();
    let role = if detached { Role::DATA | Role::PRIMARY } else { Role::IMAGE };
    let file = context.child("file", role).await?;
    let header_file = header_file.unwrap_or_else(|| Arc::clone(&file)).node();
    let area = Area { len: header_file.size(), node: header_file, offset: 0 };
    let header = area.header(detached).await?;
    let payload_offset = header.payload_offset;
    if payload_offset > file.size() {
        let detail = format!(
            "its payload begins at byte {payload_offset}, beyond the end of the file at {}",
            file.size()
        );
        return Err(Error::corrupt(file.node().label(), detail));
    }
    let state = match &options.key_secret {
        _ if context.flags().no_io => State::Locked(header),
        Some(id) => {
            let passphrase = context.secret(id)?;
            let limit = context.max_luks_iterations(options.max_iterations);
            State::Unlocked(Volume::open(area, header, detached, passphrase, limit).await?)
        }
        None => {
            let missing = OptionError::Missing { name: "key-secret".to_owned() };
            return Err(
                Error::from(missing).context(format!("'{}' is encrypted", file.node().label()))
            );
        }
    };
    Ok(Box::new(Luks { file, payload_offset, detached, state }))
}

impl Luks {
    fn volume(&self) -> Result<&Volume> {
        match &self.state {
            State::Unlocked(volume) => Ok(volume),
            State::Locked(_) => {
                Err(Error::unsupported(LUKS.name, "the image was opened without its passphrase"))
            }
        }
    }

    /// The place in the file of a place on the disk.
    fn place(&self, op: Op, offset: u64, len: u64) -> Result<u64> {
        let place = offset.checked_add(self.payload_offset);
        place.filter(|place| place.checked_add(len).is_some()).ok_or_else(|| Error::OutOfRange {
            op,
            node: self.file.node().label(),
            offset,
            len,
            size: self.size(),
        })
    }

    fn data(&self) -> Result<EncryptedData<'_>> {
        Ok(EncryptedData { file: &self.file, cipher: &self.volume()?.cipher })
    }
}

impl Driver for Luks {
    fn info(&self) -> &'static DriverInfo {
        &LUKS
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    /// Whole sectors: part of one cannot be decrypted.
    fn size(&self) -> u64 {
        self.file.size().saturating_sub(self.payload_offset) / SECTOR * SECTOR
    }

    fn limits(&self) -> Limits {
        Limits { request_alignment: SectorCipher::SECTOR_U32, ..Limits::default() }
    }

    fn write_flags(&self) -> WriteFlags {
        WriteFlags::FUA
    }

    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(async move {
            let place = self.place(Op::Read, offset, buf.len() as u64)?;
            self.data()?.read(place, offset / SECTOR, buf).await
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let place = self.place(Op::Write, offset, buf.len() as u64)?;
            self.data()?.write(place, offset / SECTOR, buf, flags).await
        })
    }

    fn resize(&self, size: u64, how: Resize) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            if how.zero_new && size > self.size() {
                return Err(Error::unsupported(
                    LUKS.name,
                    "what is added cannot be made to read as zeroes",
                ));
            }
            let sectors = size.checked_next_multiple_of(SECTOR).unwrap_or(size);
            let file_size = self.place(Op::Resize, sectors, 0)?;
            self.file.resize(file_size, how).await
        })
    }

    fn format_info(&self) -> DriverFuture<'_, FormatInfo> {
        Box::pin(async {
            let specific = match &self.state {
                State::Unlocked(volume) => volume.describe(),
                State::Locked(header) => header.describe(self.detached),
            };
            Ok(FormatInfo { encrypted: true, specific: Some(specific), ..FormatInfo::default() })
        })
    }

    fn amend_options(&self) -> &'static [OptionDesc] {
        AmendOptions::TABLE
    }

    fn amend<'a>(&'a self, graph: &'a Arc<Graph>, change: Amendment<'a>) -> DriverFuture<'a, ()> {
        Box::pin(async move {
            let options = AmendOptions::parse(change.options, "changing a 'luks' image")?;
            self.volume()?.amend(graph.secrets(), &options, change.force).await
        })
    }
}
