//! TLS with pre-shared keys through the system's `libssl.so.3`, which rustls cannot do.
//!
//! The library is loaded when credentials with keys are first made, so that programs run where it is
//! missing. It does no I/O: it works on two memory BIOs, which [`SslStream`] fills from and empties
//! into an asynchronous stream. Both TLS 1.3 and 1.2 are offered; the old-style callbacks serve both
//! (OpenSSL 3.0, SSL_CTX_set_psk_client_callback(3)).
//!
//! Functions that the library exports are called with the signatures of its manual pages, on objects
//! that this module owns: [`Functions::load`] and the two owners [`Context`] and [`Session`] are the
//! places to look at.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll, ready};

use libloading::Library;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::secret::Secret;

/// Opaque objects of the library.
enum Ssl {}
enum SslCtx {}
enum SslMethod {}
enum Bio {}
enum BioMethod {}

type ClientCallback =
    unsafe extern "C" fn(*mut Ssl, *const c_char, *mut c_char, c_uint, *mut u8, c_uint) -> c_uint;
type ServerCallback = unsafe extern "C" fn(*mut Ssl, *const c_char, *mut u8, c_uint) -> c_uint;

macro_rules! functions {
    (
        crypto { $($crypto:ident($($crypto_argument:ty),*) $(-> $crypto_result:ty)?;)* }
        ssl { $($ssl:ident($($ssl_argument:ty),*) $(-> $ssl_result:ty)?;)* }
    ) => {
        /// Functions of libcrypto and libssl, by their own names.
        #[allow(non_snake_case)]
        struct Functions {
            $($crypto: unsafe extern "C" fn($($crypto_argument),*) $(-> $crypto_result)?,)*
            $($ssl: unsafe extern "C" fn($($ssl_argument),*) $(-> $ssl_result)?,)*
            /// Keep the code mapped.
            _libraries: [Library; 2],
        }

        impl Functions {
            fn load() -> Result<Functions, libloading::Error> {
                // SAFETY: the initialisers of OpenSSL's libraries have no preconditions.
                let crypto = unsafe { Library::new("libcrypto.so.3") }?;
                // SAFETY: as above.
                let ssl = unsafe { Library::new("libssl.so.3") }?;
                Ok(Functions {
                    $(
                        // SAFETY: the symbol is a function with this signature in every release with
                        // the ABI version 3 (its manual page), and the library stays mapped as long
                        // as the pointer can be called, since both are in one struct.
                        $crypto: unsafe { *crypto.get(concat!(stringify!($crypto), "\0"))? },
                    )*
                    $(
                        // SAFETY: as above.
                        $ssl: unsafe { *ssl.get(concat!(stringify!($ssl), "\0"))? },
                    )*
                    _libraries: [crypto, ssl],
                })
            }
        }
    };
}

functions! {
    crypto {
        BIO_new(*const BioMethod) -> *mut Bio;
        BIO_read(*mut Bio, *mut c_void, c_int) -> c_int;
        BIO_s_mem() -> *const BioMethod;
        BIO_write(*mut Bio, *const c_void, c_int) -> c_int;
        ERR_clear_error();
        ERR_error_string_n(c_ulong, *mut c_char, usize);
        ERR_get_error() -> c_ulong;
    }
    ssl {
        SSL_CTX_ctrl(*mut SslCtx, c_int, c_long, *mut c_void) -> c_long;
        SSL_CTX_free(*mut SslCtx);
        SSL_CTX_new(*const SslMethod) -> *mut SslCtx;
        SSL_CTX_set_cipher_list(*mut SslCtx, *const c_char) -> c_int;
        SSL_CTX_set_ciphersuites(*mut SslCtx, *const c_char) -> c_int;
        SSL_CTX_set_num_tickets(*mut SslCtx, usize) -> c_int;
        SSL_CTX_set_options(*mut SslCtx, u64) -> u64;
        SSL_CTX_set_psk_client_callback(*mut SslCtx, Option<ClientCallback>);
        SSL_CTX_set_psk_server_callback(*mut SslCtx, Option<ServerCallback>);
        SSL_do_handshake(*mut Ssl) -> c_int;
        SSL_free(*mut Ssl);
        SSL_get_error(*const Ssl, c_int) -> c_int;
        SSL_get_ex_data(*const Ssl, c_int) -> *mut c_void;
        SSL_new(*mut SslCtx) -> *mut Ssl;
        SSL_read(*mut Ssl, *mut c_void, c_int) -> c_int;
        SSL_set_accept_state(*mut Ssl);
        SSL_set_bio(*mut Ssl, *mut Bio, *mut Bio);
        SSL_set_connect_state(*mut Ssl);
        SSL_set_ex_data(*mut Ssl, c_int, *mut c_void) -> c_int;
        SSL_shutdown(*mut Ssl) -> c_int;
        SSL_write(*mut Ssl, *const c_void, c_int) -> c_int;
        TLS_method() -> *const SslMethod;
    }
}

