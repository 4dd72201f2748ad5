-- One row an order. The events of an order, its payment and its delivery come in any order relative to each other, so
-- whichever comes first makes the row; what belongs to the order itself is null until `order-created` has come.
-- Numbers grow as orders become known. Lists and structs are JSON text. Times are milliseconds since 1970-01-01 UTC.
CREATE TABLE orders (
    number          INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    user_id         TEXT,
    status          TEXT,
    reason          TEXT,
    lines           TEXT NOT NULL,
    total           INTEGER,
    address         TEXT,
    payment_status  TEXT,
    payment         TEXT,
    delivery_status TEXT,
    created_at_ms   INTEGER,
    updated_at_ms   INTEGER NOT NULL
) STRICT;

CREATE INDEX orders_by_time ON orders (created_at_ms);
CREATE INDEX orders_by_status ON orders (status, created_at_ms);

-- Orders of another status are passed over within the index, some thousands of them in a millisecond. An index that leads
-- straight to a status would be another one to keep.
CREATE INDEX orders_by_user ON orders (user_id, created_at_ms, number, status);

-- The same for products: one may be in a hundred thousand orders.
CREATE TABLE orders_by_product (
    product_id    TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    number        INTEGER NOT NULL,
    status        TEXT NOT NULL,
    PRIMARY KEY (product_id, created_at_ms, number)
) STRICT, WITHOUT ROWID;

-- Totals of the orders that stand, by the day (UTC) on which they were placed. No query has to look at a million orders.
-- An amount beyond the range of INTEGER is an error, never a rounded number: the tables are STRICT.
CREATE TABLE sales_by_day (
    day      TEXT PRIMARY KEY,
    orders   INTEGER NOT NULL,
    quantity INTEGER NOT NULL,
    amount   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sales_by_product (
    product_id TEXT NOT NULL,
    day        TEXT NOT NULL,
    orders     INTEGER NOT NULL,
    quantity   INTEGER NOT NULL,
    amount     INTEGER NOT NULL,
    PRIMARY KEY (product_id, day)
) STRICT, WITHOUT ROWID;

-- Every product that was ever sold.
CREATE TABLE products (
    id   TEXT PRIMARY KEY,
    name TEXT NOT NULL
) STRICT, WITHOUT ROWID;
