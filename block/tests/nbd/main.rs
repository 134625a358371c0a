//! The NBD client: against the reference's server and nbdkit, under TLS, through lost servers, and
//! against servers that send anything.

mod hostile;
mod reconnect;
mod servers;
mod support;
mod tls;