/// Constants of openssl/ssl.h and openssl/tls1.h, release 3.0.
const SSL_CTRL_MODE: c_int = 33;
const SSL_CTRL_SET_SESS_CACHE_MODE: c_int = 44;
const SSL_CTRL_SET_MIN_PROTO_VERSION: c_int = 123;
const SSL_MODE_ENABLE_PARTIAL_WRITE: c_long = 1;
const SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER: c_long = 2;
const SSL_OP_NO_TICKET: u64 = 1 << 14;
const SSL_OP_NO_RENEGOTIATION: u64 = 1 << 30;
const SSL_SESS_CACHE_OFF: c_long = 0;
const TLS1_2_VERSION: c_long = 0x303;
const SSL_ERROR_SSL: c_int = 1;
const SSL_ERROR_WANT_READ: c_int = 2;
const SSL_ERROR_ZERO_RETURN: c_int = 6;

/// Place for the application's own pointer in an `SSL` (SSL_set_app_data(3)).
const APP_DATA: c_int = 0;

/// Key exchanges of TLS 1.2 with pre-shared keys, those with forward secrecy first.
const CIPHERS: &CStr = c"kECDHEPSK:kDHEPSK:kPSK:!eNULL";
/// Cipher suites of TLS 1.3 with the hash of keys from the old-style callbacks, SHA-256.
const CIPHERSUITES: &CStr = c"TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";

/// Bytes moved between a stream and the library at once: a TLS record with its overhead fits.
const CHUNK: usize = 17 << 10;
/// With more encrypted bytes than this waiting for the stream, nothing more is encrypted.
const MAX_WAITING: usize = 64 << 10;

/// The library; what is wrong with it if it cannot be used, as a clause.
fn library() -> Result<&'static Functions, String> {
    static LIBRARY: OnceLock<Result<Functions, String>> = OnceLock::new();
    let loaded = LIBRARY.get_or_init(|| {
        Functions::load().map_err(|error| {
            format!(
                "need OpenSSL 3 (libssl.so.3) for pre-shared keys, which cannot be loaded: {error}; \
                 install it or use tls-creds-x509"
            )
        })
    });
    loaded.as_ref().map_err(Clone::clone)
}

/// The pre-shared keys of one end.
pub(super) enum Keys {
    /// The name and key to present.
    Client {
        /// Name.
        identity: CString,
        /// Key.
        key: Secret,
    },
    /// The keys of all clients by name.
    Server(HashMap<Vec<u8>, Secret>),
}

/// Settings that all sessions of one end share.
pub(super) struct Context {
    functions: &'static Functions,
    /// Invariant: a valid `SSL_CTX` that this struct owns.
    ctx: NonNull<SslCtx>,
    keys: Keys,
}

// SAFETY: an `SSL_CTX` has no thread affinity, and after `Context::new` it is only used by `SSL_new`,
// which may be called by several threads at once (its reference count and its lists are atomic or
// locked: openssl-threads(7)). The keys are never changed.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is owned (see the field) and not used any more.
        unsafe { (self.functions.SSL_CTX_free)(self.ctx.as_ptr()) }
    }
}

impl Context {
    /// Settings for the end that has `keys`. The error is a clause that follows the name of the
    /// credentials.
    pub(super) fn new(keys: Keys) -> Result<Arc<Context>, String> {
        let functions = library()?;
        // SAFETY: `TLS_method` has no preconditions and returns a static object, which is what
        // `SSL_CTX_new` takes.
        let ctx = unsafe { (functions.SSL_CTX_new)((functions.TLS_method)()) };
        let Some(ctx) = NonNull::new(ctx) else { return Err(functions.last_error()) };
        let context = Context { functions, ctx, keys };
        context.configure()?;
        Ok(Arc::new(context))
    }

