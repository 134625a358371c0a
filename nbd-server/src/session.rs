//! What a client and the server have agreed on when transmission begins.

use std::sync::Arc;

use cairn_nbd_wire::HeaderStyle;

use crate::export::Export;
use crate::notices::Notices;

/// The outcome of a handshake.
pub(crate) struct Session {
    /// The export that the client chose.
    pub(crate) export: Arc<Export>,
    /// Form of requests and replies.
    pub(crate) style: HeaderStyle,
    /// Numbers of the metadata contexts that the client selected, in the order of the export's list.
    pub(crate) contexts: Vec<u32>,
    /// Who wants to hear of failures.
    pub(crate) notices: Notices,
}
