//! File names and the options that every node has.

use crate::driver::{self, DriverInfo};
use crate::error::{Error, Result};
use crate::options::{Dict, Value};

/// A protocol and the options that a file name stands for.
pub(super) struct Location {
    pub(super) driver: &'static DriverInfo,
    pub(super) options: Dict,
}

pub(super) fn locate(name: &str, info: Option<&'static DriverInfo>) -> Result<Location> {
    let info = match info {
        Some(info) => info,
        None => driver::find("file")
            .ok_or_else(|| Error::unsupported(name, "no protocol for this name"))?,
    };
    let mut options = Dict::default();
    options.insert("filename", Value::Str(name.to_owned()));
    Ok(Location { driver: info, options })
}

pub(super) fn parse_json(text: &str) -> Result<Dict> {
    Err(Error::unsupported(text, "json: names are not supported"))
}

pub(super) fn resolve_backing(stored: &str, overlay: &str) -> Result<String> {
    let dir = overlay.rsplit_once('/').map_or("", |(dir, _)| dir);
    Ok(if stored.starts_with('/') || dir.is_empty() {
        stored.to_owned()
    } else {
        format!("{dir}/{stored}")
    })
}
