//! What users should know although nothing that they asked for says it: warnings, and damage that
//! shows, or is repaired, while an image is in use.

use std::sync::OnceLock;

type Listener = Box<dyn Fn(&str) + Send + Sync>;

/// The ways to the users of a graph. Without a listener, notices go nowhere.
#[derive(Default)]
pub(crate) struct Notices {
    warnings: OnceLock<Listener>,
    findings: OnceLock<Listener>,
}

impl Notices {
    /// Sets the listener for warnings, unless there is one.
    pub(super) fn on_warning(&self, listener: Listener) {
        // A second listener is refused, as the documentation of the graph says.
        let _ = self.warnings.set(listener);
    }

    /// Sets the listener for findings, unless there is one.
    pub(super) fn on_finding(&self, listener: Listener) {
        let _ = self.findings.set(listener);
    }

    /// Tells of something that may surprise, possibly in several lines.
    pub(crate) fn warn(&self, text: &str) {
        if let Some(listener) = self.warnings.get() {
            listener(text);
        }
    }

    /// Tells of damage in an image, or of its repair, in one line.
    pub(crate) fn found(&self, line: &str) {
        if let Some(listener) = self.findings.get() {
            listener(line);
        }
    }
}
