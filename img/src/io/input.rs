//! Where commands come from: the arguments, a script on standard input, or a person.
//!
//! Standard input is read on a thread of its own, so that requests in the background go on, and
//! report, while the program waits for the next line.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::sync::mpsc;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, Helper};
use tokio::sync::mpsc as channel;

use super::command;
use super::output::Output;
use crate::cli::Program;

/// A source of command lines.
pub(super) enum Input {
    /// The arguments of `-c`.
    Arguments(VecDeque<String>),
    /// Standard input.
    Stream(Reader),
}

impl Input {
    /// The `commands` given as arguments, or if there are none, standard input.
    pub(super) fn new(program: Program, commands: Vec<String>) -> Input {
        if commands.is_empty() {
            Input::Stream(Reader::start(program))
        } else {
            Input::Arguments(commands.into())
        }
    }

    /// The next line; `None` at the end.
    pub(super) async fn next(&mut self, out: &Output) -> Option<String> {
        match self {
            Input::Arguments(commands) => commands.pop_front(),
            Input::Stream(reader) => reader.next(out).await,
        }
    }
}

/// The thread that reads standard input, a line whenever it is asked for one.
pub(super) struct Reader {
    /// The prompt is printed here, and not by the line editor.
    prompt: Option<String>,
    demand: mpsc::Sender<()>,
    lines: channel::UnboundedReceiver<String>,
}

impl Reader {
    fn start(program: Program) -> Reader {
        let (demand, demanded) = mpsc::channel();
        let (sender, lines) = channel::unbounded_channel();
        let prompt = format!("{}> ", program.name());
        let by_hand = io::stdin().is_terminal() && io::stdout().is_terminal();
        let own_prompt = (!by_hand).then(|| prompt.clone());
        // The thread ends with the program, or when nobody asks for lines any more.
        std::thread::spawn(move || {
            if by_hand {
                edit(&prompt, &demanded, &sender);
            } else {
                read(&demanded, &sender);
            }
        });
        Reader { prompt: own_prompt, demand, lines }
    }

    async fn next(&mut self, out: &Output) -> Option<String> {
        if let Some(prompt) = &self.prompt {
            out.print(prompt);
        }
        out.flush();
        self.demand.send(()).ok()?;
        self.lines.recv().await
    }
}

/// Reads lines as they are.
fn read(demanded: &mpsc::Receiver<()>, lines: &channel::UnboundedSender<String>) {
    let mut stdin = io::stdin().lock();
    let mut line = Vec::new();
    while demanded.recv().is_ok() {
        line.clear();
        match stdin.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
    }
}

/// Lets a person edit lines, with a history and completion.
fn edit(prompt: &str, demanded: &mpsc::Receiver<()>, lines: &channel::UnboundedSender<String>) {
    let Ok(mut editor) = Editor::<Words, DefaultHistory>::new() else {
        return read(demanded, lines);
    };
    editor.set_helper(Some(Words { files: FilenameCompleter::new() }));
    while demanded.recv().is_ok() {
        let line = match editor.readline(prompt) {
            Ok(line) => line,
            // Control-C drops the line, as in a shell.
            Err(ReadlineError::Interrupted) => String::new(),
            Err(_) => return,
        };
        // A line that is not remembered is no reason to stop.
        let _ = editor.add_history_entry(&line);
        if lines.send(line).is_err() {
            return;
        }
    }
}

/// Completion: the first word is a command, the others are files (or commands, for `help`).
struct Words {
    files: FilenameCompleter,
}

impl Helper for Words {}
impl Highlighter for Words {}
impl Validator for Words {}

impl Hinter for Words {
    type Hint = String;
}

impl Completer for Words {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = line.get(..at).unwrap_or(line);
        let start = before.rfind(' ').map_or(0, |space| space + 1);
        let first = before.split_ascii_whitespace().next().unwrap_or_default();
        if start > 0 && !matches!(first, "help" | "?") {
            return self.files.complete(line, at, context);
        }
        let word = before.get(start..).unwrap_or_default();
        let pairs = command::names()
            .filter(|name| name.starts_with(word))
            .map(|name| Pair { display: name.to_owned(), replacement: name.to_owned() })
            .collect();
        Ok((start, pairs))
    }
}
