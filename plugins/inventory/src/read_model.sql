CREATE TABLE products (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    unit_price INTEGER NOT NULL,
    available  INTEGER NOT NULL,
    reserved   INTEGER NOT NULL,
    shipped    INTEGER NOT NULL
) WITHOUT ROWID;