    fn configure(&self) -> Result<(), String> {
        let (functions, ctx) = (self.functions, self.ctx.as_ptr());
        let null = std::ptr::null_mut();
        let mode = SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER;
        // SAFETY: `ctx` is valid; these controls take a number and ignore the pointer
        // (SSL_CTX_ctrl(3) and the macros that stand for it).
        let done = unsafe {
            (functions.SSL_CTX_ctrl)(ctx, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, null) == 1
                && (functions.SSL_CTX_ctrl)(ctx, SSL_CTRL_MODE, mode, null) != 0
        };
        // SAFETY: as above; the old cache mode that it returns does not matter.
        unsafe {
            (functions.SSL_CTX_ctrl)(ctx, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF, null)
        };
        // SAFETY: `ctx` is valid and the texts end with a zero byte.
        let chosen = unsafe {
            (functions.SSL_CTX_set_options)(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
            (functions.SSL_CTX_set_num_tickets)(ctx, 0) == 1
                && (functions.SSL_CTX_set_cipher_list)(ctx, CIPHERS.as_ptr()) == 1
                && (functions.SSL_CTX_set_ciphersuites)(ctx, CIPHERSUITES.as_ptr()) == 1
        };
        if !(done && chosen) {
            return Err(format!("cannot be used: {}", functions.last_error()));
        }
        // SAFETY: `ctx` is valid; the callbacks have the signatures that are asked for and find
        // their data in the session, see `Session::new`.
        unsafe {
            match self.keys {
                Keys::Client { .. } => {
                    (functions.SSL_CTX_set_psk_client_callback)(ctx, Some(give_key));
                }
                Keys::Server(_) => {
                    (functions.SSL_CTX_set_psk_server_callback)(ctx, Some(find_key));
                }
            }
        }
        Ok(())
    }
}

impl Functions {
    /// The oldest error of this thread, as text; the others are forgotten.
    fn last_error(&self) -> String {
        let mut text = [0u8; 256];
        // SAFETY: the functions have no preconditions but that `text` has the length passed, and
        // they end it with a zero byte.
        unsafe {
            let code = (self.ERR_get_error)();
            (self.ERR_clear_error)();
            if code == 0 {
                return "the peer ended the connection".to_owned();
            }
            (self.ERR_error_string_n)(code, text.as_mut_ptr().cast(), text.len());
        }
        let text = CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy();
        // "error:CODE:library:function:reason"
        text.rsplit(':').next().unwrap_or(&text).to_owned()
    }
}

/// The keys for a session, in a callback.
///
/// # Safety
/// `ssl` is a session made by [`Session::new`], which has not been dropped.
unsafe fn keys_of<'a>(ssl: *const Ssl) -> Option<&'a Keys> {
    let functions = library().ok()?;
    // SAFETY: `ssl` is valid; the pointer was set by `Session::new` to a `Context` that lives as long
    // as the session, which is in use by this thread while the callback runs.
    unsafe {
        let context = (functions.SSL_get_ex_data)(ssl, APP_DATA).cast::<Context>();
        context.as_ref().map(|context| &context.keys)
    }
}

/// Copies a key out; 0, which means that there is none, if it does not fit.
///
/// # Safety
/// `to` has room for `room` bytes.
unsafe fn copy_key(key: &Secret, to: *mut u8, room: c_uint) -> c_uint {
    let key = key.expose();
    match c_uint::try_from(key.len()) {
        Ok(len) if len <= room => {
            // SAFETY: there is room for `len` bytes, by the check and the caller's promise; the
            // library's memory and ours do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(key.as_ptr(), to, key.len()) };
            len
        }
        _ => 0,
    }
}

/// Called by the library on the end that connects (SSL_CTX_set_psk_client_callback(3)).
unsafe extern "C" fn give_key(
    ssl: *mut Ssl,
    _hint: *const c_char,
    identity: *mut c_char,
    identity_room: c_uint,
    key: *mut u8,
    key_room: c_uint,
) -> c_uint {
    // SAFETY: the library passes the session at work.
    let Some(Keys::Client { identity: name, key: own }) = (unsafe { keys_of(ssl) }) else {
        return 0;
    };
    let name = name.as_bytes_with_nul();
    if name.len() > usize::try_from(identity_room).unwrap_or(0) {
        return 0;
    }
    // SAFETY: `identity` has `identity_room` bytes of room, enough by the check above; `key` has
    // `key_room`.
    unsafe {
        std::ptr::copy_nonoverlapping(name.as_ptr().cast(), identity, name.len());
        copy_key(own, key, key_room)
    }
}

/// Called by the library on the end that accepts (SSL_CTX_set_psk_server_callback(3)).
unsafe extern "C" fn find_key(
    ssl: *mut Ssl,
    identity: *const c_char,
    key: *mut u8,
    key_room: c_uint,
) -> c_uint {
    if identity.is_null() {
        return 0;
    }
    // SAFETY: the library passes the session at work and a text that ends with a zero byte.
    let (keys, name) = unsafe { (keys_of(ssl), CStr::from_ptr(identity)) };
    match keys {
        Some(Keys::Server(keys)) => match keys.get(name.to_bytes()) {
            // SAFETY: `key` has `key_room` bytes of room.
            Some(found) => unsafe { copy_key(found, key, key_room) },
            None => 0,
        },
        _ => 0,
    }
}

/// How far the library came.
enum Step {
    /// It moved so many bytes (0 for a finished handshake).
    Done(usize),
    /// The peer ended the session in order.
    Ended,
    /// It needs more from the peer.
    NeedsInput,
}

/// One TLS session without its transport.
struct Session {
    /// Invariant: a valid `SSL` that this struct owns, whose BIOs are `input` and `output`.
    ssl: NonNull<Ssl>,
    /// Invariant: a memory BIO owned by `ssl`. What the peer sent goes in.
    input: NonNull<Bio>,
    /// Invariant: a memory BIO owned by `ssl`. What is for the peer comes out.
    output: NonNull<Bio>,
    /// Outlives `ssl`, whose callbacks use it.
    context: Arc<Context>,
}

// SAFETY: an `SSL` may be used by any thread, one at a time (openssl-threads(7)); all uses need
// `&mut Session`. Its context is `Sync`.
unsafe impl Send for Session {}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the session is owned and not used any more; its BIOs go with it.
        unsafe { (self.context.functions.SSL_free)(self.ssl.as_ptr()) }
    }
}

