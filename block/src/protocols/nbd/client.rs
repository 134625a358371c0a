//! The connections to one server: which of them takes a request, when more are opened, and how a lost
//! server is found again.
//!
//! Where the server allows it, every I/O thread gets connections of its own, so that its requests
//! never wake another thread; they are opened when requests begin to overlap. Otherwise all threads
//! share one. While no connection is left the server is *down*: one task tries to reach it, requests
//! wait for `reconnect-delay` since the loss and are then made again, and fail at once afterwards.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use arc_swap::ArcSwap;
use cairn_nbd_wire::{Command, CommandFlags, ExportFlags};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connection::Connection;
use super::handshake::{Export, Wanted, negotiate};
use super::options::Address;
use super::request::{Body, Done, Failure, Refusal, Request};
use super::stream::{Socket, Stream};
use crate::engine::spawn_local;
use crate::error::{Error, Op, Result};
use crate::tls::TlsCreds;

/// A server has this long for a handshake, unless the user has set a time.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Pause between two attempts to reach a server: the first one, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// Exports smaller than this are read sooner than more connections are made. In bytes.
const MIN_SHARED_SIZE: u64 = 16 << 20;
/// Connections to one server at most, over all threads.
const MAX_CONNECTIONS: usize = 16;

/// Where a server is and how it is to be spoken to.
pub(super) struct Config {
    /// What messages call the server's export.
    pub(super) label: String,
    pub(super) address: Address,
    pub(super) export: String,
    /// Metadata context for block status.
    pub(super) context: String,
    pub(super) tls: Option<Arc<TlsCreds>>,
    /// Name that the server's certificate must have.
    pub(super) hostname: Option<String>,
    /// For how long requests wait for a lost server.
    pub(super) reconnect_delay: Duration,
    /// For how long opening tries to reach the server; zero for one attempt.
    pub(super) open_timeout: Duration,
    /// Connections that one thread opens at most.
    pub(super) connections: usize,
}

/// Whether the server can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Up,
    /// Since then.
    Down(Instant),
    /// The node is closed.
    Closed,
}

/// The client of one export.
pub(super) struct Client {
    config: Config,
    export: Export,
    connections: ArcSwap<Vec<Arc<Connection>>>,
    link: watch::Sender<Link>,
    /// Held while `connections` and `link` change together.
    changes: Mutex<()>,
    /// A task tries to reach the server.
    reconnecting: AtomicBool,
    /// Threads that are opening more connections.
    growing: Mutex<HashSet<ThreadId>>,
    /// The server did not accept more connections.
    full: AtomicBool,
    /// Why the last connection ended, as a clause that follows "the server".
    fault: Mutex<String>,
}

/// Connects and agrees on the export, within `limit`.
async fn attempt(config: &Config, limit: Duration) -> Result<(Box<dyn Stream>, Export)> {
    let wanted = Wanted { label: &config.label, export: &config.export, context: &config.context };
    let attempt = async {
        let socket = Socket::connect(&config.address)
            .await
            .map_err(|error| Error::os(Op::Open, &config.label, None, error))?;
        let tls = config.tls.as_deref().map(|creds| (creds, config.hostname.as_deref()));
        negotiate(socket, &wanted, tls).await
    };
    timeout(limit, attempt).await.unwrap_or_else(|_| {
        Err(Error::Server {
            node: config.label.clone(),
            problem: format!(
                "did not answer within {} seconds (the option open-timeout sets another time)",
                limit.as_secs_f32().round()
            ),
            errno: libc::ETIMEDOUT,
        })
    })
}

