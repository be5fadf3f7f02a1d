//! The password of a keystore file: from a variable, from a file, or from whoever sits at the terminal. Never from the command line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use sluice_gateway::config::Secret;
use zeroize::Zeroizing;

use crate::commands::Failure;

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PasswordSource {
    /// In the environment variable of this name.
    Variable(String),
    /// In this file; one line break at its end does not count.
    File(PathBuf),
    /// Nobody has said: whoever sits at the terminal is asked.
    Terminal,
}

/// The password, which is not empty.
pub(super) fn read(source: &PasswordSource) -> Result<Secret, Failure> {
    let text = match source {
        PasswordSource::Variable(name) => std::env::var(name)
            .map_err(|_| Failure::Usage(format!("--password-env {name}: there is no such variable, or it is not Unicode")))?,
        PasswordSource::File(path) => {
            let text = std::fs::read_to_string(path).map(Zeroizing::new);
            let text = text.map_err(|error| Failure::Usage(format!("--password-file {}: {error}", path.display())))?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            line.strip_suffix('\r').unwrap_or(line).to_owned()
        }
        PasswordSource::Terminal => ask().map_err(|error| {
            Failure::Usage(format!("there is no terminal to ask for the password ({error}): say --password-env or --password-file"))
        })?,
    };
    if text.is_empty() {
        return Err(Failure::Usage("the password is empty".into()));
    }
    Ok(Secret::new(text))
}

fn ask() -> std::io::Result<String> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    write!(terminal, "Password of the keystore: ")?;
    // With room, so that it is not moved as it grows, and no buffer that keeps it.
    let mut line = Zeroizing::new(String::with_capacity(1024));
    {
        let _quiet = Quiet::begin(&terminal)?;
        BufReader::with_capacity(1, &terminal).read_line(&mut line)?;
    }
    writeln!(terminal)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// What is typed is not shown, until this is dropped.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn begin(terminal: &'a File) -> std::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}