impl Session {
    fn new(context: &Arc<Context>) -> io::Result<Session> {
        let functions = context.functions;
        let failed = || io::Error::other(functions.last_error());
        let memory_bio = || {
            // SAFETY: `BIO_s_mem` returns a static object, which is what `BIO_new` takes.
            NonNull::new(unsafe { (functions.BIO_new)((functions.BIO_s_mem)()) }).ok_or_else(failed)
        };
        // SAFETY: the context is valid.
        let ssl = unsafe { (functions.SSL_new)(context.ctx.as_ptr()) };
        let ssl = NonNull::new(ssl).ok_or_else(failed)?;
        let bios = memory_bio().and_then(|input| Ok((input, memory_bio()?)));
        let (input, output) = match bios {
            Ok(bios) => bios,
            Err(error) => {
                // SAFETY: the session is owned and dropped here.
                unsafe { (functions.SSL_free)(ssl.as_ptr()) };
                return Err(error);
            }
        };
        let data = Arc::as_ptr(context).cast_mut().cast();
        // SAFETY: all objects are valid; the session takes the BIOs over. The context is only read
        // through the pointer, and `self.context` keeps it.
        let stored = unsafe {
            (functions.SSL_set_bio)(ssl.as_ptr(), input.as_ptr(), output.as_ptr());
            match context.keys {
                Keys::Client { .. } => (functions.SSL_set_connect_state)(ssl.as_ptr()),
                Keys::Server(_) => (functions.SSL_set_accept_state)(ssl.as_ptr()),
            }
            (functions.SSL_set_ex_data)(ssl.as_ptr(), APP_DATA, data)
        };
        let session = Session { ssl, input, output, context: Arc::clone(context) };
        if stored == 1 { Ok(session) } else { Err(failed()) }
    }

