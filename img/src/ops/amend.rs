//! `amend`: change properties of an image that are otherwise chosen when it is created.

use std::cell::Cell;
use std::sync::Arc;

use cairn_block::driver::{Amendment, FormatInfo, amend_options};
use cairn_block::graph::Graph;
use cairn_block::options::{CacheMode, Dict, Value, help, parse_list, validate};

use super::convert::Notice;
use super::image::{Access, ImageSpec};
use crate::error::{Error, Result};

/// Amends the image by `options`, a comma list. With `force` also where that loses data. `notice` is
/// told how far it is.
pub async fn amend(
    graph: &Arc<Graph>,
    spec: &ImageSpec,
    options: &str,
    cache: CacheMode,
    force: bool,
    notice: &dyn Notice,
) -> Result<()> {
    let access = Access { write: true, resize: true, cache, ..Access::default() };
    let image = spec.open(graph, &access).await?;
    let node = image.node();
    let amended = async {
        let options = parse_list(options, None);
        refuse_unknown(node.format(), node.driver().info().create_options, &options)?;
        refuse_backing(&node.driver().format_info().await?, &options)?;
        let before = Cell::new(0);
        let progress = move |done: u64, total: u64| {
            if before.get() == 0 {
                notice.total(total);
            }
            notice.copied(done - before.replace(done).min(done));
        };
        let change = Amendment { options, force, progress: &progress };
        node.driver().amend(graph, change).await?;
        Ok(())
    };
    let amended: Result<()> = amended.await;
    drop(node);
    let closed = image.close().await;
    amended?;
    Ok(closed?)
}

/// What [`amend`] would change, after a look at the image.
pub async fn rehearse(graph: &Arc<Graph>, spec: &ImageSpec, options: &str) -> Result<String> {
    let format = format_of(graph, spec).await?;
    let create = cairn_block::driver::find(format).map_or(&[][..], |driver| driver.create_options);
    let options = parse_list(options, None);
    refuse_unknown(format, create, &options)?;
    let known = amend_options(format).ok_or_else(|| cannot(format))?;
    validate(&options, &format!("amendment of format '{format}'"), &[known])?;
    let changes = options
        .iter()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    let changes: Vec<String> = changes.collect();
    Ok(format!("Would set {} of '{}'.", changes.join(", "), spec.label()))
}

/// Explains options that are for creation only, and formats that cannot be amended.
fn refuse_unknown(
    format: &str,
    create: &[cairn_block::options::OptionDesc],
    options: &Dict,
) -> Result<()> {
    let known = amend_options(format).ok_or_else(|| cannot(format))?;
    let has = |table: &[cairn_block::options::OptionDesc], name: &str| {
        table.iter().any(|desc| desc.name == name)
    };
    match options.iter().find(|(name, _)| !has(known, name) && has(create, name)) {
        Some((name, _)) => Err(Error::Usage(format!(
            // Scripts know the second line.
            "option '{name}' cannot be changed\nThis option is only supported for image creation"
        ))),
        None => Ok(()),
    }
}

/// Explains that backing files are changed in another way.
fn refuse_backing(info: &FormatInfo, options: &Dict) -> Result<()> {
    let stored = [("backing_file", &info.backing_file), ("backing_fmt", &info.backing_format)];
    for (name, present) in stored {
        let wanted = options.get(name).and_then(Value::as_str);
        if wanted.is_some_and(|wanted| wanted != present.as_deref().unwrap_or_default()) {
            let refusal = Error::Usage(format!("option '{name}' cannot be changed"));
            return Err(Error::Instead { command: "rebase", source: Box::new(refusal) });
        }
    }
    Ok(())
}

fn cannot(format: &str) -> Error {
    Error::Usage(format!("images of format '{format}' cannot be amended"))
}

/// What `amend -o help` prints for a format.
pub fn option_help(format: &str) -> Result<String> {
    let options = amend_options(format).ok_or_else(|| cannot(format))?;
    Ok(format!("Amend options for '{format}':\n{}", help::table(&help::merge(&[options]))))
}

/// The format of an image.
pub async fn format_of(graph: &Arc<Graph>, spec: &ImageSpec) -> Result<&'static str> {
    let access = Access { metadata_only: true, force_share: true, ..Access::default() };
    let image = spec.open(graph, &access).await?;
    let format = image.node().format();
    image.close().await?;
    Ok(format)
}
