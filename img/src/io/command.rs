//! The table of commands, and how a line becomes a call.

use cairn_block::driver::Perm;
use futures_util::future::LocalBoxFuture;

use super::commands::{
    alloc, asynchronous, breakpoint, discard, info, open, process, read, reopen, resize, write,
    zone,
};
use super::flags::{Flags, words};
use super::session::Session;

/// How a command fails.
#[derive(Debug)]
pub(super) enum Fault {
    /// A line for standard output, where scripts look for it.
    Result(String),
    /// A line for standard error, with the program's name before it.
    Error(String),
    /// A line for standard error as it is.
    Note(String),
    /// There is no image to work on.
    NoFile,
    /// The words make no sense; a line for standard error may say why. The usage is shown.
    Usage(Option<String>),
    /// Everything has been printed.
    Shown,
}

impl From<crate::error::Error> for Fault {
    fn from(error: crate::error::Error) -> Fault {
        Fault::Error(error.to_string())
    }
}

impl From<cairn_block::Error> for Fault {
    fn from(error: cairn_block::Error) -> Fault {
        Fault::Error(error.to_string())
    }
}

/// What a command's function gets: the session and its words.
pub(super) type Run =
    for<'a> fn(&'a mut Session, Call<'a>) -> LocalBoxFuture<'a, Result<(), Fault>>;

/// A command and the words after it.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// The command's name as it was typed.
    pub(super) name: &'a str,
    /// The words after it.
    pub(super) words: &'a [String],
}

impl<'a> Call<'a> {
    /// Sorts the words; see [`Flags::parse`].
    pub(super) fn flags(&self, letters: &str) -> Result<Flags<'a>, Fault> {
        Flags::parse(self.name, letters, self.words).map_err(|line| Fault::Usage(Some(line)))
    }
}

/// A command's entry in the table.
pub(super) struct Command {
    pub(super) name: &'static str,
    /// Another name, or an empty string.
    alias: &'static str,
    /// Fewest and, if there is a limit, most words after the name.
    least: usize,
    most: Option<usize>,
    needs_image: bool,
    /// Permissions that the command needs on the image beyond reading.
    needs: Perm,
    /// The words after the name.
    synopsis: &'static str,
    /// What it does, in a few words.
    summary: &'static str,
    /// What the flags mean, for `help` with the command's name.
    details: &'static str,
    run: Run,
}

const NONE: Command = Command {
    name: "",
    alias: "",
    least: 0,
    most: Some(0),
    needs_image: true,
    needs: Perm::empty(),
    synopsis: "",
    summary: "",
    details: "",
    run: process::quit,
};

