//! What people who watch the server may want to know, one line each.

use std::fmt;
use std::sync::Arc;

/// What takes lines.
type Listener = dyn Fn(&str) + Send + Sync;

/// A listener, or none. Lines may come from any I/O thread.
#[derive(Clone, Default)]
pub struct Notices(Option<Arc<Listener>>);

impl Notices {
    /// Tells `listener`.
    pub fn to(listener: impl Fn(&str) + Send + Sync + 'static) -> Notices {
        Notices(Some(Arc::new(listener)))
    }

    /// Tells the line that `line` describes, if anybody listens.
    pub(crate) fn tell(&self, line: fmt::Arguments<'_>) {
        if let Some(listener) = &self.0 {
            listener(&line.to_string());
        }
    }
}
