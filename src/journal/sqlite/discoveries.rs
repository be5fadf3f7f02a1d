//! The keys as discoveries found them last.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::queries::Answer;
use super::records::Fault;
use crate::journal::{DiscoveredKey, DiscoveryChange, DiscoveryName};

/// Keys that a complete discovery found, by ARN; none if there is no complete one of this name.
pub(super) fn discovery(connection: &Connection, name: &DiscoveryName) -> Answer<Option<Vec<DiscoveredKey>>> {
    let id: Option<i64> = connection
        .prepare_cached("SELECT id FROM discoveries WHERE configuration = ?1 AND selection = ?2 AND complete = 1")?
        .query_row(params![name.configuration, name.selection], |row| row.get("id"))
        .optional()?;
    let Some(id) = id else { return Ok(None) };
    let keys = connection
        .prepare_cached("SELECT arn, state, aliases, tags FROM discovered_keys WHERE discovery = ?1 ORDER BY arn")?
        .query_map([id], |row| {
            Ok(DiscoveredKey { arn: row.get("arn")?, state: row.get("state")?, aliases: row.get("aliases")?, tags: row.get("tags")? })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(keys))
}

/// Writes what differs.
pub(super) fn change(connection: &Connection, change: &DiscoveryChange) -> Result<(), Fault> {
    let DiscoveryChange { name, anew, found, gone, complete } = change;
    connection
        .prepare_cached("INSERT INTO discoveries (configuration, selection, complete) VALUES (?1, ?2, 0) ON CONFLICT DO NOTHING")?
        .execute(params![name.configuration, name.selection])?;
    let id: i64 = connection
        .prepare_cached("SELECT id FROM discoveries WHERE configuration = ?1 AND selection = ?2")?
        .query_row(params![name.configuration, name.selection], |row| row.get("id"))?;
    if *anew {
        connection.execute("DELETE FROM discovered_keys WHERE discovery = ?1", [id])?;
    }
    connection.prepare_cached("UPDATE discoveries SET complete = ?2 WHERE id = ?1 AND complete <> ?2")?.execute(params![id, *complete])?;
    for key in found {
        connection
            .prepare_cached("INSERT OR REPLACE INTO discovered_keys (discovery, arn, state, aliases, tags) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![id, key.arn, key.state, key.aliases, key.tags])?;
    }
    for arn in gone {
        connection.prepare_cached("DELETE FROM discovered_keys WHERE discovery = ?1 AND arn = ?2")?.execute(params![id, arn])?;
    }
    Ok(())
}

/// Removes every discovery but these.
pub(super) fn keep(connection: &Connection, names: &[DiscoveryName]) -> Result<(), Fault> {
    let on_record: Vec<(i64, String, String)> = connection
        .prepare_cached("SELECT id, configuration, selection FROM discoveries")?
        .query_map([], |row| Ok((row.get("id")?, row.get("configuration")?, row.get("selection")?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (id, configuration, selection) in on_record {
        if !names.iter().any(|name| *name.configuration == *configuration && *name.selection == *selection) {
            connection.execute("DELETE FROM discovered_keys WHERE discovery = ?1", [id])?;
            connection.execute("DELETE FROM discoveries WHERE id = ?1", [id])?;
        }
    }
    Ok(())
}
