//! The server: accepts clients, and spreads them over I/O threads.
//!
//! Handshakes have slots of their own and a deadline, and the oldest one gives way when all slots are
//! taken, so that clients which connect and say nothing keep nobody out. A client takes one of the
//! server's slots when it begins transmission; while all are taken, it waits there.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use cairn_block::authz::Authorizer;
use cairn_block::engine::{EngineConfig, IoThread, run_blocking, spawn_local, sys};
use cairn_block::tls::TlsCreds;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::export::Exports;
use crate::handshake::{Terms, handshake};
use crate::listen::{Accepted, Acceptor, Listener};
use crate::notices::Notices;
use crate::stream::BoxStream;
use crate::transmission::transmit;

/// Handshakes at a time. One that waits costs a file descriptor and a few KiB.
const HANDSHAKES: usize = 4096;
/// Different time limits of handshakes.
const STAGGER: u32 = 256;
/// How long clients that are told to leave may take to receive what they are owed.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long after a client has left its memory is given back to the system, with that of others that leave
/// meanwhile.
const CLEANUP: Duration = Duration::from_secs(1);
/// How long to wait after the system refused to accept a client, for want of file descriptors say.
const PAUSE: Duration = Duration::from_millis(100);

/// How a server treats its clients.
#[derive(Clone)]
pub struct ServerOptions {
    /// Clients that use exports at a time; 0 for any number.
    pub max_clients: usize,
    /// How long a handshake may take; `None` for ever.
    pub handshake_limit: Option<Duration>,
    /// Goes on when the last client has left.
    pub persistent: bool,
    /// TLS is required if this is there.
    pub tls: Option<Arc<TlsCreds>>,
    /// Who may use the server; needs TLS.
    pub authorizer: Option<Arc<Authorizer>>,
    /// I/O threads that serve clients; 0 for as many as there are processors.
    pub threads: usize,
    /// Who wants to hear of failures.
    pub notices: Notices,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            max_clients: 100,
            handshake_limit: Some(Duration::from_secs(10)),
            persistent: true,
            tls: None,
            authorizer: None,
            threads: 0,
            notices: Notices::default(),
        }
    }
}

/// Serves exports until it is told to stop, or until the last client has left if it is not persistent.
pub struct Server {
    terms: Terms,
    options: ServerOptions,
    clients: Arc<Semaphore>,
    stop: watch::Sender<bool>,
}

/// What all connections of a server need.
#[derive(Clone)]
struct Connection {
    terms: Terms,
    limit: Option<Duration>,
    clients: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

/// I/O threads, the first of which is the one that accepts.
struct Threads {
    others: RefCell<Vec<IoThread>>,
    most: usize,
    next: Cell<usize>,
}

impl Server {
    /// A server of `exports`.
    pub fn new(exports: Arc<Exports>, options: ServerOptions) -> Server {
        let terms = Terms {
            exports,
            tls: options.tls.clone(),
            authorizer: options.authorizer.clone(),
            notices: options.notices.clone(),
        };
        let slots = match options.max_clients {
            0 => Semaphore::MAX_PERMITS,
            most => most.min(Semaphore::MAX_PERMITS),
        };
        let stop = watch::Sender::new(false);
        Server { terms, clients: Arc::new(Semaphore::new(slots)), stop, options }
    }

    /// Tells the server, and its clients, that it is over. What was begun is completed.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Serves one client over a stream that is connected already, and returns when it has left. To be
    /// called on an I/O thread.
    pub async fn serve(&self, stream: BoxStream) -> io::Result<()> {
        let mut was_client = false;
        self.connection().converse(stream, None, &mut was_client).await
    }

    fn connection(&self) -> Connection {
        Connection {
            terms: self.terms.clone(),
            limit: self.options.handshake_limit,
            clients: Arc::clone(&self.clients),
            stop: self.stop.subscribe(),
        }
    }

