//! The plans by which SQLite runs queries on the read model.

use rusqlite::Connection;

/// Returns the steps of a query's plan, in their order.
pub(crate) fn plan(sql: &str) -> Vec<String> {
    let database = Connection::open_in_memory().unwrap();
    database.execute_batch(include_str!("read_model.sql")).unwrap();
    let mut statement = database.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    statement.raw_query().mapped(|row| row.get("detail")).collect::<Result<_, _>>().unwrap()
}
