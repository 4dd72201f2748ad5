-- One row an order. The events of an order, its payment and its delivery come in any order relative to each other, so
-- whichever comes first makes the row; what belongs to the order itself is null until `order-created` has come.
-- Lists and structs are JSON text. Times are milliseconds since 1970-01-01 UTC.
CREATE TABLE orders (
    id              TEXT PRIMARY KEY,
    user_id         TEXT,
    status          TEXT,
    reason          TEXT,
    total           INTEGER,
    address         TEXT,
    payment_status  TEXT,
    payment         TEXT,
    delivery_status TEXT,
    created_at_ms   INTEGER,
    updated_at_ms   INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX orders_by_time ON orders (created_at_ms, id);
CREATE INDEX orders_by_user ON orders (user_id, created_at_ms, id);
CREATE INDEX orders_by_status ON orders (status, created_at_ms, id);

CREATE TABLE order_lines (
    order_id   TEXT NOT NULL,
    line       INTEGER NOT NULL,
    product_id TEXT NOT NULL,
    name       TEXT NOT NULL,
    quantity   INTEGER NOT NULL,
    unit_price INTEGER NOT NULL,
    amount     INTEGER NOT NULL,
    PRIMARY KEY (order_id, line)
) WITHOUT ROWID;

CREATE INDEX order_lines_by_product ON order_lines (product_id, order_id);