    /// Accepts clients and serves them. To be called on an I/O thread.
    pub async fn run(&self, listener: &Listener) -> Result<()> {
        let sockets = listener.register().map_err(Error::system("wait for clients"))?;
        let mut accepting: FuturesUnordered<_> = sockets.iter().map(accept).collect();
        let threads = Threads::new(self.options.threads, self.options.max_clients);
        let mut handshakes = Handshakes::new();
        let connection = self.connection();
        let mut stopped = self.stop.subscribe();
        let open = Rc::new(Open::default());
        let mut accepted_so_far = 0u32;
        loop {
            let slot = tokio::select! {
                slot = handshakes.slot() => slot,
                () = stop_of(&mut stopped) => break,
                () = open.is_over(), if !self.options.persistent => break,
            };
            let accepted = tokio::select! {
                Some(result) = accepting.next() => {
                    let (acceptor, result) = result;
                    accepting.push(accept(acceptor));
                    result
                }
                () = stop_of(&mut stopped) => break,
                () = open.is_over(), if !self.options.persistent => break,
            };
            match accepted {
                Ok(accepted) => {
                    open.enter();
                    let open = Rc::clone(&open);
                    let limit = connection.limit.map(|limit| staggered(limit, accepted_so_far));
                    accepted_so_far = accepted_so_far.wrapping_add(1);
                    let connection = Connection { limit, ..connection.clone() };
                    let notices = connection.terms.notices.clone();
                    let served = threads.run(connection, accepted, slot)?;
                    spawn_local(async move {
                        let outcome = served.await;
                        if let Some(error) = &outcome.error {
                            notices.tell(format_args!("a client was disconnected: {error}"));
                        }
                        open.leave(outcome.was_client);
                        if outcome.was_client {
                            open.clean_up().await;
                        }
                    });
                    // However many come at once, those that are here are served in between.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    self.options.notices.tell(format_args!("cannot accept a client: {error}"));
                    handshakes.give_way();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        self.stop();
        // Connections end by themselves, at the latest when they are overdue and have had time for TLS to
        // say so.
        open.is_empty().await;
        Ok(())
    }
}

/// The time limit of the handshake number `number`: up to a tenth more than `limit`, so that connections
/// which came together and say nothing do not all end at one moment, at the cost of those in use.
fn staggered(limit: Duration, number: u32) -> Duration {
    limit + limit / 10 * (number % STAGGER) / STAGGER
}

async fn accept(acceptor: &Acceptor) -> (&Acceptor, io::Result<Accepted>) {
    (acceptor, acceptor.accept().await)
}

async fn stop_of(stop: &mut watch::Receiver<bool>) {
    // A server that is gone has stopped as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Waits until a client that is told to leave should be gone.
async fn overdue(mut stop: watch::Receiver<bool>) {
    stop_of(&mut stop).await;
    tokio::time::sleep(FAREWELL).await;
}

/// The connections that are open.
#[derive(Default)]
struct Open {
    count: Cell<usize>,
    /// A client has used an export.
    had_client: Cell<bool>,
    /// A task will give memory back.
    cleaning: Cell<bool>,
    changed: Notify,
}

impl Open {
    fn enter(&self) {
        self.count.set(self.count.get() + 1);
    }

    fn leave(&self, was_client: bool) {
        self.count.set(self.count.get().saturating_sub(1));
        self.had_client.set(self.had_client.get() || was_client);
        self.changed.notify_waiters();
    }

    /// Gives the memory of clients that have left back to the system.
    async fn clean_up(&self) {
        if !self.cleaning.replace(true) {
            tokio::time::sleep(CLEANUP).await;
            self.cleaning.set(false);
            run_blocking(sys::give_memory_back).await;
        }
    }

    async fn is_empty(&self) {
        loop {
            let changed = self.changed.notified();
            if self.count.get() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Waits until the last of at least one client has left.
    async fn is_over(&self) {
        loop {
            let changed = self.changed.notified();
            if self.count.get() == 0 && self.had_client.get() {
                return;
            }
            changed.await;
        }
    }
}

/// The handshakes under way.
struct Handshakes {
    slots: Arc<Semaphore>,
    /// Oldest first. Those that are over are left in it for a while.
    begun: VecDeque<Weak<Notify>>,
}

/// The right to a handshake.
struct Slot {
    _permit: OwnedSemaphorePermit,
    /// Others need the slot.
    give_way: Arc<Notify>,
}

impl Handshakes {
    fn new() -> Handshakes {
        Handshakes { slots: Arc::new(Semaphore::new(HANDSHAKES)), begun: VecDeque::new() }
    }

    /// A slot; the oldest handshake ends for it if all are taken.
    async fn slot(&mut self) -> Slot {
        loop {
            if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
                if self.begun.len() >= 2 * HANDSHAKES {
                    self.begun.retain(|slot| slot.strong_count() > 0);
                }
                let give_way = Arc::new(Notify::new());
                self.begun.push_back(Arc::downgrade(&give_way));
                return Slot { _permit: permit, give_way };
            }
            self.give_way();
            // Any slot that comes free will do; it is taken at the next turn.
            let _ = self.slots.acquire().await;
        }
    }

    /// Ends the oldest handshake.
    fn give_way(&mut self) {
        while let Some(slot) = self.begun.pop_front() {
            if let Some(give_way) = slot.upgrade() {
                give_way.notify_one();
                return;
            }
        }
    }
}

/// Waits until others need the slot, which may be for ever.
async fn gives_way(slot: Option<&Slot>) {
    match slot {
        Some(slot) => slot.give_way.notified().await,
        None => std::future::pending().await,
    }
}

/// How a connection went.
struct Outcome {
    /// It got as far as using an export.
    was_client: bool,
    error: Option<io::Error>,
}

impl Threads {
    fn new(wanted: usize, max_clients: usize) -> Threads {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let most = if wanted == 0 { processors() } else { wanted };
        let most = if max_clients == 0 { most } else { most.min(max_clients) };
        Threads { others: RefCell::default(), most, next: Cell::new(0) }
    }

    /// Serves a connection on the next thread.
    fn run(
        &self,
        connection: Connection,
        accepted: Accepted,
        slot: Slot,
    ) -> Result<std::pin::Pin<Box<dyn Future<Output = Outcome>>>> {
        let turn = self.next.get();
        self.next.set((turn + 1) % self.most);
        let Some(other) = turn.checked_sub(1) else {
            return Ok(Box::pin(connection.serve(accepted, slot)));
        };
        let mut others = self.others.borrow_mut();
        while others.len() <= other {
            let name = format!("nbd-{}", others.len() + 1);
            let thread = IoThread::spawn(&name, EngineConfig::default());
            others.push(thread.map_err(Error::system("start an I/O thread"))?);
        }
        match others.get(other) {
            Some(thread) => Ok(Box::pin(thread.run(move || connection.serve(accepted, slot)))),
            None => Ok(Box::pin(connection.serve(accepted, slot))),
        }
    }
}

impl Connection {
    async fn serve(self, accepted: Accepted, slot: Slot) -> Outcome {
        let mut was_client = false;
        let result = match accepted.into_stream() {
            Ok(stream) => self.converse(stream, Some(slot), &mut was_client).await,
            Err(error) => Err(error),
        };
        Outcome { was_client, error: result.err() }
    }

    /// Serves a client; its slot for the handshake is free again when transmission begins.
    async fn converse(
        mut self,
        stream: BoxStream,
        slot: Option<Slot>,
        was_client: &mut bool,
    ) -> io::Result<()> {
        let negotiation = handshake(stream, &self.terms);
        let negotiated = async {
            match self.limit {
                Some(limit) => timeout(limit, negotiation).await.unwrap_or_else(|_| {
                    Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"))
                }),
                None => negotiation.await,
            }
        };
        let mut stop = self.stop.clone();
        let ready_client = async {
            let Some(ready) = negotiated.await? else { return io::Result::Ok(None) };
            let client = Arc::clone(&self.clients).acquire_owned().await;
            Ok(Some(ready).zip(client.ok()))
        };
        let begun = tokio::select! {
            begun = ready_client => begun?,
            () = stop_of(&mut stop) => None,
            () = gives_way(slot.as_ref()) => {
                let text = "its handshake gave way to that of another client";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        };
        let Some((mut ready, client)) = begun else { return Ok(()) };
        drop(slot);
        *was_client = true;
        ready.begin().await?;
        let result = tokio::select! {
            result = transmit(&mut ready.stream, ready.session, stop_of(&mut self.stop)) => result,
            () = overdue(stop) => Ok(()),
        };
        // TLS has a farewell of its own. The client may be gone, or not listen any more.
        let _ = timeout(FAREWELL, ready.stream.shutdown()).await;
        drop(client);
        result
    }
}
