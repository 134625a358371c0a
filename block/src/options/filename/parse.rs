//! From a filename to a driver and its options.

use super::path::protocol_prefix;
use crate::driver::{self, DriverInfo};
use crate::error::{Error, Result};
use crate::options::tree::expand;
use crate::options::value::{Dict, Value};
use crate::options::{OptionError, json};

/// Longest protocol name that is looked at; what follows cannot name a driver.
const MAX_PREFIX: usize = 127;

/// A protocol and the options that a filename stands for.
pub struct Location {
    /// The protocol.
    pub driver: &'static DriverInfo,
    /// Its options, `driver` not among them.
    pub options: Dict,
}

/// What a filename that a user gave, or an image names, stands for.
///
/// `given` is the driver to use, if the options name one; otherwise it follows from the name: a
/// device that some driver recognises, then the prefix, then the driver `file`.
pub fn locate(filename: &str, given: Option<&'static DriverInfo>) -> Result<Location> {
    let registry: Vec<_> = driver::drivers().collect();
    locate_among(&registry, filename, given)
}

/// The protocol for a path given as the option `filename`, in which prefixes mean nothing.
pub fn protocol_for_path(path: &str) -> Result<&'static DriverInfo> {
    let registry: Vec<_> = driver::drivers().collect();
    path_protocol(&registry, path)
}

/// The node that a `json:` name describes; `text` is what follows the colon. Dotted keys become
/// nested maps. Options given beside the name take precedence over these.
pub fn parse_json(text: &str) -> Result<Dict> {
    let described = match json::parse(text).map_err(OptionError::from)? {
        Value::Dict(dict) => expand(dict)?,
        _ => {
            return Err(Error::Option(OptionError::Syntax {
                text: format!("json:{text}"),
                problem: "does not describe a node: a JSON object is needed",
            }));
        }
    };
    Ok(described)
}

/// The options of a protocol whose names are paths behind an optional `prefix` (`file:` and its
/// like). A path that looks as if it had a prefix itself is made to begin with `./`.
pub fn strip_prefix(filename: &str, prefix: &str) -> String {
    match filename.strip_prefix(prefix) {
        Some(path) if protocol_prefix(path).is_some() => format!("./{path}"),
        Some(path) => path.to_owned(),
        None => filename.to_owned(),
    }
}

type Registry = [&'static DriverInfo];

fn locate_among(
    registry: &Registry,
    filename: &str,
    given: Option<&'static DriverInfo>,
) -> Result<Location> {
    let driver = match (given, protocol_prefix(filename)) {
        (Some(driver), _) => driver,
        (None, None) => path_protocol(registry, filename)?,
        (None, Some(prefix)) => match device_protocol(registry, filename) {
            Some(driver) => driver,
            None => prefix_protocol(registry, prefix)?,
        },
    };
    let mut options = Dict::new();
    match driver.parse_filename {
        Some(parse) => parse(filename, &mut options)?,
        None => options.insert("filename", filename),
    }
    Ok(Location { driver, options })
}

fn path_protocol(registry: &Registry, path: &str) -> Result<&'static DriverInfo> {
    match device_protocol(registry, path) {
        Some(driver) => Ok(driver),
        None => registry
            .iter()
            .copied()
            .find(|driver| driver.name == "file")
            .ok_or_else(|| Error::unsupported(path, "this build has no driver for files")),
    }
}

/// The driver that is surest of `path` being one of its devices.
fn device_protocol(registry: &Registry, path: &str) -> Option<&'static DriverInfo> {
    let mut best = None;
    let mut best_score = 0;
    for driver in registry {
        let score = driver.probe_device.map_or(0, |probe| probe(path));
        if score > best_score {
            best = Some(*driver);
            best_score = score;
        }
    }
    best
}

