//! Options for opening, and the server's address that they describe.

use cairn_nbd_wire::DEFAULT_PORT;

use crate::error::{Error, Result};
use crate::option_words;
use crate::options::{OptionError, OptionKind, OptionType, Value};

option_words! {
    /// Kinds of addresses.
    pub(super) enum AddressType {
        /// A TCP port.
        Inet = "inet",
        /// A Unix socket.
        Unix = "unix",
        /// A port of the host of this virtual machine, or of a virtual machine on this host.
        Vsock = "vsock",
        /// An open file descriptor.
        Fd = "fd",
    }
}

/// A number in text or JSON.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Port(String);

impl OptionType for Port {
    const KIND: OptionKind = OptionKind::Str;

    fn from_value(name: &str, value: Value) -> Result<Port, OptionError> {
        match value {
            Value::Str(text) => Ok(Port(text)),
            Value::Int(number) => Ok(Port(number.to_string())),
            other => Err(OptionError::invalid(name, &other, "the number of a port")),
        }
    }
}

impl Port {
    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        let wrong = |_| OptionError::invalid(name, &self.0.as_str().into(), "the number of a port");
        Ok(self.0.parse().map_err(wrong)?)
    }
}

crate::options! {
    /// Where the server is.
    pub(super) struct Server {
        /// Kind of address: inet, unix, vsock or fd.
        "type" => kind: AddressType,
        /// Host name or IP address (inet).
        "host" => host: Option<String>,
        /// Port (inet, vsock).
        "port" => port: Option<Port>,
        /// Last of several ports; only servers take more than one (inet).
        "to" => to: Option<Port>,
        /// The host is an IP address, never to be looked up (inet).
        "numeric" => numeric: Option<bool>,
        /// Whether to use IPv4 (inet).
        "ipv4" => ipv4: Option<bool>,
        /// Whether to use IPv6 (inet).
        "ipv6" => ipv6: Option<bool>,
        /// Have the system probe idle connections (inet).
        "keep-alive" => keep_alive: Option<bool>,
        /// Path of the socket (unix).
        "path" => path: Option<String>,
        /// The path is a name in the abstract namespace (unix).
        "abstract" => is_abstract: Option<bool>,
        /// Abstract names end where they end, not with zero bytes; always so here (unix).
        "tight" => tight: Option<bool>,
        /// Number of the virtual machine (vsock).
        "cid" => cid: Option<Port>,
        /// Number of the file descriptor (fd).
        "str" => descriptor: Option<Port>,
    }
}

crate::options! {
    /// Options for opening.
    pub(super) struct Options {
        /// Address of the server.
        "server" => server: Option<Server> [strong],
        /// Old spelling of server.path.
        "path" => path: Option<String> [strong],
        /// Old spelling of server.host.
        "host" => host: Option<String> [strong],
        /// Old spelling of server.port.
        "port" => port: Option<Port> [strong],
        /// Name of the export; the server's default one if absent.
        "export" => export: Option<String> [strong],
        /// ID of the TLS credentials to use.
        "tls-creds" => tls_creds: Option<String> [strong],
        /// Name that the server's certificate must have, if it is not that of the host.
        "tls-hostname" => tls_hostname: Option<String> [strong],
        /// Metadata context (qemu:dirty-bitmap:NAME) to show in place of allocation.
        "x-dirty-bitmap" => dirty_bitmap: Option<String> [strong],
        /// Seconds for which requests wait for a lost server to come back before they fail.
        "reconnect-delay" => reconnect_delay: u32 = "0",
        /// Seconds for which opening tries to reach the server (0: once).
        "open-timeout" => open_timeout: u32 = "0",
        /// Most connections that an I/O thread opens to a server that allows several.
        "connections" => connections: u32 = "4",
        /// Refuse to speak without TLS; set by the nbds names.
        "x-require-tls" => require_tls: bool = "off" [strong],
    }
}

/// A TCP port of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InetAddress {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) numeric: bool,
    pub(super) ipv4: Option<bool>,
    pub(super) ipv6: Option<bool>,
    pub(super) keep_alive: bool,
}

impl InetAddress {
    /// Whether host and port say all about it.
    pub(super) fn is_plain(&self) -> bool {
        self.ipv4.is_none() && self.ipv6.is_none()
    }

