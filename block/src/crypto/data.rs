//! Encrypted data on a node: reads and writes with the cipher in between.
//!
//! Small requests are encrypted where they are. Longer ones are cut into pieces that go through the
//! threads of [`engine::compute`] while others of them are read or written, so that a single stream
//! uses several processors. Only so many pieces are in memory at once.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use super::SectorCipher;
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::WriteFlags;
use crate::engine;
use crate::error::Result;
use crate::graph::{Edge, rejoin};
use crate::parallel;

/// Requests up to this many bytes are encrypted by the thread that makes them, which takes less time
/// than to wake another one up.
const INLINE: usize = 32 << 10;
/// Length in bytes of the pieces of longer requests.
const PIECE: usize = 128 << 10;
/// Pieces of one request in memory.
const PARALLEL: usize = 4;

/// Sectors of a file, seen through a cipher.
#[derive(Clone, Copy)]
pub(crate) struct EncryptedData<'e> {
    /// Where the data is.
    pub(crate) file: &'e Edge,
    /// The cipher.
    pub(crate) cipher: &'e Arc<SectorCipher>,
}

impl EncryptedData<'_> {
    /// Fills `buf`, whole sectors, with the data at byte `offset` of the file, whose first sector has
    /// the number `sector`.
    pub(crate) async fn read(
        self,
        offset: u64,
        sector: u64,
        mut buf: IoBufMut,
    ) -> Result<IoBufMut> {
        if buf.len() <= INLINE {
            let mut buf = self.file.read(offset, buf).await?;
            self.cipher.decrypt(sector, &mut buf);
            return Ok(buf);
        }
        let mut pieces = Vec::with_capacity(buf.len().div_ceil(PIECE));
        let mut done = 0u64;
        while !buf.is_empty() {
            let piece = buf.split_to(buf.len().min(PIECE));
            let len = piece.len() as u64;
            pieces.push((done, piece));
            done += len;
        }
        let reads = pieces.into_iter().map(|(at, piece)| async move {
            let mut piece = self.file.read(offset + at, piece).await?;
            let cipher = Arc::clone(self.cipher);
            let sector = sector + at / SectorCipher::SECTOR as u64;
            let decrypted = engine::compute(move || {
                cipher.decrypt(sector, &mut piece);
                piece
            });
            Ok(decrypted.await)
        });
        let mut reads = stream::iter(reads).buffered(PARALLEL);
        while let Some(piece) = reads.next().await {
            let piece: Result<IoBufMut> = piece;
            let piece = piece?;
            buf = if buf.is_empty() { piece } else { rejoin(buf, piece) };
        }
        Ok(buf)
    }

    /// Writes `buf`, whole sectors, at byte `offset` of the file; the first sector has the number
    /// `sector`.
    pub(crate) async fn write(
        self,
        offset: u64,
        sector: u64,
        buf: IoBuf,
        flags: WriteFlags,
    ) -> Result<()> {
        if buf.len() <= INLINE {
            let mut encrypted = IoBufMut::copy_of(&buf);
            self.cipher.encrypt(sector, &mut encrypted);
            return self.file.write(offset, encrypted.freeze(), flags).await;
        }
        let writes = (0..buf.len()).step_by(PIECE).map(|start| {
            let piece = buf.slice(start..buf.len().min(start + PIECE));
            async move {
                let cipher = Arc::clone(self.cipher);
                let at = start as u64;
                let sector = sector + at / SectorCipher::SECTOR as u64;
                let encrypted = engine::compute(move || {
                    let mut encrypted = IoBufMut::copy_of(&piece);
                    cipher.encrypt(sector, &mut encrypted);
                    encrypted.freeze()
                })
                .await;
                self.file.write(offset + at, encrypted, flags).await
            }
        });
        parallel::all(PARALLEL, writes).await
    }
}
