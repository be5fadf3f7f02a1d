//! What a test's own thread logs.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Level};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps what this thread logs, whatever the target, until it is dropped.
pub(crate) struct Captured {
    lines: Lines,
    _logged: DefaultGuard,
    /// While there is one subscriber alone, an event that another test's thread meets first is off for all: tracing asks that thread's.
    _second: Dispatch,
}

impl Captured {
    /// At this level and above, from now on.
    pub(crate) fn begin(level: Level) -> Self {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(level).with_writer(move || writer.clone()).finish();
        let second = Dispatch::new(tracing_subscriber::registry());
        Self { lines, _logged: tracing::subscriber::set_default(subscriber), _second: second }
    }

    /// So far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap()
    }
}