    /// Whether addresses of the two families may be used: IPv4, IPv6.
    pub(super) fn families(&self) -> (bool, bool) {
        match (self.ipv4, self.ipv6) {
            (None, None) => (true, true),
            (Some(true), None) => (true, false),
            (None, Some(true)) => (false, true),
            (v4, v6) => (v4.unwrap_or(true), v6.unwrap_or(true)),
        }
    }
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Descriptor(i32),
    Inet(InetAddress),
    Unix { path: String, is_abstract: bool },
    Vsock { cid: u32, port: u32 },
}

impl Address {
    /// Whether a second connection can be made: a descriptor is one connection and no more.
    pub(super) fn can_reconnect(&self) -> bool {
        !matches!(self, Address::Descriptor(_))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Descriptor(fd) => write!(f, "file descriptor {fd}"),
            Address::Inet(inet) => write!(f, "{}:{}", inet.host, inet.port),
            Address::Unix { path, .. } => f.write_str(path),
            Address::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
        }
    }
}

fn conflict(name: &str, problem: &str) -> Error {
    Error::Option(OptionError::Conflict { name: name.to_owned(), problem: problem.to_owned() })
}

fn missing(name: &str) -> Error {
    Error::Option(OptionError::Missing { name: name.to_owned() })
}

impl Options {
    /// The server's address, whatever spelling describes it.
    pub(super) fn address(&self) -> Result<Address> {
        let spellings = [
            ("server", self.server.is_some()),
            ("path", self.path.is_some()),
            ("host", self.host.is_some()),
        ];
        let mut given = spellings.iter().filter(|(_, given)| *given).map(|(name, _)| *name);
        let first = given.next();
        if let Some(second) = given.next() {
            let problem = "says where the server is, and so does another option";
            return Err(conflict(second, problem));
        }
        if self.port.is_some() && first != Some("host") {
            return Err(conflict("port", "only goes with the option 'host'"));
        }
        if let Some(server) = &self.server {
            return server.address();
        }
        match (&self.path, &self.host) {
            (Some(path), _) => Ok(Address::Unix { path: path.clone(), is_abstract: false }),
            (_, Some(host)) => Ok(Address::Inet(InetAddress {
                host: host.clone(),
                port: self.port.as_ref().map_or(Ok(DEFAULT_PORT), |port| port.number("port"))?,
                numeric: false,
                ipv4: None,
                ipv6: None,
                keep_alive: false,
            })),
            (None, None) => Err(missing("server")),
        }
    }
}

impl Server {
    fn address(&self) -> Result<Address> {
        let address = match self.kind {
            AddressType::Inet => {
                if self.to.is_some() {
                    return Err(conflict("server.to", "has no meaning for a client"));
                }
                let port = self.port.as_ref().ok_or_else(|| missing("server.port"))?;
                Address::Inet(InetAddress {
                    host: self.host.clone().ok_or_else(|| missing("server.host"))?,
                    port: port.number("server.port")?,
                    numeric: self.numeric == Some(true),
                    ipv4: self.ipv4,
                    ipv6: self.ipv6,
                    keep_alive: self.keep_alive == Some(true),
                })
            }
            AddressType::Unix => Address::Unix {
                path: self.path.clone().ok_or_else(|| missing("server.path"))?,
                is_abstract: self.is_abstract == Some(true),
            },
            AddressType::Vsock => {
                let cid = self.cid.as_ref().ok_or_else(|| missing("server.cid"))?;
                let port = self.port.as_ref().ok_or_else(|| missing("server.port"))?;
                Address::Vsock { cid: cid.number("server.cid")?, port: port.number("server.port")? }
            }
            AddressType::Fd => {
                let fd = self.descriptor.as_ref().ok_or_else(|| missing("server.str"))?;
                Address::Descriptor(fd.number("server.str")?)
            }
        };
        let unused = [
            ("server.host", self.host.is_some(), matches!(address, Address::Inet(_))),
            ("server.path", self.path.is_some(), matches!(address, Address::Unix { .. })),
            ("server.cid", self.cid.is_some(), matches!(address, Address::Vsock { .. })),
            ("server.str", self.descriptor.is_some(), matches!(address, Address::Descriptor(_))),
        ];
        match unused.iter().find(|(_, given, used)| *given && !used) {
            Some((name, ..)) => Err(conflict(name, "does not go with this server.type")),
            None => Ok(address),
        }
    }
}