/// All commands, sorted by name.
static COMMANDS: &[Command] = &[
    Command {
        name: "abort",
        needs_image: false,
        summary: "end the program as if it had crashed",
        run: process::abort,
        ..NONE
    },
    Command {
        name: "aio_flush",
        summary: "wait for all requests in the background, then flush",
        run: asynchronous::flush,
        ..NONE
    },
    Command {
        name: "aio_read",
        least: 2,
        most: None,
        synopsis: "[-Ciqrv] [-P pattern] off len [len..]",
        summary: "read in the background",
        details: asynchronous::READ_DETAILS,
        run: asynchronous::read,
        ..NONE
    },
    Command {
        name: "aio_write",
        least: 2,
        most: None,
        needs: Perm::WRITE,
        synopsis: "[-Cfiqruz] [-P pattern] off len [len..]",
        summary: "write in the background",
        details: asynchronous::WRITE_DETAILS,
        run: asynchronous::write,
        ..NONE
    },
    Command {
        name: "alloc",
        alias: "a",
        least: 1,
        most: Some(2),
        synopsis: "offset [count]",
        summary: "count the bytes of a range that the image stores itself",
        run: alloc::alloc,
        ..NONE
    },
    Command {
        name: "break",
        least: 2,
        most: Some(2),
        synopsis: "event tag",
        summary: "stop the next request that comes to an event, and call it tag (blkdebug)",
        run: breakpoint::set,
        ..NONE
    },
    Command { name: "close", summary: "close the image", run: open::close, ..NONE },
    Command {
        name: "discard",
        alias: "d",
        least: 2,
        most: None,
        needs: Perm::WRITE,
        synopsis: "[-Cq] off len",
        summary: "give the storage of a range back",
        details: discard::DETAILS,
        run: discard::discard,
        ..NONE
    },
    Command {
        name: "flush",
        alias: "f",
        summary: "make completed writes durable",
        run: discard::flush,
        ..NONE
    },
    Command {
        name: "help",
        alias: "?",
        most: Some(1),
        needs_image: false,
        synopsis: "[command]",
        summary: "list the commands, or explain one",
        run: process::help,
        ..NONE
    },
    Command { name: "info", alias: "i", summary: "describe the image", run: info::info, ..NONE },
    Command {
        name: "length",
        alias: "l",
        summary: "print the size of the image",
        run: info::length,
        ..NONE
    },
    Command {
        name: "map",
        summary: "list the ranges that the image stores itself",
        run: alloc::map,
        ..NONE
    },
    Command {
        name: "open",
        alias: "o",
        least: 1,
        most: None,
        needs_image: false,
        synopsis: "[-rsCnkU] [-t cache] [-d discard] [-i aio] [-o options] [path]",
        summary: "open an image",
        details: open::DETAILS,
        run: open::open,
        ..NONE
    },
    Command {
        name: "quit",
        alias: "q",
        most: None,
        needs_image: false,
        summary: "end the program",
        run: process::quit,
        ..NONE
    },
    Command {
        name: "read",
        alias: "r",
        least: 2,
        most: None,
        synopsis: "[-bCqrv] [-P pattern [-s off] [-l len]] off len",
        summary: "read a range",
        details: read::DETAILS,
        run: read::read,
        ..NONE
    },
    Command {
        name: "readv",
        least: 2,
        most: None,
        synopsis: "[-Cqrv] [-P pattern] off len [len..]",
        summary: "read a range into several buffers",
        details: read::VECTOR_DETAILS,
        run: read::readv,
        ..NONE
    },
    Command {
        name: "remove_break",
        least: 1,
        most: Some(1),
        synopsis: "tag",
        summary: "forget a breakpoint, and let its request go on",
        run: breakpoint::remove,
        ..NONE
    },
    Command {
        name: "reopen",
        most: None,
        synopsis: "[(-r|-w)] [-c cache] [-o options]",
        summary: "change how the open image is used",
        details: reopen::DETAILS,
        run: reopen::reopen,
        ..NONE
    },
    Command {
        name: "resume",
        least: 1,
        most: Some(1),
        synopsis: "tag",
        summary: "let a stopped request go on",
        run: breakpoint::resume,
        ..NONE
    },
    Command {
        name: "sigraise",
        least: 1,
        most: Some(1),
        needs_image: false,
        synopsis: "signal",
        summary: "send this program a signal, given by its number",
        run: process::sigraise,
        ..NONE
    },
    Command {
        name: "sleep",
        least: 1,
        most: Some(1),
        needs_image: false,
        synopsis: "milliseconds",
        summary: "wait",
        run: process::sleep,
        ..NONE
    },
    Command {
        name: "truncate",
        alias: "t",
        least: 1,
        most: Some(3),
        needs: Perm::WRITE.union(Perm::RESIZE),
        synopsis: "[-m prealloc_mode] off",
        summary: "change the size of the image",
        details: resize::DETAILS,
        run: resize::truncate,
        ..NONE
    },
    Command {
        name: "wait_break",
        least: 1,
        most: Some(1),
        synopsis: "tag",
        summary: "wait until a request stops at a breakpoint",
        run: breakpoint::wait,
        ..NONE
    },
    Command {
        name: "write",
        alias: "w",
        least: 2,
        most: None,
        needs: Perm::WRITE,
        synopsis: "[-bcCfnqruz] [-P pattern | -s source_file] off len",
        summary: "write a range",
        details: write::DETAILS,
        run: write::write,
        ..NONE
    },
    Command {
        name: "writev",
        least: 2,
        most: None,
        needs: Perm::WRITE,
        synopsis: "[-Cfqr] [-P pattern] off len [len..]",
        summary: "write a range from several buffers",
        details: write::VECTOR_DETAILS,
        run: write::writev,
        ..NONE
    },
    Command {
        name: "zone_append",
        alias: "zap",
        least: 2,
        most: None,
        needs: Perm::WRITE,
        synopsis: "offset len [len..]",
        summary: "append to a zone of a zoned device",
        run: zone::append,
        ..NONE
    },
    Command {
        name: "zone_close",
        alias: "zc",
        needs: Perm::WRITE,
        summary: "close zones of a zoned device",
        run: zone::close,
        ..ZONES
    },
    Command {
        name: "zone_finish",
        alias: "zf",
        needs: Perm::WRITE,
        summary: "fill up zones of a zoned device",
        run: zone::finish,
        ..ZONES
    },
    Command {
        name: "zone_open",
        alias: "zo",
        needs: Perm::WRITE,
        summary: "open zones of a zoned device",
        run: zone::open,
        ..ZONES
    },
    Command {
        name: "zone_report",
        alias: "zrp",
        synopsis: "offset number",
        summary: "list zones of a zoned device",
        run: zone::report,
        ..ZONES
    },
    Command {
        name: "zone_reset",
        alias: "zrs",
        needs: Perm::WRITE,
        summary: "empty zones of a zoned device",
        run: zone::reset,
        ..ZONES
    },
];

