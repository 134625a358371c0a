//! File names: NBD URIs and the older `nbd:` names, and back from a server's address to a name.
//!
//! URIs follow the NBD project's `doc/uri.md`; of its query parameters only `socket` is known, as in
//! the reference, so that a name from an image cannot reach any other file.

use cairn_nbd_wire::DEFAULT_PORT;

use super::options::Address;
use crate::error::{Error, Result};
use crate::options::{Dict, OptionError};

/// Transports of URI schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Unix,
    Vsock,
}

/// URI schemes: their names, transports, and whether they demand TLS.
const SCHEMES: &[(&str, Transport, bool)] = &[
    ("nbd", Transport::Tcp, false),
    ("nbd+tcp", Transport::Tcp, false),
    ("nbd+unix", Transport::Unix, false),
    ("nbd+vsock", Transport::Vsock, false),
    ("nbds", Transport::Tcp, true),
    ("nbds+tcp", Transport::Tcp, true),
    ("nbds+unix", Transport::Unix, true),
    ("nbds+vsock", Transport::Vsock, true),
];

/// Prefixes of file names that belong to the driver.
pub(super) const PREFIXES: &[&str] =
    &["nbd", "nbd+tcp", "nbd+unix", "nbd+vsock", "nbds", "nbds+tcp", "nbds+unix", "nbds+vsock"];

/// Options that a file name excludes, since it says the same.
const EXCLUDED: &[&str] = &["host", "path", "port", "server"];

/// Turns a file name into options.
pub(super) fn parse(name: &str, options: &mut Dict) -> Result<()> {
    if let Some(given) = EXCLUDED.iter().find(|option| options.contains(option)) {
        return Err(Error::Option(OptionError::Conflict {
            name: (*given).to_owned(),
            problem: format!("says where the server is, and so does the name '{name}'"),
        }));
    }
    match name.split_once("://") {
        Some((scheme, rest)) => parse_uri(name, scheme, rest, options),
        None => parse_legacy(name, options),
    }
}

fn invalid(name: &str, problem: &str) -> Error {
    Error::unsupported(name, format!("this is no valid NBD name: {problem}"))
}

/// `nbd:HOST:PORT[:exportname=EXPORT]`, `nbd:unix:PATH[:exportname=EXPORT]`.
fn parse_legacy(name: &str, options: &mut Dict) -> Result<()> {
    let rest = name.strip_prefix("nbd:").ok_or_else(|| invalid(name, "it has no '://'"))?;
    let (place, export) = match rest.split_once(":exportname=") {
        Some((_, "")) => return Err(invalid(name, "the export name is empty")),
        Some((place, export)) => (place, Some(export)),
        None => (rest, None),
    };
    if let Some(path) = place.strip_prefix("unix:") {
        options.insert("server", unix(path));
    } else if !place.is_empty() {
        let (host, port) =
            split_port(place).ok_or_else(|| invalid(name, "'HOST:PORT' is expected"))?;
        let port = port.ok_or_else(|| invalid(name, "the port is missing"))?;
        options.insert("server", inet(host, port));
    }
    if let Some(export) = export {
        options.insert("export", export);
    }
    Ok(())
}

fn parse_uri(name: &str, scheme: &str, rest: &str, options: &mut Dict) -> Result<()> {
    let (_, transport, tls) = SCHEMES
        .iter()
        .find(|(known, ..)| *known == scheme)
        .ok_or_else(|| invalid(name, "the scheme is unknown"))?;
    let rest = rest.split('#').next().unwrap_or_default();
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let decode = |text: &str| {
        percent_decode(text).ok_or_else(|| invalid(name, "an escape with '%' is wrong"))
    };
    if authority.contains('@') {
        return Err(invalid(name, "a user cannot be given"));
    }
    let server = match transport {
        Transport::Unix => {
            if !authority.is_empty() {
                return Err(invalid(name, "a Unix socket has no host"));
            }
            let socket = query.and_then(|query| query.strip_prefix("socket="));
            let socket = socket
                .filter(|socket| !socket.is_empty() && !socket.contains(['&', ';']))
                .ok_or_else(|| invalid(name, "exactly '?socket=PATH' is expected at its end"))?;
            unix(&decode(socket)?)
        }
        _ if query.is_some_and(|query| !query.is_empty()) => {
            return Err(invalid(name, "a query only goes with Unix sockets"));
        }
        Transport::Tcp | Transport::Vsock => {
            let (host, port) =
                split_port(authority).ok_or_else(|| invalid(name, "the host is malformed"))?;
            let port = port.map_or_else(|| DEFAULT_PORT.to_string(), str::to_owned);
            let host = decode(host)?;
            if host.is_empty() {
                return Err(invalid(name, "the host is missing"));
            }
            if *transport == Transport::Tcp { inet(&host, &port) } else { vsock(&host, &port) }
        }
    };
    options.insert("server", server);
    let export = path.trim_start_matches('/');
    if !export.is_empty() {
        options.insert("export", decode(export)?);
    }
    if *tls {
        options.insert("x-require-tls", true);
    }
    Ok(())
}

fn inet(host: &str, port: &str) -> Dict {
    Dict::from([("type", "inet"), ("host", host), ("port", port)])
}