    fn functions(&self) -> &'static Functions {
        self.context.functions
    }

    /// What the result of a call on the session means.
    fn step(&self, result: c_int) -> io::Result<Step> {
        if let Ok(moved) = usize::try_from(result)
            && moved > 0
        {
            return Ok(Step::Done(moved));
        }
        // SAFETY: the session is valid, and `result` is that of the last call on it.
        match unsafe { (self.functions().SSL_get_error)(self.ssl.as_ptr(), result) } {
            SSL_ERROR_WANT_READ => Ok(Step::NeedsInput),
            SSL_ERROR_ZERO_RETURN => Ok(Step::Ended),
            SSL_ERROR_SSL => {
                Err(io::Error::new(io::ErrorKind::InvalidData, self.functions().last_error()))
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn handshake(&mut self) -> io::Result<Step> {
        // SAFETY: the session is valid; errors of others on this thread must not count as its own.
        let result = unsafe {
            (self.functions().ERR_clear_error)();
            (self.functions().SSL_do_handshake)(self.ssl.as_ptr())
        };
        self.step(result)
    }

    fn read(&mut self, to: &mut [u8]) -> io::Result<Step> {
        if to.is_empty() {
            return Ok(Step::Done(0));
        }
        // SAFETY: the session is valid, and `to` has at least the length passed.
        let result = unsafe {
            (self.functions().ERR_clear_error)();
            (self.functions().SSL_read)(self.ssl.as_ptr(), to.as_mut_ptr().cast(), length(to))
        };
        self.step(result)
    }

    fn write(&mut self, from: &[u8]) -> io::Result<Step> {
        if from.is_empty() {
            return Ok(Step::Done(0));
        }
        // SAFETY: the session is valid, and `from` has at least the length passed.
        let result = unsafe {
            (self.functions().ERR_clear_error)();
            (self.functions().SSL_write)(self.ssl.as_ptr(), from.as_ptr().cast(), length(from))
        };
        self.step(result)
    }

    /// Says goodbye to the peer.
    fn end(&mut self) {
        // SAFETY: the session is valid. Whether the peer answers does not matter.
        unsafe {
            (self.functions().ERR_clear_error)();
            (self.functions().SSL_shutdown)(self.ssl.as_ptr());
        }
    }

    /// Passes on what the peer sent.
    fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // SAFETY: the BIO is valid, and `bytes` has at least the length passed.
            let taken = unsafe {
                let (bio, from) = (self.input.as_ptr(), bytes.as_ptr().cast());
                (self.functions().BIO_write)(bio, from, length(bytes))
            };
            let taken = usize::try_from(taken).ok().filter(|taken| *taken > 0);
            let taken = taken.ok_or(io::ErrorKind::OutOfMemory)?;
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Takes what is for the peer, as far as `to` has room.
    fn take_output(&mut self, to: &mut [u8]) -> usize {
        // SAFETY: the BIO is valid, and `to` has at least the length passed.
        let taken = unsafe {
            let bio = self.output.as_ptr();
            (self.functions().BIO_read)(bio, to.as_mut_ptr().cast(), length(to))
        };
        usize::try_from(taken).unwrap_or(0)
    }
}

/// The length of a buffer as the library takes it; the rest of a longer one is left for later.
fn length(buffer: &[u8]) -> c_int {
    c_int::try_from(buffer.len()).unwrap_or(c_int::MAX)
}

/// A TLS session over `stream`.
pub(super) struct SslStream<S> {
    session: Session,
    stream: S,
    /// Encrypted bytes for the stream, from `sent` on.
    waiting: Vec<u8>,
    sent: usize,
    /// Where bytes from the stream go first.
    received: Box<[u8]>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> SslStream<S> {
    /// Makes a session over `stream`, by a handshake in the role of `context`.
    pub(super) async fn start(context: &Arc<Context>, stream: S) -> io::Result<SslStream<S>> {
        let session = Session::new(context)?;
        let received = vec![0; CHUNK].into_boxed_slice();
        let mut this = SslStream { session, stream, waiting: Vec::new(), sent: 0, received };
        let result = poll_fn(|cx| this.poll_handshake(cx)).await;
        if result.is_err() {
            // The peer is told why, if it still listens.
            let _ = poll_fn(|cx| this.poll_drain(cx)).await;
        }
        result.map(|()| this)
    }

    fn poll_handshake(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        loop {
            let step = self.session.handshake();
            self.collect_output();
            match step? {
                Step::Done(_) => return self.poll_drain(cx),
                Step::Ended => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Step::NeedsInput => {
                    ready!(self.poll_drain(cx))?;
                    ready!(self.poll_feed(cx))?;
                }
            }
        }
    }

    /// Takes all output of the session.
    fn collect_output(&mut self) {
        loop {
            let from = self.waiting.len();
            self.waiting.resize(from + CHUNK, 0);
            let room = self.waiting.get_mut(from..).unwrap_or_default();
            let taken = self.session.take_output(room);
            self.waiting.truncate(from + taken);
            if taken < CHUNK {
                return;
            }
        }
    }

    /// Sends what waits.
    fn poll_drain(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.waiting.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.waiting.clear();
        self.sent = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Gives the session more from the peer.
    fn poll_feed(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        let mut buf = ReadBuf::new(&mut self.received);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
        if buf.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(self.session.feed(buf.filled()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for SslStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            // Nothing is sent here, so that reader and writer may be different tasks: an answer that
            // the session has for the peer (to a change of keys) goes with the next write.
            match this.session.read(buf.initialize_unfilled())? {
                Step::Done(read) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Step::Ended => return Poll::Ready(Ok(())),
                Step::NeedsInput => ready!(this.poll_feed(cx))?,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for SslStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.waiting.len() > MAX_WAITING {
            ready!(this.poll_drain(cx))?;
        }
        match this.session.write(bytes)? {
            Step::Done(written) => {
                this.collect_output();
                Poll::Ready(Ok(written))
            }
            // Without renegotiation a write never waits for the peer.
            Step::Ended | Step::NeedsInput => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.end();
        this.collect_output();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
