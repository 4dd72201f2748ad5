use super::*;

const SCHEMA: &str = "
    CREATE TABLE products (id TEXT PRIMARY KEY, stock INTEGER CHECK (stock >= 0));
    CREATE TABLE names AS SELECT 1 AS number, 'one' AS name;
    CREATE INDEX products_by_stock ON products (stock);
    CREATE VIEW sold_out AS SELECT id FROM products WHERE stock = 0;
    CREATE VIEW spy AS SELECT * FROM kontor_position;
    CREATE TRIGGER count AFTER INSERT ON products BEGIN UPDATE names SET number = number + 1; END;
    INSERT INTO products VALUES ('a', 1);";

/// A database with a table of the host, inside of a transaction.
fn guarded() -> Guarded {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch("CREATE TABLE kontor_position (position); INSERT INTO kontor_position VALUES (7)")
        .unwrap();
    let guarded = Guarded::new(connection).unwrap();
    guarded.make_schema(SCHEMA).unwrap();
    guarded.host(|connection| connection.execute_batch("BEGIN")).unwrap();
    guarded.begin_call();
    guarded
}

fn run(guarded: &Guarded, sql: &str) -> Result<(), SqlError> {
    guarded.statement(|connection| {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    })
}

fn denial(guarded: &Guarded, sql: &str) -> String {
    match run(guarded, sql) {
        Ok(()) => panic!("{sql} must be denied"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn ordinary_sql_is_allowed() {
    let guarded = guarded();
    for sql in [
        "INSERT INTO products VALUES ('b', 2) ON CONFLICT (id) DO UPDATE SET stock = excluded.stock",
        "UPDATE products SET stock = stock + 1 RETURNING stock",
        "SELECT count(*), sum(stock), json_group_array(id ORDER BY id) FROM products",
        "SELECT * FROM sold_out",
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT i FROM n",
        "SELECT id, row_number() OVER (ORDER BY stock) FROM products WHERE id LIKE 'a%'",
        "DELETE FROM products",
    ] {
        run(&guarded, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

#[test]
fn every_call_that_uses_the_time_or_random_numbers_is_recognized() {
    let guarded = guarded();
    for (sql, expected) in [
        ("SELECT date('now')", true),
        ("SELECT CURRENT_TIMESTAMP", true),
        ("SELECT Random()", true),
        ("SELECT upper(id) FROM products", false),
        ("SELECT date('now')", true),
    ] {
        guarded.begin_call();
        run(&guarded, sql).unwrap();
        assert_eq!(guarded.used_moment(), expected, "{sql}");
    }
}

#[test]
fn a_component_reaches_nothing_but_its_tables() {
    let guarded = guarded();
    for sql in [
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "PRAGMA journal_mode = off",
        "PRAGMA user_version",
        "SELECT * FROM pragma_user_version",
        "BEGIN",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT here",
        "RELEASE here",
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "ANALYZE",
        "REINDEX",
        "SELECT load_extension('evil')",
        "SELECT json_patch('{}', '{}')",
        "SELECT unhex('6-1', '-')",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "CREATE TEMP VIEW v AS SELECT 1",
        "CREATE TEMP TRIGGER x AFTER INSERT ON products BEGIN SELECT 1; END",
        "CREATE INDEX i ON products (id)",
        "CREATE VIRTUAL TABLE t USING fts5 (a)",
        "ALTER TABLE products RENAME TO goods",
        "DROP TABLE products",
        "DROP INDEX products_by_stock",
        "DROP VIEW sold_out",
        "DROP TRIGGER count",
        "SELECT * FROM kontor_position",
        "SELECT * FROM Kontor_Position",
        "SELECT * FROM spy",
        "UPDATE kontor_position SET position = 0",
        "INSERT INTO kontor_position VALUES (8)",
        "DELETE FROM kontor_position",
        "DELETE FROM sqlite_schema",
        "SELECT 1; SELECT 2",
    ] {
        denial(&guarded, sql);
    }
    assert!(guarded.in_transaction());
    assert_eq!(guarded.storage_error(), None);
}

#[test]
fn statements_of_the_host_are_denied_to_components() {
    let guarded = guarded();
    let update = "UPDATE kontor_position SET position = 8";
    guarded.host(|connection| connection.execute(update, [])).unwrap();
    denial(&guarded, update);
}

#[test]
fn a_schema_creates_tables_and_nothing_else() {
    for sql in [
        "CREATE TABLE kontor_mine (a)",
        "CREATE TABLE t AS SELECT * FROM kontor_position",
        "CREATE INDEX i ON kontor_position (position)",
        "CREATE TRIGGER x AFTER UPDATE ON kontor_position BEGIN SELECT 1; END",
        "CREATE TRIGGER kontor_x AFTER UPDATE ON products BEGIN SELECT 1; END",
        "CREATE TEMP TABLE t (a)",
        "CREATE VIRTUAL TABLE t USING fts5 (a)",
        "DROP TABLE products",
        "PRAGMA user_version = 9",
        "COMMIT",
        "ATTACH ':memory:' AS other",
    ] {
        let created = guarded().make_schema(sql).map_err(|error| error.sqlite_error_code());
        assert!(created.is_err(), "{sql} must be denied");
    }
}

#[test]
fn a_schema_that_fills_tables_or_never_ends_is_refused() {
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    for (schema, says) in [
        (format!("CREATE TABLE t AS {endless} SELECT zeroblob(1000000) FROM n"), "it fills tables"),
        (format!("CREATE TABLE t AS {endless} SELECT max(i) FROM n"), "it takes too long"),
    ] {
        let guarded = Guarded::new(Connection::open_in_memory().unwrap()).unwrap();
        let error = guarded.make_schema(&schema).unwrap_err().to_string();
        assert!(error.starts_with(says), "{error}");
    }
}

#[test]
fn a_database_does_not_grow_beyond_its_limit() {
    let guarded = guarded();
    guarded.limit_bytes(1 << 20).unwrap();
    let insert = "INSERT INTO products SELECT hex(randomblob(100000)), 1";
    run(&guarded, insert).unwrap();
    let full = (0..10).find_map(|_| run(&guarded, insert).err()).unwrap();
    assert!(
        matches!(&full, SqlError::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull)),
        "{full}"
    );
}

#[test]
fn a_function_of_large_values_takes_no_longer_than_they_are() {
    let guarded = guarded();
    let (long, wanted) = ("hex(zeroblob(900000))", "hex(zeroblob(450000)) || 'x'");
    for expression in [
        format!("instr({long}, {wanted})"),
        "instr(zeroblob(1800000), zeroblob(900000) || x'01')".to_owned(),
        format!("length(replace({long}, {wanted}, ''))"),
        format!("length(trim({long}, {wanted}))"),
    ] {
        // The time limit of a call would not end it, but would be exceeded.
        run(&guarded, &format!("SELECT {expression}")).unwrap();
        assert!(!lock(&guarded.rules).left.is_zero(), "{expression}");
        guarded.begin_call();
    }
}

#[test]
fn nothing_runs_after_a_rollback() {
    let guarded = guarded();
    denial(&guarded, "INSERT OR ROLLBACK INTO products VALUES ('b', -1)");
    assert!(!guarded.in_transaction());
    let error = run(&guarded, "INSERT INTO products VALUES ('c', 1)").unwrap_err();
    assert!(matches!(error, SqlError::RolledBack), "{error}");
}

#[test]
fn a_call_has_a_time_limit() {
    let guarded = guarded();
    lock(&guarded.rules).left = Duration::from_millis(5);
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    assert!(matches!(run(&guarded, endless), Err(SqlError::OutOfTime)));
    assert!(lock(&guarded.rules).left.is_zero());
    assert!(matches!(run(&guarded, endless), Err(SqlError::OutOfTime)), "nothing is left");
    guarded.begin_call();
    run(&guarded, "SELECT 1").unwrap();
}

#[test]
fn statements_have_a_size_limit() {
    let guarded = guarded();
    for sql in [
        &format!("SELECT '{}'", "x".repeat(100_000)),
        "SELECT zeroblob(9000000)",
        &format!("SELECT {}1", "1+".repeat(300)),
    ] {
        denial(&guarded, sql);
    }
}
