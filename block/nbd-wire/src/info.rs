//! Items of information on an export (section "`NBD_INFO` replies").

use crate::code::InfoType;
use crate::error::{Result, WireError};
use crate::flags::ExportFlags;
use crate::read::{Reader, put_text};

/// Block sizes of an export, in bytes (section "Block size constraints").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths are multiples of this power of two.
    pub min: u32,
    /// Requests of this length work best: a power of two.
    pub preferred: u32,
    /// Longest read or write; `u32::MAX` where there is no limit.
    pub max: u32,
}

impl BlockSizes {
    /// What holds for a client that was told nothing.
    pub const UNKNOWN: BlockSizes = BlockSizes { min: 1, preferred: 4096, max: crate::MAX_PAYLOAD };

    /// Checks what a server said against the protocol's rules.
    pub fn validated(self) -> Result<BlockSizes> {
        let wrong = |problem: String| Err(WireError::invalid("the server's block sizes", problem));
        if !self.min.is_power_of_two() || self.min > 64 << 10 {
            return wrong(format!("have a minimum of {}", self.min));
        }
        if !self.preferred.is_power_of_two() || self.preferred < self.min {
            return wrong(format!(
                "have a preferred size of {} with a minimum of {}",
                self.preferred, self.min
            ));
        }
        if self.max < self.min || self.max != u32::MAX && !self.max.is_multiple_of(self.min) {
            return wrong(format!("have a maximum of {} with a minimum of {}", self.max, self.min));
        }
        Ok(self)
    }
}

/// One item of information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InfoItem {
    /// Block sizes.
    BlockSize(BlockSizes),
    /// A description for people.
    Description(String),
    /// Size in bytes, and flags.
    Export {
        /// Size in bytes.
        size: u64,
        /// What the export is and can do.
        flags: ExportFlags,
    },
    /// The name by which the server knows the export.
    Name(String),
    /// An item that this crate does not know, to be ignored.
    Unknown(InfoType),
}

impl InfoItem {
    /// The item's number.
    pub fn kind(&self) -> InfoType {
        match self {
            InfoItem::BlockSize(_) => InfoType::BLOCK_SIZE,
            InfoItem::Description(_) => InfoType::DESCRIPTION,
            InfoItem::Export { .. } => InfoType::EXPORT,
            InfoItem::Name(_) => InfoType::NAME,
            InfoItem::Unknown(kind) => *kind,
        }
    }

    /// Appends the payload of an `INFO` reply.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&self.kind().0.to_be_bytes());
        match self {
            InfoItem::BlockSize(sizes) => {
                for size in [sizes.min, sizes.preferred, sizes.max] {
                    out.extend_from_slice(&size.to_be_bytes());
                }
            }
            InfoItem::Description(text) => put_text(out, "the description", text)?,
            InfoItem::Export { size, flags } => {
                out.extend_from_slice(&size.to_be_bytes());
                out.extend_from_slice(&flags.bits().to_be_bytes());
            }
            InfoItem::Name(text) => put_text(out, "the export name", text)?,
            InfoItem::Unknown(_) => {}
        }
        Ok(())
    }

    /// Decodes the payload of an `INFO` reply. Block sizes are not [validated](BlockSizes::validated).
    pub(crate) fn decode(payload: &[u8]) -> Result<InfoItem> {
        let mut reader = Reader::new("an item of information", payload);
        let item = match InfoType(reader.u16()?) {
            InfoType::EXPORT => InfoItem::Export {
                size: reader.u64()?,
                flags: ExportFlags::from_bits_retain(reader.u16()?),
            },
            InfoType::NAME => InfoItem::Name(reader.rest_text("the export name")?),
            InfoType::DESCRIPTION => InfoItem::Description(reader.rest_text("the description")?),
            InfoType::BLOCK_SIZE => InfoItem::BlockSize(BlockSizes {
                min: reader.u32()?,
                preferred: reader.u32()?,
                max: reader.u32()?,
            }),
            other => return Ok(InfoItem::Unknown(other)),
        };
        reader.end()?;
        Ok(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_block_sizes_are_refused() {
        let sizes = |min, preferred, max| BlockSizes { min, preferred, max }.validated();
        assert!(sizes(1, 4096, u32::MAX).is_ok());
        assert!(sizes(512, 65_536, 33_554_432).is_ok());
        assert!(sizes(0, 4096, 4096).is_err());
        assert!(sizes(3, 4096, 4096).is_err());
        assert!(sizes(131_072, 131_072, 131_072).is_err());
        assert!(sizes(4096, 512, 4096).is_err());
        assert!(sizes(512, 4096, 1000).is_err());
        assert!(sizes(512, 4096, 0).is_err());
        assert!(BlockSizes::UNKNOWN.validated().is_ok());
    }
}
