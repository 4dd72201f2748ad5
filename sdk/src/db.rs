//! SQL on the service's own read database (SQLite): read and write in projections, read-only in queries.
//! Anywhere else it traps.

use std::fmt;
use std::num::TryFromIntError;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;

use crate::Error;
use crate::bindings::kontor::service::read_model as wit;

mod cell;

pub use wit::Value;

use cell::Cell;

/// The error of a statement, from SQLite or from a limit of the host: one sentence.
#[derive(Clone, Debug)]
pub struct SqlError(pub(crate) String);

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SqlError {}

impl From<SqlError> for Error {
    fn from(error: SqlError) -> Self {
        Self::Fault(format!("the read model: {error}"))
    }
}

/// The integers of SQLite are those of an `i64`.
impl From<TryFromIntError> for SqlError {
    fn from(_: TryFromIntError) -> Self {
        Self("a number is outside the range of SQLite's integers".to_owned())
    }
}

/// Runs one statement that returns no rows. Returns the number of rows changed. `?1`, `?2` … stand for the
/// [`params!`](crate::params).
pub fn execute(sql: &str, parameters: &[Value]) -> Result<u64, SqlError> {
    wit::execute(sql, parameters).map_err(SqlError)
}

/// Returns the rows of one statement, each as a struct with a field for each column. An integer can be read
/// as a `bool`, where only 0 is `false`, and a text that is JSON as a list or a struct.
pub fn query<T: DeserializeOwned>(sql: &str, parameters: &[Value]) -> Result<Vec<T>, SqlError> {
    let wit::Rows { columns, rows } = wit::query(sql, parameters).map_err(SqlError)?;
    rows.iter().map(|row| read(&columns, row)).collect()
}

/// Returns the first row of one statement, if there is one.
pub fn query_one<T: DeserializeOwned>(sql: &str, parameters: &[Value]) -> Result<Option<T>, SqlError> {
    let wit::Rows { columns, rows } = wit::query(sql, parameters).map_err(SqlError)?;
    rows.first().map(|row| read(&columns, row)).transpose()
}

/// Writes a list or a struct as the JSON text from which [`query`] reads it again.
pub fn json(value: &impl Serialize) -> Value {
    Value::Text(crate::json::text(value))
}

fn read<T: DeserializeOwned>(columns: &[String], row: &[Value]) -> Result<T, SqlError> {
    let fields = columns.iter().map(String::as_str).zip(row.iter().map(Cell));
    T::deserialize(MapDeserializer::<_, serde_json::Error>::new(fields))
        .map_err(|error| SqlError(format!("a row cannot be read: {error}")))
}

/// Makes the parameters of a statement: `params![id, quantity]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$(::core::convert::Into::<$crate::db::Value>::into($value)),*] };
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

/// Panics above 2⁶³−1, the greatest integer of SQLite.
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or_else(|_| panic!("{number} is too large for SQLite"), Self::Integer)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Integer(truth.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Status {
        InTransit,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        id: String,
        quantity: u64,
        price: Option<i64>,
        weight: f64,
        open: bool,
        status: Status,
        tags: Vec<String>,
    }

    fn row(open: Value, tags: &str) -> Result<Row, SqlError> {
        let columns = ["id", "quantity", "price", "weight", "open", "status", "tags"].map(str::to_owned);
        let row: [Value; 7] =
            ["a".into(), 3_u64.into(), Value::Null, 1.5.into(), open, "in-transit".into(), tags.into()];
        read(&columns, &row)
    }

    #[test]
    fn columns_become_fields() {
        assert_eq!(
            row(true.into(), r#"["new","red"]"#).unwrap(),
            Row {
                id: "a".to_owned(),
                quantity: 3,
                price: None,
                weight: 1.5,
                open: true,
                status: Status::InTransit,
                tags: vec!["new".to_owned(), "red".to_owned()],
            }
        );
    }

    #[test]
    fn a_row_that_does_not_fit_says_why() {
        assert!(row("yes".into(), "[]").unwrap_err().to_string().contains("a row cannot be read"));
        assert!(row(true.into(), "[").unwrap_err().to_string().contains("a row cannot be read"));
    }
}
