//! Flag words. Bits that are unknown are kept, so that whoever decodes can decide about them.

use bitflags::bitflags;

bitflags! {
    /// What a server offers in its greeting (section "Handshake flags").
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct HandshakeFlags: u16 {
        /// It answers options that it does not know, instead of hanging up.
        const FIXED_NEWSTYLE = 1;
        /// It can leave out the 124 zero bytes behind the answer to `EXPORT_NAME`.
        const NO_ZEROES = 2;
        const _ = !0;
    }
}

bitflags! {
    /// What a client accepts of a server's greeting (section "Client flags").
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ClientFlags: u32 {
        /// It understands the answers of a fixed newstyle server.
        const FIXED_NEWSTYLE = 1;
        /// It does not want the 124 zero bytes.
        const NO_ZEROES = 2;
        const _ = !0;
    }
}

bitflags! {
    /// What an export is and can do (section "Transmission flags").
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ExportFlags: u16 {
        /// The other flags mean something.
        const HAS_FLAGS = 1;
        /// Writes are refused.
        const READ_ONLY = 1 << 1;
        /// `FLUSH` is understood.
        const SEND_FLUSH = 1 << 2;
        /// The flag `FUA` is understood.
        const SEND_FUA = 1 << 3;
        /// The storage has the traits of a rotating disk.
        const ROTATIONAL = 1 << 4;
        /// `TRIM` is understood.
        const SEND_TRIM = 1 << 5;
        /// `WRITE_ZEROES` is understood.
        const SEND_WRITE_ZEROES = 1 << 6;
        /// The flag `DF` is understood.
        const SEND_DF = 1 << 7;
        /// A flush on one connection covers what was written on all.
        const CAN_MULTI_CONN = 1 << 8;
        /// `RESIZE` is understood.
        const SEND_RESIZE = 1 << 9;
        /// `CACHE` is understood.
        const SEND_CACHE = 1 << 10;
        /// The flag `FAST_ZERO` is understood.
        const SEND_FAST_ZERO = 1 << 11;
        /// `BLOCK_STATUS` may name the contexts that are wanted.
        const BLOCK_STATUS_PAYLOAD = 1 << 12;
        const _ = !0;
    }
}

bitflags! {
    /// Flags of a request (section "Command flags").
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct CommandFlags: u16 {
        /// The write is to be durable before it is answered.
        const FUA = 1;
        /// Zeroes are to be allocated.
        const NO_HOLE = 1 << 1;
        /// The answer to a read is to be one chunk.
        const DF = 1 << 2;
        /// One extent for each context is enough.
        const REQ_ONE = 1 << 3;
        /// Zeroes that would be written slowly are to be refused.
        const FAST_ZERO = 1 << 4;
        /// The length is that of the payload (extended headers only).
        const PAYLOAD_LEN = 1 << 5;
        const _ = !0;
    }
}

bitflags! {
    /// Flags of a chunk of a structured reply (section "Structured reply flags").
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ChunkFlags: u16 {
        /// The last one of the reply.
        const DONE = 1;
        const _ = !0;
    }
}
