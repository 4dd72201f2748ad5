//! `kontor:service/read-model`: SQL on the service's own read database.

mod functions;
mod guard;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};

use crate::runtime::bindings::read_model::{self, Host, Rows};
use crate::runtime::call::Guest;

pub(crate) use guard::Guarded;
use guard::SqlError;

/// Maximum number of rows of one result. A page of a report has some hundred.
const MAX_ROWS: usize = 10_000;
/// Maximum size of one result, so that a query cannot fill the component's memory or the host's.
const MAX_RESULT_BYTES: usize = 8 << 20;

/// A connection to the read database, lent to one call, with a transaction open on it.
pub(crate) struct ReadSession {
    pub(crate) connection: Guarded,
}

impl Host for Guest<'_> {
    fn execute(
        &mut self,
        sql: String,
        parameters: Vec<read_model::Value>,
    ) -> wasmtime::Result<Result<u64, String>> {
        let session = self.scope.call.writable()?;
        let changed = session.connection.statement(|connection| execute(connection, &sql, parameters));
        Ok(changed.map_err(|error| error.to_string()))
    }

    fn query(
        &mut self,
        sql: String,
        parameters: Vec<read_model::Value>,
    ) -> wasmtime::Result<Result<Rows, String>> {
        let session = self.scope.call.readable()?;
        let rows = session.connection.statement(|connection| query(connection, &sql, parameters));
        Ok(rows.map_err(|error| error.to_string()))
    }
}

fn execute(connection: &Connection, sql: &str, parameters: Vec<read_model::Value>) -> Result<u64, SqlError> {
    let mut statement = connection.prepare_cached(sql)?;
    let changed = statement.execute(params_from_iter(parameters.into_iter().map(sqlite_value)))?;
    Ok(changed as u64)
}

fn query(connection: &Connection, sql: &str, parameters: Vec<read_model::Value>) -> Result<Rows, SqlError> {
    let mut statement = connection.prepare_cached(sql)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut found = statement.query(params_from_iter(parameters.into_iter().map(sqlite_value)))?;
    let mut rows = Vec::new();
    let mut bytes = 0;
    while let Some(row) = found.next()? {
        let values = (0..columns.len()).map(|index| row.get_ref(index).map(guest_value));
        let values = values.collect::<rusqlite::Result<Vec<_>>>()?;
        bytes += values.iter().map(size).sum::<usize>();
        rows.push(values);
        if rows.len() > MAX_ROWS || bytes > MAX_RESULT_BYTES {
            return Err(SqlError::TooLarge { rows: MAX_ROWS, bytes: MAX_RESULT_BYTES });
        }
    }
    Ok(Rows { columns, rows })
}

fn sqlite_value(value: read_model::Value) -> Value {
    match value {
        read_model::Value::Null => Value::Null,
        read_model::Value::Integer(integer) => Value::Integer(integer),
        read_model::Value::Real(real) => Value::Real(real),
        read_model::Value::Text(text) => Value::Text(text),
        read_model::Value::Blob(blob) => Value::Blob(blob),
    }
}

fn guest_value(value: ValueRef<'_>) -> read_model::Value {
    match value {
        ValueRef::Null => read_model::Value::Null,
        ValueRef::Integer(integer) => read_model::Value::Integer(integer),
        ValueRef::Real(real) => read_model::Value::Real(real),
        ValueRef::Text(text) => read_model::Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(blob) => read_model::Value::Blob(blob.to_vec()),
    }
}

fn size(value: &read_model::Value) -> usize {
    match value {
        read_model::Value::Text(text) => text.len(),
        read_model::Value::Blob(blob) => blob.len(),
        _ => size_of::<i64>(),
    }
}
