//! docs/journal.md names every table and column, and none that is not there.

use std::collections::BTreeSet;

use super::*;

#[tokio::test]
async fn every_table_and_column_is_documented() {
    let fixture = Fixture::new();
    let connection = file::open_reader(&fixture.path).unwrap();
    let mut statement = connection
        .prepare("SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'")
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let real: BTreeSet<(String, String)> = rows.collect::<rusqlite::Result<_>>().unwrap();
    let page = include_str!("../../../../docs/journal.md");
    let section = page.split_once("## The tables").unwrap().1.split_once("\n## ").unwrap().0;
    let mut documented = BTreeSet::new();
    for table in section.split("\n### `").skip(1) {
        let (name, text) = table.split_once('`').unwrap();
        for cell in text.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next()) {
            let columns = cell.split('`').step_by(2).filter(|column| !column.is_empty());
            documented.extend(columns.map(|column| (name.to_owned(), column.to_owned())));
        }
    }
    assert!(real.len() > 50);
    assert_eq!(documented, real);
}
