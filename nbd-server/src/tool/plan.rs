//! What the arguments ask for: options that exclude each other, numbers and words are checked here.

use std::path::PathBuf;
use std::time::Duration;

use cairn_block::engine::{Aio, VsockAddress};
use cairn_block::graph::Policy;
use cairn_block::options::{CacheMode, DetectZeroes};
use cairn_block::snapshot::SnapshotKey;
use cairn_img::cli::Program;
use cairn_img::cli::args::{cache_or, number, snapshot_key};
use cairn_img::io::image::{Opening, aio, unmap};
use cairn_nbd_wire::{DEFAULT_PORT, MAX_STRING};

use super::activation;
use super::args::Cli;
use crate::error::{Error, Result};
use crate::export::ExportOptions;
use crate::listen::Address;

/// What the program is to do.
pub(super) enum Plan {
    /// Detach a device of the kernel.
    Disconnect {
        /// Its path.
        device: String,
    },
    /// List the exports of a server.
    List(ListPlan),
    /// Serve an image.
    Serve(Box<ServePlan>),
}

/// Which server is to be asked for its exports.
pub(super) struct ListPlan {
    pub(super) address: Address,
    pub(super) tls: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) objects: Vec<String>,
}

/// Where clients come from.
pub(super) enum Place {
    /// A socket of our own.
    Address(Address),
    /// A socket that the service manager has opened.
    Inherited,
}

/// How an image is to be served.
pub(super) struct ServePlan {
    pub(super) place: Place,
    pub(super) insecure: bool,
    pub(super) opening: Opening,
    pub(super) image: String,
    pub(super) offset: u64,
    pub(super) snapshot: Option<SnapshotKey>,
    pub(super) export: ExportOptions,
    pub(super) max_clients: usize,
    pub(super) persistent: bool,
    pub(super) handshake_limit: Option<Duration>,
    pub(super) tls: Option<String>,
    pub(super) authorizer: Option<String>,
    pub(super) objects: Vec<String>,
    pub(super) policy: Policy,
    /// Device of the kernel to attach.
    pub(super) device: Option<String>,
    /// Runs in the background.
    pub(super) is_background: bool,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) selinux_label: Option<String>,
    pub(super) verbose: bool,
}

fn usage(text: impl Into<String>) -> Error {
    Error::Usage(text.into())
}

/// Where unix sockets of attached devices are.
const LOCK_DIRECTORY: &str = "/var/lock";

impl Plan {
    /// What `cli` asks `program` to do.
    pub(super) fn new(program: Program, cli: Cli) -> Result<Plan> {
        if cli.disconnect {
            let [device] = <[String; 1]>::try_from(cli.files)
                .map_err(|_| usage("--disconnect needs the device, and nothing else"))?;
            return Ok(Plan::Disconnect { device });
        }
        if cli.tls_creds.is_none() && (cli.tls_authz.is_some() || cli.tls_hostname.is_some()) {
            return Err(usage("--tls-authz and --tls-hostname need --tls-creds"));
        }
        if cli.list { list(program, cli).map(Plan::List) } else { serve(program, cli) }
    }
}

/// The address that the arguments name; `fallback` is the host where they name none.
fn address(cli: &Cli, fallback: &str) -> Result<Address> {
    if let Some(path) = &cli.socket {
        if cli.port.is_some() || cli.bind.is_some() || cli.vsock.is_some() {
            return Err(usage("--socket excludes --port, --bind and --vsock"));
        }
        if !path.is_absolute() {
            return Err(usage(format!("the socket's path '{}' is not absolute", path.display())));
        }
        return Ok(Address::Unix(path.clone()));
    }
    if let Some(text) = &cli.vsock {
        if cli.port.is_some() || cli.bind.is_some() {
            return Err(usage("--vsock excludes --port and --bind"));
        }
        return vsock(text);
    }
    let port = cli.port.as_deref().map(|text| number("the port", text, 1, u16::MAX.into()));
    let port = port.transpose()?.map_or(Ok(DEFAULT_PORT), u16::try_from);
    let port = port.map_err(|_| usage("the port is out of range"))?;
    let host = cli.bind.clone().unwrap_or_else(|| fallback.to_owned());
    Ok(Address::Tcp { host, port })
}

