//! Options that every node has, whatever its driver.

use super::error::OptionError;
use super::types::NodeName;

crate::option_words! {
    /// What a discard request does.
    pub enum Discard {
        /// It is dropped.
        Ignore = "ignore" | "off",
        /// It gives storage back.
        Unmap = "unmap" | "on",
    }
}

crate::option_words! {
    /// Whether writes of zeroes are recognised.
    #[derive(Default)]
    pub enum DetectZeroes {
        /// No.
        #[default]
        Off = "off",
        /// They become zero writes.
        On = "on",
        /// They become zero writes that may give storage back.
        Unmap = "unmap",
    }
}

crate::options! {
    /// The options common to all nodes. Those that are `None` follow the parent.
    pub struct NodeOptions {
        /// Driver of the node.
        "driver" => driver: Option<String>,
        /// Name of the node.
        "node-name" => node_name: Option<NodeName>,
        /// Refuse writes.
        "read-only" => read_only: Option<bool>,
        /// Open read-only if writing is not possible or not needed yet.
        "auto-read-only" => auto_read_only: Option<bool>,
        /// Let other users do what they like with the image (read-only nodes only).
        "force-share" => force_share: Option<bool>,
        /// Bypass the host's page cache.
        "cache.direct" => cache_direct: Option<bool>,
        /// Ignore flushes: data may be lost when the host fails.
        "cache.no-flush" => cache_no_flush: Option<bool>,
        /// What discard requests do.
        "discard" => discard: Option<Discard>,
        /// Recognise writes of zeroes.
        "detect-zeroes" => detect_zeroes: Option<DetectZeroes>,
    }
}

impl NodeOptions {
    /// Checks what the options say together, `read_only` and `discard` being what holds for the node
    /// after inheritance.
    pub fn check(&self, read_only: bool, discard: Discard) -> Result<(), OptionError> {
        if self.detect_zeroes == Some(DetectZeroes::Unmap) && discard != Discard::Unmap {
            return Err(OptionError::Conflict {
                name: "detect-zeroes".to_owned(),
                problem: "can only be 'unmap' together with discard=unmap".to_owned(),
            });
        }
        if self.force_share == Some(true) && !read_only {
            return Err(OptionError::Conflict {
                name: "force-share".to_owned(),
                problem: "can only be used with read-only images".to_owned(),
            });
        }
        Ok(())
    }
}
