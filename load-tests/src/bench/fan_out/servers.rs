//! The two that are compared.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use super::super::process::{Process, own_processor_time, own_resident};
use super::super::world::{Programs, World};
use super::super::{Failure, plan::SERVICE};
use crate::bare::Bare;

/// Who fans out.
#[derive(Debug)]
pub(super) enum Server<'a> {
    Sluice(&'a World),
    /// jsonrpsee alone, as a process.
    Process {
        process: Process,
        url: String,
    },
    /// In this process, for tests: what it costs cannot be told from what the clients do.
    Here(Bare),
}

impl<'a> Server<'a> {
    /// jsonrpsee alone, before the node of this world.
    pub(super) async fn bare(programs: &Programs, world: &World) -> Result<Server<'a>, Failure> {
        let node = world.node().replacen("http://", "ws://", 1);
        if programs.simulators.is_none() {
            return Ok(Server::Here(Bare::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &node).await?));
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bare", "--listen", "127.0.0.1:0", "--node", &node]);
        let mut process = Process::start(&mut command, world.log("bare"))?;
        let url = process.until(|said| said.split_once('\n')?.0.rsplit(' ').next().map(str::to_owned)).await?;
        Ok(Server::Process { process, url })
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Sluice(_) => "Sluice",
            Self::Process { .. } | Self::Here(_) => "bare jsonrpsee",
        }
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Sluice(world) => world.url(SERVICE),
            Self::Process { url, .. } => url.clone(),
            Self::Here(bare) => bare.url(),
        }
    }

    /// Processor time that it has used.
    pub(super) fn processor_time(&self) -> Option<Duration> {
        match self {
            Self::Sluice(world) => world.processor_times().gateway,
            Self::Process { process, .. } => process.processor_time(),
            Self::Here(_) => own_processor_time(),
        }
    }

    /// Bytes of memory that it has.
    pub(super) fn resident(&self) -> Option<u64> {
        match self {
            Self::Sluice(world) => world.resident(),
            Self::Process { process, .. } => process.resident(),
            Self::Here(_) => own_resident(),
        }
    }
}
