//! `info` and `length`: what the image is.

use cairn_block::driver::DriverKind;
use cairn_block::graph::skip_filters;
use futures_util::future::LocalBoxFuture;

use crate::io::command::{Call, Fault};
use crate::io::report::whole_amount;
use crate::io::session::Session;
use crate::output::info::specific_lines;

pub(in crate::io) fn info<'a>(
    session: &'a mut Session,
    _: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let node = &session.image()?.node;
        let driver = node.driver().info();
        let mut text = format!("format name: {}\n", driver.name);
        if driver.kind == DriverKind::Protocol {
            // The reference has two names for a protocol, which are the same.
            text = text.repeat(2);
        }
        session.out.print(&text);
        let layer = skip_filters(std::sync::Arc::clone(node));
        let facts = layer.driver().format_info().await?;
        if driver.kind == DriverKind::Protocol && facts.specific.is_none() {
            // There is no storage that could be described.
            return Ok(());
        }
        let mut text = format!(
            "cluster size: {}\nvm state offset: {}\n",
            whole_amount(facts.cluster_size.unwrap_or(0)),
            whole_amount(facts.vm_state_offset.unwrap_or(0)),
        );
        // What a filter passes through is described, but is not its own.
        let own = facts.specific.filter(|_| driver.kind != DriverKind::Filter);
        if let Some(specific) = own.filter(|facts| !facts.is_empty()) {
            // Writing to a String cannot fail.
            let _ = specific_lines(&mut text, &specific, 0);
        }
        session.out.print(&text);
        Ok(())
    })
}

pub(in crate::io) fn length<'a>(
    session: &'a mut Session,
    _: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        session.out.line(&whole_amount(session.image()?.backend.size()));
        Ok(())
    })
}