const ZONES: Command = Command { least: 2, most: Some(2), synopsis: "offset len", ..NONE };

impl Command {
    /// The line that `help` shows.
    pub(super) fn usage(&self) -> String {
        let blank = if self.synopsis.is_empty() { "" } else { " " };
        format!("{}{blank}{} -- {}", self.name, self.synopsis, self.summary)
    }

    /// What the flags mean; empty where there is nothing to say.
    pub(super) fn details(&self) -> &'static str {
        self.details
    }

    fn check_count(&self, name: &str, count: usize) -> Result<(), Fault> {
        let fits = count >= self.least && self.most.is_none_or(|most| count <= most);
        if fits {
            return Ok(());
        }
        let expected = match self.most {
            None => format!("at least {} arguments", self.least),
            Some(most) if most == self.least => format!("{most} arguments"),
            Some(most) => format!("between {} and {most} arguments", self.least),
        };
        Err(Fault::Note(format!("bad argument count {count} to {name}, expected {expected}")))
    }
}

/// All commands.
pub(super) fn all() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter()
}

/// The names of all commands.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    all().map(|command| command.name)
}

/// Finds a command by a name.
pub(super) fn find(name: &str) -> Option<&'static Command> {
    all().find(|command| command.name == name || (command.alias == name && !name.is_empty()))
}

/// Runs one line. Returns whether the command succeeded.
pub(super) async fn execute(session: &mut Session, line: &str) -> bool {
    let words = words(line);
    let Some((name, rest)) = words.split_first() else { return true };
    let Some(command) = find(name) else {
        session.out.complain(&format!("command \"{name}\" not found"));
        return false;
    };
    let call = Call { name, words: rest };
    match attempt(session, command, call).await {
        Ok(()) => true,
        Err(fault) => {
            show(session, command, fault);
            false
        }
    }
}

async fn attempt(session: &mut Session, command: &Command, call: Call<'_>) -> Result<(), Fault> {
    if command.needs_image && !session.is_open() {
        return Err(Fault::NoFile);
    }
    command.check_count(call.name, call.words.len())?;
    if !command.needs.is_empty() {
        session.image()?.require(command.needs)?;
    }
    (command.run)(session, call).await
}

fn show(session: &Session, command: &Command, fault: Fault) {
    match fault {
        Fault::Result(line) => session.out.line(&line),
        Fault::Error(line) => session.out.complain(&format!("{}: {line}", session.program.name())),
        Fault::Note(line) => session.out.complain(&line),
        Fault::NoFile => session.out.complain("no file open, try 'help open'"),
        Fault::Usage(line) => {
            if let Some(line) = line {
                session.out.complain(&line);
            }
            session.out.line(&command.usage());
        }
        Fault::Shown => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_are_distinct() {
        let sorted: Vec<&str> = names().collect();
        assert!(sorted.is_sorted());
        let mut every: Vec<&str> =
            all().flat_map(|command| [command.name, command.alias]).collect();
        every.retain(|name| !name.is_empty());
        let count = every.len();
        every.sort_unstable();
        every.dedup();
        assert_eq!(every.len(), count);
        assert!(find("").is_none());
    }

    #[test]
    fn counts_are_explained() {
        let said = |name: &str, count| match find(name).expect(name).check_count(name, count) {
            Err(Fault::Note(line)) => line,
            other => panic!("{other:?}"),
        };
        assert_eq!(said("read", 1), "bad argument count 1 to read, expected at least 2 arguments");
        assert_eq!(said("flush", 1), "bad argument count 1 to flush, expected 0 arguments");
        assert_eq!(
            said("alloc", 3),
            "bad argument count 3 to alloc, expected between 1 and 2 arguments"
        );
    }
}