impl Client {
    /// Reaches the server, trying again for as long as the configuration says.
    pub(super) async fn open(config: Config) -> Result<Arc<Client>> {
        let deadline = Instant::now() + config.open_timeout;
        let mut pause = FIRST_PAUSE;
        let (stream, export) = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = if config.open_timeout.is_zero() { HANDSHAKE } else { left };
            let error = match attempt(&config, limit).await {
                Ok(reached) => break reached,
                Err(error) => error,
            };
            sleep_until(deadline.min(Instant::now() + pause)).await;
            if Instant::now() >= deadline || !config.address.can_reconnect() {
                return Err(error);
            }
            pause = (pause * 2).min(LAST_PAUSE);
        };
        let client = Arc::new(Client {
            config,
            export: export.clone(),
            connections: ArcSwap::default(),
            link: watch::Sender::new(Link::Up),
            changes: Mutex::new(()),
            reconnecting: AtomicBool::new(false),
            growing: Mutex::default(),
            full: AtomicBool::new(false),
            fault: Mutex::default(),
        });
        client.adopt(stream, export);
        Ok(client)
    }

    /// The export, as it was when the client was made.
    pub(super) fn export(&self) -> &Export {
        &self.export
    }

    /// What messages call the export.
    pub(super) fn label(&self) -> &str {
        &self.config.label
    }

    /// Runs a connection over `stream` on the current thread.
    fn adopt(self: &Arc<Client>, stream: Box<dyn Stream>, export: Export) {
        let connection = Connection::new();
        {
            let _changes = self.changes.lock();
            if *self.link.borrow() == Link::Closed {
                return;
            }
            let mut list = self.connections.load().to_vec();
            list.push(Arc::clone(&connection));
            self.connections.store(Arc::new(list));
            self.link.send_replace(Link::Up);
        }
        let membership =
            Membership { client: Arc::downgrade(self), connection: Arc::clone(&connection) };
        spawn_local(async move {
            let fault = connection.run(stream, Arc::new(export)).await;
            let Some(client) = membership.client.upgrade() else { return };
            if let Some(fault) = fault {
                *client.fault.lock() = fault.to_string();
            }
            drop(membership);
            if matches!(*client.link.borrow(), Link::Down(_)) {
                client.reconnect();
            }
        });
    }

    /// Forgets a connection that has ended.
    fn dismiss(&self, connection: &Arc<Connection>) {
        let _changes = self.changes.lock();
        let mut list = self.connections.load().to_vec();
        list.retain(|other| !Arc::ptr_eq(other, connection));
        let last = list.is_empty();
        self.connections.store(Arc::new(list));
        if last && *self.link.borrow() == Link::Up {
            self.link.send_replace(Link::Down(Instant::now()));
        }
    }

    /// Tries to reach the server again, in the background, unless that is being done.
    fn reconnect(self: &Arc<Client>) {
        if !self.config.address.can_reconnect() || self.reconnecting.swap(true, Ordering::AcqRel) {
            return;
        }
        let searching = Searching(Arc::downgrade(self));
        let mut link = self.link.subscribe();
        spawn_local(async move {
            tokio::select! {
                () = search(&searching.0) => {}
                _ = link.wait_for(|link| *link == Link::Closed) => {}
            }
            drop(searching);
        });
    }

    /// Whether a connection with this export can take the place of the first one.
    fn fits(&self, export: &Export) -> bool {
        let alignment = |export: &Export| export.sizes.map_or(1, |sizes| sizes.min);
        export.size >= self.export.size
            && export.flags.contains(self.export.flags - ExportFlags::CAN_MULTI_CONN)
            && export.flags.contains(ExportFlags::READ_ONLY)
                == self.export.flags.contains(ExportFlags::READ_ONLY)
            && export.style >= self.export.style
            && export.context.is_some() == self.export.context.is_some()
            && (alignment(export) <= alignment(&self.export))
    }

    /// Connections that a thread may have.
    fn most_connections(&self) -> usize {
        let shared = self.export.flags.contains(ExportFlags::CAN_MULTI_CONN)
            && self.export.size >= MIN_SHARED_SIZE
            && self.config.address.can_reconnect()
            && !self.full.load(Ordering::Relaxed);
        if shared { self.config.connections } else { 1 }
    }

    /// The connection with least to do, one of this thread if it has any.
    fn pick(self: &Arc<Client>) -> Option<Arc<Connection>> {
        let list = self.connections.load();
        let here = thread::current().id();
        let own = || list.iter().filter(|connection| connection.thread() == here);
        let chosen = own()
            .min_by_key(|connection| connection.load())
            .or_else(|| list.iter().min_by_key(|connection| connection.load()))?;
        let busy = chosen.load() > 0 || chosen.thread() != here;
        if busy && list.len() < MAX_CONNECTIONS && self.most_connections() > 1 {
            let count = own().count();
            if count < self.most_connections() {
                self.grow(here, self.most_connections() - count);
            }
        }
        Some(Arc::clone(chosen))
    }

    /// Opens `more` connections on this thread, in the background.
    fn grow(self: &Arc<Client>, here: ThreadId, more: usize) {
        if !self.growing.lock().insert(here) {
            return;
        }
        let growing = Growing(Arc::downgrade(self), here);
        let mut link = self.link.subscribe();
        spawn_local(async move {
            let open = async {
                for _ in 0..more {
                    let Some(client) = growing.0.upgrade() else { return };
                    if client.connections.load().len() >= MAX_CONNECTIONS {
                        return;
                    }
                    match attempt(&client.config, HANDSHAKE).await {
                        Ok((stream, export)) if client.fits(&export) => {
                            client.adopt(stream, export);
                        }
                        _ => client.full.store(true, Ordering::Relaxed),
                    }
                }
            };
            tokio::select! {
                () = open => {}
                _ = link.wait_for(|link| *link != Link::Up) => {}
            }
            drop(growing);
        });
    }

    /// A connection to make a request on. Waits for a lost server as long as the configuration says;
    /// `None` if it has not come back by then.
    async fn connection(self: &Arc<Client>) -> Option<Arc<Connection>> {
        loop {
            if let Some(connection) = self.pick() {
                return Some(connection);
            }
            let mut link = self.link.subscribe();
            let state = *link.borrow_and_update();
            let until = match state {
                Link::Closed => return None,
                Link::Up => continue,
                Link::Down(since) => since + self.config.reconnect_delay,
            };
            self.reconnect();
            if Instant::now() >= until || !self.config.address.can_reconnect() {
                return None;
            }
            tokio::select! {
                _ = link.changed() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// Makes a request, again if the server is lost meanwhile and comes back in time.
    pub(super) async fn request(
        self: &Arc<Client>,
        op: Op,
        command: Command,
        flags: CommandFlags,
        (offset, len): (u64, u64),
        mut body: Body,
    ) -> Result<Done> {
        loop {
            let Some(connection) = self.connection().await else { return Err(self.lost()) };
            let (body_again, room) = match &body {
                Body::None => (Some(Body::None), None),
                Body::Status => (Some(Body::Status), None),
                Body::Write(buf) => (Some(Body::Write(buf.clone())), None),
                Body::Read(buf) => (None, Some(buf.len())),
            };
            let request = Request { command, flags, offset, len, body };
            let buf = match connection.request(request).await {
                Ok(done) => return Ok(done),
                Err(Failure::Refused(refusal)) => return Err(self.refused(op, offset, &refusal)),
                Err(Failure::Lost(buf)) => buf,
            };
            if self.config.reconnect_delay.is_zero() {
                return Err(self.lost());
            }
            body = match (body_again, buf, room) {
                (Some(body), ..) => body,
                (None, Some(buf), _) => Body::Read(buf),
                (None, None, room) => {
                    Body::Read(crate::buf::IoBufMut::new(room.unwrap_or_default()))
                }
            };
        }
    }

    fn lost(&self) -> Error {
        let fault = self.fault.lock().clone();
        let problem = if fault.is_empty() { "is not reachable".to_owned() } else { fault };
        Error::Server { node: self.config.label.clone(), problem, errno: libc::EIO }
    }

    fn refused(&self, op: Op, offset: u64, refusal: &Refusal) -> Error {
        let source = std::io::Error::from_raw_os_error(refusal.errno.to_os());
        let error = Error::os(op, &self.config.label, Some(offset), source);
        if refusal.message.is_empty() {
            return error;
        }
        error.context(format!("the server reports '{refusal}'"))
    }

    /// Ends all connections.
    pub(super) async fn close(&self) {
        let list = {
            let _changes = self.changes.lock();
            self.link.send_replace(Link::Closed);
            self.connections.load_full()
        };
        join_all(list.iter().map(|connection| connection.close())).await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Connections that nobody has closed in order must not stay for ever.
        for connection in self.connections.load().iter() {
            connection.begin_close();
        }
    }
}

/// Tries to reach the server until it succeeds.
async fn search(client: &Weak<Client>) {
    let mut pause = FIRST_PAUSE;
    loop {
        {
            let Some(client) = client.upgrade() else { return };
            match attempt(&client.config, HANDSHAKE).await {
                Ok((stream, export)) if client.fits(&export) => {
                    client.full.store(false, Ordering::Relaxed);
                    client.adopt(stream, export);
                    return;
                }
                Ok(_) => {
                    "came back with another export".clone_into(&mut client.fault.lock());
                }
                Err(error) => *client.fault.lock() = format!("is not reachable: {error}"),
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// A connection in its client's list; leaves it when the connection's task ends or is dropped.
struct Membership {
    client: Weak<Client>,
    connection: Arc<Connection>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(client) = self.client.upgrade() {
            client.dismiss(&self.connection);
        }
    }
}

/// The task that tries to reach the server. When it ends, or its thread does, others may try.
struct Searching(Weak<Client>);

impl Drop for Searching {
    fn drop(&mut self) {
        if let Some(client) = self.0.upgrade() {
            client.reconnecting.store(false, Ordering::Release);
            // Those who wait look again, and take over if need be.
            client.link.send_modify(|_| ());
        }
    }
}

/// A thread that opens more connections.
struct Growing(Weak<Client>, ThreadId);

impl Drop for Growing {
    fn drop(&mut self) {
        if let Some(client) = self.0.upgrade() {
            client.growing.lock().remove(&self.1);
        }
    }
}
