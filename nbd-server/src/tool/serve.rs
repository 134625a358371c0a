//! Serving an image, from opening it to closing it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use cairn_block::engine::EngineConfig;
use cairn_block::graph::{Graph, Node, NodeFlags, OpenOptions};
use cairn_block::options::Dict;
use cairn_block::tls::Endpoint;
use cairn_img::cli::{Program, objects};
use cairn_img::runtime::{self, Ending};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempPath;

use super::plan::{Place, ServePlan};
use super::{activation, background, device};
use crate::error::{Error, Result};
use crate::export::{Export, Exports};
use crate::listen::{Address, Listener};
use crate::notices::Notices;
use crate::server::{Server, ServerOptions};

/// Serves until the last client has left, or a signal ends it.
pub(super) fn serve(program: Program, plan: ServePlan) -> Result<()> {
    open_many_files();
    let config = EngineConfig::default();
    runtime::run(&config, async { Ok(serve_here(program, plan).await) })?
}

/// Lets the process have as many clients as the system allows: the usual limit, which is for programs that wait with
/// `select`, is below what handshakes alone may take.
fn open_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // Fewer clients are no reason not to serve.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

async fn serve_here(program: Program, mut plan: ServePlan) -> Result<()> {
    let graph = runtime::graph(plan.policy.clone());
    objects::create(&graph, &plan.objects)?;
    let notices = notices(program, plan.verbose);
    let tls = plan.tls.as_deref().map(|id| graph.tls_credentials().find(id)).transpose()?;
    if let Some(creds) = &tls {
        creds.check_endpoint(Endpoint::Server)?;
    }
    let authorizer = plan.authorizer.as_deref().map(|id| graph.authorizers().find(id));
    let mut ending = Ending::new().map_err(Error::system("watch for signals"))?;
    let listener = listen(&plan, program)?;
    let (node, scratch) = open(&graph, &mut plan).await?;
    let name = plan.export.name.clone();
    let exports = Arc::new(Exports::default());
    exports.add(Export::new(&graph, node, plan.export).await?)?;
    let options = ServerOptions {
        max_clients: plan.max_clients,
        handshake_limit: plan.handshake_limit,
        persistent: plan.persistent,
        tls,
        authorizer: authorizer.transpose()?,
        notices,
        ..ServerOptions::default()
    };
    let server = Server::new(Arc::clone(&exports), options);
    let result = {
        let running = server.run(&listener);
        let mut running = std::pin::pin!(running);
        let attached = async {
            match (&plan.device, &plan.place) {
                (Some(device), Place::Address(Address::Unix(path))) => {
                    device::attach(device, path, &name).await
                }
                _ => Ok(()),
            }
        };
        let started = tokio::select! {
            result = &mut running => result,
            result = attached => result,
        };
        match started
            .and_then(|()| begun(plan.pid_file.as_deref(), plan.is_background, plan.verbose))
        {
            Ok(()) => tokio::select! {
                result = &mut running => result,
                _ = ending.recv() => {
                    if let Some(device) = &plan.device {
                        device::detach(device)?;
                    }
                    server.stop();
                    running.await
                }
            },
            Err(error) => Err(error),
        }
    };
    drop(listener);
    if let Some(path) = &plan.pid_file {
        // It may never have been written.
        let _ = std::fs::remove_file(path);
    }
    drop(server);
    let closed = close(&exports, &name).await;
    drop(scratch);
    result.and(closed)
}

async fn close(exports: &Exports, name: &str) -> Result<()> {
    let Some(export) = exports.remove(name) else { return Ok(()) };
    match Arc::try_unwrap(export) {
        Ok(export) => export.close().await,
        // Somebody still uses it; what was written must be safe all the same.
        Err(export) => Ok(export.backend().flush().await?),
    }
}

fn notices(program: Program, verbose: bool) -> Notices {
    if !verbose {
        return Notices::default();
    }
    Notices::to(move |line| eprintln!("{}: {line}", program.name()))
}

fn listen(plan: &ServePlan, program: Program) -> Result<Listener> {
    let address = match &plan.place {
        Place::Inherited => return Listener::inherited(activation::take()?),
        Place::Address(address) => address,
    };
    let _label = plan.selinux_label.as_deref().map(SocketLabel::set).transpose()?;
    let listener = Listener::bind(address)?;
    if listener.is_remote() && plan.tls.is_none() {
        if !plan.insecure {
            return Err(Error::Usage(format!(
                "{address} can be reached by other machines, and without TLS anybody there can read \
                 and write the image; give --tls-creds, bind to this machine only, or accept that \
                 with --insecure"
            )));
        }
        notices(program, plan.verbose).tell(format_args!(
            "WARNING: {address} can be reached by other machines, and the server uses no TLS"
        ));
    }
    Ok(listener)
}

/// The SELinux label that sockets of this thread get, until this is dropped (proc(5), attr/sockcreate).
struct SocketLabel;

/// Where the label is set.
const LABEL_FILE: &str = "/proc/thread-self/attr/sockcreate";

impl SocketLabel {
    fn set(label: &str) -> Result<SocketLabel> {
        let failed = Error::system(format!("label sockets '{label}' (is SELinux enabled?)"));
        std::fs::write(LABEL_FILE, label).map_err(failed)?;
        Ok(SocketLabel)
    }
}

impl Drop for SocketLabel {
    fn drop(&mut self) {
        // An empty text restores the default; it was set a moment ago, so it can be set.
        let _ = std::fs::write(LABEL_FILE, "");
    }
}

/// Opens the image as the node that is exported.
async fn open(graph: &Arc<Graph>, plan: &mut ServePlan) -> Result<(Arc<Node>, Option<TempPath>)> {
    plan.opening.name = Some(plan.image.clone());
    let (node, scratch) = plan.opening.open_node(graph).await?;
    if let Some(snapshot) = plan.snapshot.take() {
        node.driver().show_snapshot(snapshot).await?;
    }
    if plan.offset == 0 {
        return Ok((node, scratch));
    }
    if plan.offset >= node.size() {
        return Err(Error::Usage(format!(
            "the offset {} is not below the image's size of {} bytes",
            plan.offset,
            node.size()
        )));
    }
    let mut options = Dict::from([("driver", "raw"), ("file", node.name())]);
    options.insert("offset", plan.offset);
    let flags = NodeFlags { read_only: plan.opening.read_only, ..node.flags() };
    let window = graph.open(OpenOptions { filename: None, options, flags }).await?;
    Ok((window, scratch))
}

/// Tells those who wait that clients can connect.
fn begun(pid_file: Option<&Path>, is_background: bool, verbose: bool) -> Result<()> {
    if let Some(path) = pid_file {
        write_pid(path).map_err(Error::system(format!("write '{}'", path.display())))?;
    }
    if is_background {
        background::detach()?;
        background::ready(verbose)?;
    }
    Ok(())
}

/// Writes the process ID; the file appears with its content.
fn write_pid(path: &Path) -> io::Result<()> {
    let pid = rustix::process::getpid().as_raw_nonzero();
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".cairn-nbd.")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)?;
    io::Write::write_all(&mut file, format!("{pid}\n").as_bytes())?;
    file.persist(path)?;
    Ok(())
}
