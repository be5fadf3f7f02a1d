//! Child processes: output in a file, ended by id.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

use super::eventually;

/// A running child; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with both outputs in `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let out = File::create(log).unwrap();
        let err = out.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.unwrap_or_else(|error| panic!("{:?} does not start: {error}", command.get_program()));
        Self { child, log: log.into() }
    }

    /// Everything that it has said so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until `ask` has an answer; panics with the log if the process ends before.
    pub(crate) async fn until<T, F: Future<Output = Option<T>>>(&mut self, what: &str, mut ask: impl FnMut(String) -> F) -> T {
        eventually(what, || {
            assert!(self.ended().is_none(), "it ended before: {what}\n{}", self.log());
            ask(self.log())
        })
        .await
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.signal("HUP");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", name, &pid]).status().unwrap().success());
    }

    /// SIGKILL, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        eventually("the process to end", || {
            let ended = self.ended();
            async move { ended }
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- end of {}", self.log.display());
            for line in tail.iter().rev() {
                eprintln!("{}", line.chars().take(400).collect::<String>());
            }
        }
    }
}

/// A port of 127.0.0.1 that is free now, below the range from which the system takes ports of outgoing connections, and that no
/// other test gets while this process lives, be it of another run: each port has a lock.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join("sluice-test-ports");
    std::fs::create_dir_all(&folder).unwrap();
    let start = (std::process::id() % 10_000) as u16;
    for _ in 0..10_000 {
        let port = 20_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let lock = File::create(folder.join(port.to_string())).unwrap();
        if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            TAKEN.lock().unwrap().push(lock);
            return port;
        }
    }
    panic!("no port is free");
}
