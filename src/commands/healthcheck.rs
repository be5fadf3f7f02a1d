//! `sluice healthcheck`: for container engines, which can only run a command that is in the image.

use std::path::Path;

use sluice_gateway::server::probe;

use super::{Failure, load};

pub(crate) async fn healthcheck(path: &Path) -> Result<(), Failure> {
    probe::livez(&load(path)?.admin).await.map_err(|error| Failure::Failed(error.to_string()))
}
