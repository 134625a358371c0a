//! The numbers of options, replies, information items, commands and chunks.
//!
//! Each is a number that a peer may have chosen freely: what is unknown has a value too.

use std::fmt;

/// Defines a number with names for its known values.
macro_rules! codes {
    (
        $(#[$doc:meta])*
        $type:ident($int:ty) {
            $($(#[$item:meta])* $name:ident = $value:expr, $text:literal;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $type(pub $int);

        impl $type {
            $($(#[$item])* pub const $name: $type = $type($value);)*
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $($type::$name => f.write_str($text),)*
                    $type(number) => write!(f, "number {number}"),
                }
            }
        }
    };
}

codes! {
    /// Number of an option (section "Option types").
    OptionCode(u32) {
        /// Chooses an export and begins transmission; cannot be refused politely.
        EXPORT_NAME = 1, "EXPORT_NAME";
        /// Ends the session.
        ABORT = 2, "ABORT";
        /// Lists the exports.
        LIST = 3, "LIST";
        /// Begins TLS.
        STARTTLS = 5, "STARTTLS";
        /// Describes an export.
        INFO = 6, "INFO";
        /// Describes an export and begins transmission.
        GO = 7, "GO";
        /// Asks for structured replies.
        STRUCTURED_REPLY = 8, "STRUCTURED_REPLY";
        /// Lists metadata contexts.
        LIST_META_CONTEXT = 9, "LIST_META_CONTEXT";
        /// Selects metadata contexts.
        SET_META_CONTEXT = 10, "SET_META_CONTEXT";
        /// Asks for extended headers.
        EXTENDED_HEADERS = 11, "EXTENDED_HEADERS";
    }
}

/// Set in the numbers of replies that refuse an option.
const REFUSED: u32 = 1 << 31;

codes! {
    /// Number of a reply to an option (section "Option reply types").
    ReplyCode(u32) {
        /// Done.
        ACK = 1, "ACK";
        /// One export.
        SERVER = 2, "SERVER";
        /// One item of information on an export.
        INFO = 3, "INFO";
        /// One metadata context.
        META_CONTEXT = 4, "META_CONTEXT";
        /// The option is unknown.
        ERR_UNSUP = REFUSED + 1, "unsupported option";
        /// The server does not want to.
        ERR_POLICY = REFUSED + 2, "forbidden by the server's policy";
        /// The option's payload, or the option at this time, is invalid.
        ERR_INVALID = REFUSED + 3, "invalid option";
        /// The server's platform cannot.
        ERR_PLATFORM = REFUSED + 4, "not supported by the server's platform";
        /// TLS has to come first.
        ERR_TLS_REQD = REFUSED + 5, "TLS required";
        /// No such export.
        ERR_UNKNOWN = REFUSED + 6, "unknown export";
        /// The server is about to end.
        ERR_SHUTDOWN = REFUSED + 7, "server shutting down";
        /// The client has to ask for block sizes.
        ERR_BLOCK_SIZE_REQD = REFUSED + 8, "block size information required";
        /// The option's payload is too long.
        ERR_TOO_BIG = REFUSED + 9, "payload too big";
        /// Extended headers have to come first.
        ERR_EXT_HEADER_REQD = REFUSED + 10, "extended headers required";
    }
}

impl ReplyCode {
    /// Whether the reply refuses the option.
    pub fn is_error(self) -> bool {
        self.0 & REFUSED != 0
    }
}

codes! {
    /// Number of an item of information (section "`NBD_INFO` replies").
    InfoType(u16) {
        /// Size and flags.
        EXPORT = 0, "EXPORT";
        /// The name by which the server knows the export.
        NAME = 1, "NAME";
        /// A description for people.
        DESCRIPTION = 2, "DESCRIPTION";
        /// Block sizes.
        BLOCK_SIZE = 3, "BLOCK_SIZE";
    }
}

codes! {
    /// Number of a request (section "Request types").
    Command(u16) {
        /// Reads.
        READ = 0, "read";
        /// Writes.
        WRITE = 1, "write";
        /// Ends the session; there is no reply.
        DISC = 2, "disconnect";
        /// Makes completed writes durable.
        FLUSH = 3, "flush";
        /// Gives storage back.
        TRIM = 4, "trim";
        /// Says what will be read soon.
        CACHE = 5, "cache";
        /// Makes a range read as zeroes.
        WRITE_ZEROES = 6, "write zeroes";
        /// Asks for the status of a range.
        BLOCK_STATUS = 7, "block status";
        /// Changes the size.
        RESIZE = 8, "resize";
    }
}

/// Set in the numbers of chunks that report an error.
const FAILED: u16 = 1 << 15;

codes! {
    /// Number of a chunk of a structured reply (section "Structured reply types").
    ChunkType(u16) {
        /// Nothing.
        NONE = 0, "none";
        /// Data behind its offset.
        OFFSET_DATA = 1, "data";
        /// Zeroes.
        OFFSET_HOLE = 2, "hole";
        /// Status with lengths of 32 bits.
        BLOCK_STATUS = 5, "block status";
        /// Status with lengths of 64 bits.
        BLOCK_STATUS_EXT = 6, "extended block status";
        /// An error.
        ERROR = FAILED + 1, "error";
        /// An error at an offset.
        ERROR_OFFSET = FAILED + 2, "error at an offset";
    }
}

impl ChunkType {
    /// Whether the chunk reports an error, also if its number is unknown.
    pub fn is_error(self) -> bool {
        self.0 & FAILED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_numbers_have_names_too() {
        assert_eq!(OptionCode::GO.to_string(), "GO");
        assert_eq!(OptionCode(4).to_string(), "number 4");
        assert_eq!(ReplyCode::ERR_TLS_REQD.0, 0x8000_0005);
        assert!(ReplyCode(0x8000_1234).is_error() && !ReplyCode::META_CONTEXT.is_error());
        assert!(ChunkType::ERROR_OFFSET.is_error() && !ChunkType::BLOCK_STATUS_EXT.is_error());
        assert_eq!(ChunkType::ERROR_OFFSET.0, 32_770);
    }
}