fn prefix_protocol(registry: &Registry, prefix: &str) -> Result<&'static DriverInfo> {
    let unknown = || {
        let shown = prefix.chars().take(MAX_PREFIX).collect();
        Error::Name {
            what: "protocol",
            name: shown,
            problem: "is not known (a path with a colon must begin with '/' or './')",
        }
    };
    registry.iter().copied().find(|driver| driver.prefixes.contains(&prefix)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::driver::{DriverFuture, DriverKind, unsupported};
    use crate::graph::OpenContext;

    fn open<'a>(_: &'a mut OpenContext<'_>) -> DriverFuture<'a, Box<dyn crate::driver::Driver>> {
        unsupported("test", "a registry entry for names only")
    }

    const NONE: DriverInfo = DriverInfo {
        name: "",
        kind: DriverKind::Protocol,
        open,
        probe: None,
        prefixes: &[],
        parse_filename: None,
        probe_device: None,
        options: &[],
        create_options: &[],
        create: None,
        measure: None,
        supports_backing: false,
    };

    static FILE: DriverInfo = DriverInfo {
        name: "file",
        prefixes: &["file"],
        parse_filename: Some(|filename, options| {
            options.insert("filename", strip_prefix(filename, "file:"));
            Ok(())
        }),
        ..NONE
    };
    static DEVICE: DriverInfo = DriverInfo {
        name: "host_device",
        prefixes: &["host_device"],
        probe_device: Some(|path| if path.starts_with("/dev/") { 100 } else { 0 }),
        ..NONE
    };
    static CDROM: DriverInfo = DriverInfo {
        name: "host_cdrom",
        probe_device: Some(|path| if path.starts_with("/dev/cdrom") { 200 } else { 0 }),
        ..NONE
    };
    static NBD: DriverInfo = DriverInfo { name: "nbd", prefixes: &["nbd", "nbd+unix"], ..NONE };

    fn found(filename: &str, given: Option<&'static DriverInfo>) -> Result<(&'static str, Dict)> {
        let registry = [&FILE, &DEVICE, &CDROM, &NBD];
        let location = locate_among(&registry, filename, given)?;
        Ok((location.driver.name, location.options))
    }

    #[test]
    fn names_lead_to_drivers_as_in_the_reference() {
        for (filename, driver, path) in [
            ("a.raw", "file", "a.raw"),
            ("file:a.raw", "file", "a.raw"),
            ("file:x:y", "file", "./x:y"),
            ("file:./x:y", "file", "./x:y"),
            ("file:///tmp/a", "file", "///tmp/a"),
            ("./x:y", "file", "./x:y"),
            ("/tmp/x:y", "file", "/tmp/x:y"),
            ("/dev/sda", "host_device", "/dev/sda"),
            ("/dev/disk/by-path/pci-0:1", "host_device", "/dev/disk/by-path/pci-0:1"),
            ("/dev/cdrom", "host_cdrom", "/dev/cdrom"),
            ("nbd+unix:///e?socket=s", "nbd", "nbd+unix:///e?socket=s"),
        ] {
            let expected = (driver, Dict::from([("filename", path)]));
            assert_eq!(found(filename, None).unwrap(), expected, "{filename}");
        }
        let (driver, options) = found("foo:bar", Some(&FILE)).unwrap();
        assert_eq!((driver, options.get("filename")), ("file", Some(&"foo:bar".into())));
    }

    #[test]
    fn unknown_prefixes_are_refused() {
        for filename in ["foo:bar", " json:{}", "raw:a", ":", "host_cdrom:x"] {
            let Err(Error::Name { what: "protocol", .. }) = found(filename, None) else {
                panic!("{filename} must be refused");
            };
        }
        let Err(Error::Name { name, .. }) = found(&format!("{}:b", "a".repeat(200)), None) else {
            panic!("a long prefix must be refused");
        };
        assert_eq!(name.len(), MAX_PREFIX);
    }

    #[test]
    fn json_names_describe_nodes() {
        let parsed = parse_json("{'driver':'raw','file.filename':'a','file':{'driver':'file'}}");
        let file = Dict::from([("driver", "file"), ("filename", "a")]);
        let expected = Dict::from([("driver", Value::from("raw")), ("file", file.into())]);
        assert_eq!(parsed.unwrap(), expected);
        for text in ["", "{", "[1]", "{} x", "{'a':1,'a.b':2}"] {
            assert!(parse_json(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_handled(filename in any::<String>()) {
            let _ = found(&filename, None);
            let _ = parse_json(&filename);
        }
    }
}