fn vsock(text: &str) -> Result<Address> {
    let (cid, port) = match text.split_once(':') {
        Some((cid, port)) => (Some(cid), port),
        None => (None, text),
    };
    let word = |what: &str, text: &str| -> Result<u32> {
        let value = number(what, text, 0, u32::MAX.into())?;
        u32::try_from(value).map_err(|_| usage(format!("{what} is out of range")))
    };
    let cid = cid.map_or(Ok(VsockAddress::ANY), |cid| word("the vsock CID", cid))?;
    Ok(Address::Vsock(VsockAddress { cid, port: word("the vsock port", port)? }))
}

fn list(program: Program, cli: Cli) -> Result<ListPlan> {
    if !cli.files.is_empty() {
        return Err(usage("--list takes no image"));
    }
    let is_per_image = cli.export_name.is_some()
        || cli.description.is_some()
        || cli.offset.is_some()
        || cli.connect.is_some()
        || cli.format.is_some()
        || cli.load_snapshot.is_some()
        || cli.allocation_depth
        || !cli.bitmap.is_empty()
        || !cli.aio.is_empty()
        || !cli.discard.is_empty()
        || !cli.cache.is_empty();
    if is_per_image {
        return Err(usage("--list excludes options of images and exports"));
    }
    if cli.fork {
        return Err(usage("--list excludes --fork"));
    }
    if cli.tls_authz.is_some() {
        return Err(usage("--tls-authz is for servers; --list is a client"));
    }
    let address = address(&cli, local_host(program))?;
    if let Address::Vsock(VsockAddress { cid: VsockAddress::ANY, .. }) = address {
        return Err(usage("--list needs the vsock CID of the server, as in --vsock 2:10809"));
    }
    Ok(ListPlan { address, tls: cli.tls_creds, hostname: cli.tls_hostname, objects: cli.objects })
}

/// The host to ask when none is named.
fn local_host(program: Program) -> &'static str {
    if program.is_own() { "localhost" } else { "0.0.0.0" }
}

fn serve(program: Program, cli: Cli) -> Result<Plan> {
    if cli.tls_hostname.is_some() {
        return Err(usage("--tls-hostname is for clients, such as --list"));
    }
    let [image] =
        <[String; 1]>::try_from(cli.files.clone()).map_err(|files| match files.len() {
            0 => usage("no image is named"),
            _ => usage("one image is served at a time; more than one is named"),
        })?;
    if cli.connect.is_some() && cli.tls_creds.is_some() {
        return Err(usage("devices of the kernel cannot use TLS"));
    }
    let device = cli.connect.clone();
    let place = place(program, &cli)?;
    let is_socket = matches!(place, Place::Address(Address::Unix(_)));
    if cli.selinux_label.is_some() && !is_socket {
        return Err(usage("--selinux-label needs --socket or --connect"));
    }
    let max_clients = cli.shared.as_deref().map_or(Ok(1), |text| {
        let value = number("the number of clients", text, 0, i32::MAX.unsigned_abs().into())?;
        Ok::<_, Error>(usize::try_from(value).unwrap_or(usize::MAX))
    })?;
    let handshake_limit = cli
        .handshake_limit
        .as_deref()
        .map_or(Ok(10), |text| number("the handshake limit", text, 0, u32::MAX.into()))?;
    let offset = cli
        .offset
        .as_deref()
        .map_or(Ok(0), |text| number("the offset", text, 0, i64::MAX.unsigned_abs()))?;
    let snapshot = cli.load_snapshot.as_deref().map(snapshot_key).transpose()?;
    let name = cli.export_name.clone().unwrap_or_default();
    for (what, text) in [("name", Some(&name)), ("description", cli.description.as_ref())] {
        if text.is_some_and(|text| text.len() > MAX_STRING) {
            return Err(usage(format!("the export's {what} is longer than {MAX_STRING} bytes")));
        }
    }
    let opening = opening(&cli, snapshot.is_some())?;
    let export = ExportOptions {
        name,
        description: cli.description.clone(),
        writable: !opening.read_only,
        multi_conn: max_clients != 1,
        allocation_depth: cli.allocation_depth,
        // The reference shows the last one first, and clients may rely on it.
        bitmaps: cli.bitmap.iter().rev().cloned().collect(),
        cache: opening.cache,
    };
    Ok(Plan::Serve(Box::new(ServePlan {
        place,
        insecure: cli.insecure || !program.is_own(),
        opening,
        image,
        offset,
        snapshot,
        export,
        max_clients,
        persistent: cli.persistent,
        handshake_limit: (handshake_limit > 0).then(|| Duration::from_secs(handshake_limit)),
        is_background: cli.fork || device.is_some() && !cli.verbose,
        device,
        policy: cli.policy.policy()?,
        tls: cli.tls_creds,
        authorizer: cli.tls_authz,
        objects: cli.objects,
        pid_file: cli.pid_file,
        selinux_label: cli.selinux_label,
        verbose: cli.verbose,
    })))
}

