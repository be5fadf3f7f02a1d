//! Processes that the benchmark starts, and stops by their ids.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Failure;

/// How often something is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(5);
/// How long a process may take until it serves, or to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// Ticks of a second in /proc: USER_HZ, which is 100 wherever Linux runs today.
const TICKS: u32 = 100;

/// A running child, its output in a file; killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) fn start(command: &mut Command, log: PathBuf) -> Result<Self, Failure> {
        let out = File::create(&log)?;
        let err = out.try_clone()?;
        let started = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = started.map_err(|error| format!("{}: {error}", Path::new(command.get_program()).display()))?;
        Ok(Self { child, log })
    }

    /// Waits until `find` finds something in what it has said.
    pub(super) async fn until<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Result<T, Failure> {
        let started = Instant::now();
        loop {
            let said = String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned();
            if let Some(found) = find(&said) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended with {status}: {}", self.log.display(), last_lines(&said)).into());
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("{} says too little: {}", self.log.display(), last_lines(&said)).into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// SIGTERM, and the end.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        if !status.success() {
            return Err(format!("kill ended with {status}").into());
        }
        let started = Instant::now();
        while self.child.try_wait()?.is_none() {
            if started.elapsed() > PATIENCE {
                return Err(format!("{} does not end", self.log.display()).into());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Processor time that it has used; `None` where there is no /proc.
    pub(super) fn processor_time(&self) -> Option<Duration> {
        processor_time(&self.child.id().to_string()).ok().flatten()
    }

    /// Bytes of memory that it has; `None` where there is no /proc.
    pub(super) fn resident(&self) -> Option<u64> {
        resident(&self.child.id().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes of memory that this process has.
pub(super) fn own_resident() -> Option<u64> {
    resident("self")
}

fn resident(process: &str) -> Option<u64> {
    resident_of(&std::fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

/// `RssAnon` of /proc/PID/status, which has it in KiB: what the process keeps, without the pages of its own program that it has touched.
fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Processor time of this process.
pub(super) fn own_processor_time() -> Option<Duration> {
    processor_time("self").ok().flatten()
}

fn processor_time(process: &str) -> io::Result<Option<Duration>> {
    Ok(of_stat(&std::fs::read_to_string(format!("/proc/{process}/stat"))?))
}

/// `utime` and `stime` of a line of /proc/PID/stat: fields 14 and 15. The name, field 2, may hold anything, and stands in parentheses.
fn of_stat(line: &str) -> Option<Duration> {
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u32>().ok()? + fields.next()?.parse::<u32>().ok()?;
    Some(Duration::from_secs(1) * ticks / TICKS)
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_user_and_system_time() {
        let line = "4711 (a ) name) S 1 4711 4711 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 1000 0 0";
        assert_eq!(of_stat(line), Some(Duration::from_secs(3)));
        assert_eq!(of_stat("4711 (sluice) S 1"), None);
    }

    #[test]
    fn memory_is_what_is_resident() {
        assert_eq!(resident_of("Name:\tsluice\nVmRSS:\t    99 kB\nRssAnon:\t   12 kB\n"), Some(12 * 1024));
        assert_eq!(resident_of("Name:\tsluice\n"), None);
    }
}
