//! `--list`: the exports of another server. The form of the text is the reference's, since programs
//! parse it.

use std::fmt::Write as _;

use cairn_block::engine::{EngineConfig, VsockAddress, sys};
use cairn_block::graph::Policy;
use cairn_img::cli::args::print;
use cairn_img::cli::objects;
use cairn_img::runtime;
use cairn_nbd_wire::{ExportFlags, OptionRequest};
use tokio::net::{TcpStream, UnixStream};

use super::plan::ListPlan;
use crate::client::{ListedExport, Listing, Negotiation};
use crate::error::{Error, Result};
use crate::listen::Address;
use crate::stream::BoxStream;

/// What flags are called, in the order in which they are shown.
const FLAGS: [(ExportFlags, &str); 12] = [
    (ExportFlags::READ_ONLY, "readonly"),
    (ExportFlags::SEND_FLUSH, "flush"),
    (ExportFlags::SEND_FUA, "fua"),
    (ExportFlags::ROTATIONAL, "rotational"),
    (ExportFlags::SEND_TRIM, "trim"),
    (ExportFlags::SEND_WRITE_ZEROES, "zeroes"),
    (ExportFlags::SEND_DF, "df"),
    (ExportFlags::CAN_MULTI_CONN, "multi"),
    (ExportFlags::SEND_RESIZE, "resize"),
    (ExportFlags::SEND_CACHE, "cache"),
    (ExportFlags::SEND_FAST_ZERO, "fast-zero"),
    (ExportFlags::BLOCK_STATUS_PAYLOAD, "block-status-payload"),
];

/// Asks the server and prints its answer.
pub(super) fn list(plan: &ListPlan) -> Result<()> {
    let listing = runtime::run(&EngineConfig::default(), async { Ok(ask(plan).await) })??;
    Ok(print(&text(&listing))?)
}

async fn ask(plan: &ListPlan) -> Result<Listing> {
    let graph = runtime::graph(Policy::default());
    objects::create(&graph, &plan.objects)?;
    let stream = connect(&plan.address).await?;
    let mut negotiation = Negotiation::begin(stream).await?;
    if let Some(id) = &plan.tls {
        let creds = graph.tls_credentials().find(id)?;
        negotiation.ask(&OptionRequest::StartTls).await?;
        let host = match &plan.address {
            Address::Tcp { host, .. } => Some(host.as_str()),
            Address::Unix(_) | Address::Vsock(_) => None,
        };
        let host = plan.hostname.as_deref().or(host);
        let stream = creds.connect(negotiation.into_stream(), host).await?;
        negotiation = Negotiation::resume(Box::new(stream));
    }
    negotiation.list().await
}

async fn connect(address: &Address) -> Result<BoxStream> {
    let failed = || Error::system(format!("connect to {address}"));
    Ok(match address {
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed())?;
            Box::new(stream)
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(failed())?),
        Address::Vsock(address) => Box::new(connect_vsock(*address).map_err(failed())?),
    })
}

fn connect_vsock(address: VsockAddress) -> std::io::Result<TcpStream> {
    let socket = sys::connect_vsock(address.cid, address.port)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    TcpStream::from_std(socket.into())
}

fn text(listing: &Listing) -> String {
    let mut text = format!("exports available: {}\n", listing.exports.len());
    for export in &listing.exports {
        describe(&mut text, export, listing.extended);
    }
    text
}

fn describe(text: &mut String, export: &ListedExport, extended: bool) {
    // Names and descriptions are the server's: they must not reach terminals as they are.
    let harmless = |text: &str| -> String {
        text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    };
    let _ = writeln!(text, " export: '{}'", harmless(&export.name));
    if !export.description.is_empty() {
        let _ = writeln!(text, "  description: {}", harmless(&export.description));
    }
    if let Some((size, flags)) =
        export.properties.filter(|(_, f)| f.contains(ExportFlags::HAS_FLAGS))
    {
        let _ = writeln!(text, "  size:  {size}");
        let _ = write!(text, "  flags: {:#x} (", flags.bits());
        for (_, name) in FLAGS.iter().filter(|(flag, _)| flags.contains(*flag)) {
            let _ = write!(text, " {name}");
        }
        text.push_str(" )\n");
    }
    if let Some(sizes) = export.block_sizes {
        let _ = writeln!(text, "  min block: {}", sizes.min);
        let _ = writeln!(text, "  opt block: {}", sizes.preferred);
        let _ = writeln!(text, "  max block: {}", sizes.max);
    }
    let bits = if extended { 64 } else { 32 };
    let _ = writeln!(text, "  transaction size: {bits}-bit");
    if !export.contexts.is_empty() {
        let _ = writeln!(text, "  available meta contexts: {}", export.contexts.len());
        for context in &export.contexts {
            let _ = writeln!(text, "   {}", harmless(context));
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_nbd_wire::BlockSizes;

    use super::*;

    #[test]
    fn the_text_has_the_reference_s_form() {
        let flags = ExportFlags::HAS_FLAGS | ExportFlags::READ_ONLY | ExportFlags::SEND_FLUSH;
        let export = ListedExport {
            name: "a\u{1b}".to_owned(),
            description: "d".to_owned(),
            properties: Some((1024, flags)),
            block_sizes: Some(BlockSizes { min: 1, preferred: 4096, max: 65_536 }),
            contexts: vec!["base:allocation".to_owned()],
        };
        let listing = Listing { extended: true, exports: vec![export, ListedExport::default()] };
        assert_eq!(
            text(&listing),
            "exports available: 2\n export: 'a?'\n  description: d\n  size:  1024\n  \
             flags: 0x7 ( readonly flush )\n  min block: 1\n  opt block: 4096\n  \
             max block: 65536\n  transaction size: 64-bit\n  available meta contexts: 1\n   \
             base:allocation\n export: ''\n  transaction size: 64-bit\n"
        );
    }
}
