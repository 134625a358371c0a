//! What commands work with: the open image, the requests in the background, the output.

use std::rc::Rc;
use std::sync::Arc;

use cairn_block::engine;
use cairn_block::graph::Graph;
use tokio::task::JoinHandle;

use super::command::Fault;
use super::image::{Image, Opening};
use super::output::Output;
use crate::cli::Program;
use crate::error::Result;

/// One run of the program.
pub(super) struct Session {
    /// The program's name.
    pub(super) program: Program,
    /// File names are lists of options.
    pub(super) image_opts: bool,
    /// Memory of requests is not aligned.
    pub(super) misalign: bool,
    /// Where results go.
    pub(super) out: Arc<Output>,
    graph: Arc<Graph>,
    image: Option<Rc<Image>>,
    background: Vec<JoinHandle<()>>,
    over: bool,
}

impl Session {
    /// A session without an image, whose objects are in `graph` and whose words go to `out`.
    pub(super) fn new(
        graph: Arc<Graph>,
        program: Program,
        image_opts: bool,
        misalign: bool,
        out: Output,
    ) -> Session {
        Session {
            program,
            image_opts,
            misalign,
            out: Arc::new(out),
            graph,
            image: None,
            background: Vec::new(),
            over: false,
        }
    }

    /// Whether the user has had enough.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Makes this the last command.
    pub(super) fn end(&mut self) {
        self.over = true;
    }

    /// Whether there is an image to work on.
    pub(super) fn is_open(&self) -> bool {
        self.image.is_some()
    }

    /// The image; commands that work on one are refused without it.
    pub(super) fn image(&self) -> Result<&Rc<Image>, Fault> {
        self.image.as_ref().ok_or(Fault::NoFile)
    }

    /// Opens an image. The caller has seen to it that there is none.
    pub(super) async fn open(&mut self, opening: &Opening) -> Result<()> {
        self.image = Some(Rc::new(opening.open(&self.graph).await?));
        Ok(())
    }

    /// The image for changes that need it alone; waits for requests in the background.
    pub(super) async fn image_mut(&mut self) -> Result<&mut Image, Fault> {
        self.wait().await;
        self.image.as_mut().and_then(Rc::get_mut).ok_or(Fault::NoFile)
    }

    /// Starts a request, which goes on while other commands run.
    pub(super) async fn start(&mut self, request: impl Future<Output = ()> + 'static) {
        self.background.retain(|task| !task.is_finished());
        self.background.push(engine::spawn_local(request));
        // Requests enter the graph in the order of their commands.
        tokio::task::yield_now().await;
    }

    /// Waits for the requests in the background.
    pub(super) async fn wait(&mut self) {
        for task in self.background.drain(..) {
            // A request that panicked has said so.
            let _ = task.await;
        }
    }

    /// Closes the image, if there is one.
    pub(super) async fn close(&mut self) -> Result<()> {
        self.wait().await;
        match self.image.take().and_then(Rc::into_inner) {
            Some(image) => image.close().await,
            None => Ok(()),
        }
    }
}