fn place(program: Program, cli: &Cli) -> Result<Place> {
    if activation::is_offered()? {
        let own = cli.connect.is_some()
            || cli.socket.is_some()
            || cli.bind.is_some()
            || cli.port.is_some()
            || cli.vsock.is_some()
            || cli.selinux_label.is_some();
        if own {
            return Err(usage(
                "the service manager passes a socket, which excludes --connect, --socket, --bind, \
                 --port, --vsock and --selinux-label",
            ));
        }
        return Ok(Place::Inherited);
    }
    let Some(device) = cli.connect.as_ref().filter(|_| cli.socket.is_none()) else {
        let fallback = if program.is_own() { "127.0.0.1" } else { "0.0.0.0" };
        return address(cli, fallback).map(Place::Address);
    };
    if cli.port.is_some() || cli.bind.is_some() || cli.vsock.is_some() {
        return Err(usage("--connect excludes --port, --bind and --vsock"));
    }
    let name = device.rsplit('/').next().unwrap_or(device);
    let path = format!("{LOCK_DIRECTORY}/qemu-nbd-{name}");
    Ok(Place::Address(Address::Unix(path.into())))
}

fn once<'a>(option: &str, given: &'a [String]) -> Result<Option<&'a str>> {
    match given {
        [] => Ok(None),
        [word] => Ok(Some(word)),
        _ => Err(usage(format!("{option} may be given once only"))),
    }
}

fn opening(cli: &Cli, shows_snapshot: bool) -> Result<Opening> {
    if cli.nocache && !cli.cache.is_empty() {
        return Err(usage("--nocache and --cache exclude each other"));
    }
    if cli.image_opts && cli.format.is_some() {
        return Err(usage("--image-opts and --format exclude each other; give driver=… instead"));
    }
    let cache = if cli.nocache { Some("none") } else { once("--cache", &cli.cache)? };
    let discards = once("--discard", &cli.discard)?.map_or(Ok(false), unmap)?;
    let detect_zeroes = cli.detect_zeroes.as_deref().map_or(Ok(DetectZeroes::Off), |word| {
        DetectZeroes::from_word(word).ok_or_else(|| {
            usage(format!("there is no way '{word}' to detect zeroes; there are off, on and unmap"))
        })
    })?;
    if detect_zeroes == DetectZeroes::Unmap && !discards {
        return Err(usage("--detect-zeroes=unmap needs --discard=unmap"));
    }
    Ok(Opening {
        format: cli.format.clone(),
        image_opts: cli.image_opts,
        read_only: cli.read_only || shows_snapshot,
        snapshot: cli.snapshot,
        cache: cache_or(cache, CacheMode::Writeback)?,
        aio: once("--aio", &cli.aio)?.map_or(Ok(Aio::Auto), aio)?,
        unmap: discards,
        detect_zeroes,
        ..Opening::default()
    })
}
