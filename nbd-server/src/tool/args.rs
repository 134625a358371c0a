//! The program's arguments, as they are given.

use std::ffi::OsString;
use std::path::PathBuf;

use cairn_img::cli::Program;
use cairn_img::cli::parse::{Stop, stop};
use cairn_img::cli::policy::PolicyArgs;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

const CONNECTIONS: &str = "Connections";
const PART: &str = "Part of the image";
const KERNEL: &str = "Kernel devices";
const IMAGE: &str = "Image";

const NOTES: &str = "\
Without --socket or --vsock the server listens on TCP port 10809 of this machine only; --bind chooses
another address, which needs --tls-creds or --insecure. It ends when the last client has left, unless
--persistent is given.

Examples:
  cairn-nbd --socket /run/disk.sock --persistent --shared 0 disk.qcow2
  cairn-nbd --read-only --export-name disk --format qcow2 disk.qcow2
  cairn-nbd --list --socket /run/disk.sock
  cairn-nbd --connect /dev/nbd0 disk.qcow2";

/// Serve a disk image over NBD
#[derive(Debug, Parser)]
#[command(infer_long_args = true, args_override_self = true, max_term_width = 100)]
pub(super) struct Cli {
    /// TCP port to listen on, or to connect to (default: 10809)
    #[arg(short, long, value_name = "PORT", allow_hyphen_values = true, help_heading = CONNECTIONS)]
    pub(super) port: Option<String>,
    /// Address to listen on, or host to connect to (default: this machine only)
    #[arg(short, long, value_name = "HOST", help_heading = CONNECTIONS)]
    pub(super) bind: Option<String>,
    /// Unix socket to listen on, or to connect to; an absolute path
    #[arg(short = 'k', long, value_name = "PATH", help_heading = CONNECTIONS)]
    pub(super) socket: Option<PathBuf>,
    /// vsock port to listen on, or to connect to
    #[arg(long, value_name = "[CID:]PORT", help_heading = CONNECTIONS)]
    pub(super) vsock: Option<String>,
    /// Listen where other machines can connect, without TLS
    #[arg(long, help_heading = CONNECTIONS)]
    pub(super) insecure: bool,
    /// Clients at a time; 0 for any number (default: 1)
    #[arg(
        short = 'e',
        long,
        value_name = "N",
        allow_hyphen_values = true,
        help_heading = CONNECTIONS
    )]
    pub(super) shared: Option<String>,
    /// Go on when the last client has left
    #[arg(short = 't', long, help_heading = CONNECTIONS)]
    pub(super) persistent: bool,
    /// Name of the export (default: the empty name)
    #[arg(short = 'x', long, value_name = "NAME", help_heading = CONNECTIONS)]
    pub(super) export_name: Option<String>,
    /// Description of the export for people
    #[arg(short = 'D', long, value_name = "TEXT", help_heading = CONNECTIONS)]
    pub(super) description: Option<String>,
    /// Seconds that a client's handshake may take; 0 for any time (default: 10)
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = CONNECTIONS)]
    pub(super) handshake_limit: Option<String>,
    /// Require TLS, with the credentials of an --object
    #[arg(long, value_name = "ID", help_heading = CONNECTIONS)]
    pub(super) tls_creds: Option<String>,
    /// Admit those clients only that an --object authorizes
    #[arg(long, value_name = "ID", help_heading = CONNECTIONS)]
    pub(super) tls_authz: Option<String>,
    /// Name that the server's certificate has to be for, with --list
    #[arg(long, value_name = "NAME", help_heading = CONNECTIONS)]
    pub(super) tls_hostname: Option<String>,
    /// List the exports of another server
    #[arg(short = 'L', long, help_heading = CONNECTIONS)]
    pub(super) list: bool,
    /// Export what lies behind this many bytes
    #[arg(short, long, value_name = "BYTES", allow_hyphen_values = true, help_heading = PART)]
    pub(super) offset: Option<String>,
    /// Tell clients in which layer of a chain of overlays data lies
    #[arg(short = 'A', long, help_heading = PART)]
    pub(super) allocation_depth: bool,
    /// Tell clients what a persistent bitmap of the image has marked; may be repeated
    #[arg(short = 'B', long, value_name = "NAME", help_heading = PART)]
    pub(super) bitmap: Vec<String>,
    /// Attach the image to a device of the kernel
    #[arg(short, long, value_name = "DEVICE", help_heading = KERNEL)]
    pub(super) connect: Option<String>,
    /// Detach a device of the kernel
    #[arg(short, long, help_heading = KERNEL)]
    pub(super) disconnect: bool,
    /// Go to the background when clients can connect
    #[arg(long)]
    pub(super) fork: bool,
    /// Write the server's process ID to a file when clients can connect
    #[arg(long, value_name = "PATH")]
    pub(super) pid_file: Option<PathBuf>,
    /// SELinux label of the socket that clients connect to
    #[arg(long, value_name = "LABEL")]
    pub(super) selinux_label: Option<String>,
    /// Format of the image (default: found out by probing)
    #[arg(short, long, value_name = "FMT", help_heading = IMAGE)]
    pub(super) format: Option<String>,
    /// Take the file name as image options (driver=…,file.filename=…)
    #[arg(long, help_heading = IMAGE)]
    pub(super) image_opts: bool,
    /// Refuse writes
    #[arg(short, long, help_heading = IMAGE)]
    pub(super) read_only: bool,
    /// Write to a temporary overlay, which is deleted at the end
    #[arg(short, long, help_heading = IMAGE)]
    pub(super) snapshot: bool,
    /// Export an internal snapshot: its ID or name, or snapshot.id=…,snapshot.name=…
    #[arg(short, long, value_name = "SNAPSHOT", help_heading = IMAGE)]
    pub(super) load_snapshot: Option<String>,
    /// Bypass the page cache; the same as --cache=none
    #[arg(short, long, help_heading = IMAGE)]
    pub(super) nocache: bool,
    /// Cache mode: none, writeback (default), writethrough, directsync or unsafe
    #[arg(long, value_name = "MODE", action = ArgAction::Append, help_heading = IMAGE)]
    pub(super) cache: Vec<String>,
    /// How requests reach the kernel: threads, native or io_uring
    #[arg(long, value_name = "MODE", action = ArgAction::Append, help_heading = IMAGE)]
    pub(super) aio: Vec<String>,
    /// Whether discards reach the file: ignore (off, default) or unmap (on)
    #[arg(long, value_name = "MODE", action = ArgAction::Append, help_heading = IMAGE)]
    pub(super) discard: Vec<String>,
    /// Turn writes of zeroes into zero writes: off (default), on or unmap
    #[arg(long, value_name = "MODE", help_heading = IMAGE)]
    pub(super) detect_zeroes: Option<String>,
    /// Define an object that other options refer to
    #[arg(long = "object", value_name = "TYPE,id=ID,…", allow_hyphen_values = true)]
    pub(super) objects: Vec<String>,
    #[command(flatten)]
    pub(super) policy: PolicyArgs,
    /// Tell on standard error what happens
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// Accepted for compatibility; there are no trace events
    #[arg(short = 'T', long, value_name = "SPEC", allow_hyphen_values = true)]
    trace: Option<String>,
    /// Print a completion script for bash, elvish, fish, powershell or zsh
    #[arg(long, value_name = "SHELL")]
    pub(super) completions: Option<clap_complete::Shell>,
    /// Print the manual page in roff
    #[arg(long)]
    pub(super) man: bool,
    /// The image, or with --disconnect the device
    #[arg(value_name = "FILE")]
    pub(super) files: Vec<String>,
}

/// Parses the arguments of the process, the first of which is the program's name.
pub(super) fn parse(program: Program, argv: Vec<OsString>) -> Result<Cli, Stop> {
    command(program)
        .try_get_matches_from(argv)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| stop(&[], program.name(), &error))
}

/// The command line's description, under the name of `program`.
pub(super) fn command(program: Program) -> clap::Command {
    let name = program.name();
    Cli::command()
        .name(name)
        .bin_name(name)
        .version(program.version())
        .after_help(NOTES.replace(Program::CairnNbd.name(), name))
}