fn unix(path: &str) -> Dict {
    Dict::from([("type", "unix"), ("path", path)])
}

fn vsock(cid: &str, port: &str) -> Dict {
    Dict::from([("type", "vsock"), ("cid", cid), ("port", port)])
}

/// Splits `HOST:PORT`, where the host may be an IPv6 address in brackets.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(text) => text.split_once(']')?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    match rest.strip_prefix(':') {
        Some(port) if !port.is_empty() && !port.contains(':') => Some((host, Some(port))),
        None if rest.is_empty() => Some((host, None)),
        _ => None,
    }
}

/// Replaces `%XX` by the byte it stands for. `None` if an escape is malformed, or the result is no
/// text or has a NUL in it.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            u8::try_from(digit()? << 4 | digit()?).ok().filter(|byte| *byte != 0)?
        } else {
            byte
        };
        bytes.push(decoded);
    }
    String::from_utf8(bytes).ok()
}

/// The name that stands for an export of the server at `address`, as the reference prints it, or one
/// that demands TLS; `None` if there is none.
pub(super) fn format(address: &Address, export: Option<&str>, tls: bool) -> Option<String> {
    let scheme = if tls { "nbds" } else { "nbd" };
    match address {
        Address::Inet(inet) if inet.is_plain() => {
            let host = if inet.host.contains(':') {
                format!("[{}]", inet.host)
            } else {
                inet.host.clone()
            };
            let export = export.map_or(String::new(), |export| format!("/{export}"));
            Some(format!("{scheme}://{host}:{}{export}", inet.port))
        }
        Address::Unix { path, is_abstract: false } => {
            let export = export.map_or(String::new(), |export| format!("/{export}"));
            Some(format!("{scheme}+unix://{export}?socket={path}"))
        }
        Address::Vsock { cid, port } => {
            let export = export.map_or(String::new(), |export| format!("/{export}"));
            Some(format!("{scheme}+vsock://{cid}:{port}{export}"))
        }
        Address::Inet(_) | Address::Unix { .. } | Address::Descriptor(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::options::flatten;

    fn parsed(name: &str) -> Option<String> {
        let mut options = Dict::new();
        parse(name, &mut options).ok()?;
        let pairs = flatten(options).into_iter().map(|(key, value)| match value.as_str() {
            Some(text) => format!("{key}={text}"),
            None => key,
        });
        Some(pairs.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn names_lead_to_servers() {
        for (name, options) in [
            ("nbd://h/", "server.type=inet server.host=h server.port=10809"),
            ("nbd://h:1/e/f", "server.type=inet server.host=h server.port=1 export=e/f"),
            (
                "nbd+tcp://[::1]:7//e%20f",
                "server.type=inet server.host=::1 server.port=7 export=e f",
            ),
            ("nbd+unix:///?socket=/a%2fb", "server.type=unix server.path=/a/b"),
            ("nbd+unix:///e?socket=/a", "server.type=unix server.path=/a export=e"),
            ("nbds://h", "server.type=inet server.host=h server.port=10809 x-require-tls"),
            ("nbd+vsock://2:5/e", "server.type=vsock server.cid=2 server.port=5 export=e"),
            ("nbd:h:1", "server.type=inet server.host=h server.port=1"),
            ("nbd:[::1]:1:exportname=e", "server.type=inet server.host=::1 server.port=1 export=e"),
            ("nbd:unix:/a:b:exportname=e:f", "server.type=unix server.path=/a:b export=e:f"),
            ("nbd:", ""),
        ] {
            assert_eq!(parsed(name).as_deref(), Some(options), "{name}");
        }
    }

    #[test]
    fn names_with_more_than_they_may_have_are_refused() {
        for name in [
            "nbd://",
            "nbd://u@h/",
            "nbd://h:/",
            "nbd://h/e?socket=/a",
            "nbd://[::1/",
            "nbd+unix:///e",
            "nbd+unix:///e?socket=",
            "nbd+unix:///e?socket=/a&tls-certificates=/b",
            "nbd+unix:///e?tls-psk-file=/b",
            "nbd+unix://h/e?socket=/a",
            "nbd+ssh://h/",
            "nbd://h/%0",
            "nbd://h/%00",
            "nbd:h",
            "nbd:h:1:exportname=",
        ] {
            assert_eq!(parsed(name), None, "{name}");
        }
        let mut options = Dict::from([("host", "a")]);
        assert!(parse("nbd://h", &mut options).is_err());
    }

    #[test]
    fn a_name_that_demands_tls_stays_one() {
        let address = Address::Unix { path: "/a".to_owned(), is_abstract: false };
        let name = format(&address, Some("e"), true);
        assert_eq!(name.as_deref(), Some("nbds+unix:///e?socket=/a"));
        let name = format(&address, None, false);
        assert_eq!(name.as_deref(), Some("nbd+unix://?socket=/a"));
    }

    proptest! {
        #[test]
        fn any_name_is_handled(name in any::<String>()) {
            for prefix in ["nbd:", "nbd://", "nbd+unix:///", "nbds+vsock://"] {
                let _ = parsed(&format!("{prefix}{name}"));
            }
        }
    }
}
