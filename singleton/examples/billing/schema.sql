CREATE TABLE IF NOT EXISTS customers (id bigint PRIMARY KEY, cents bigint NOT NULL);

-- These two are fenced: only who holds the job writes to them.
CREATE TABLE IF NOT EXISTS runs (
    id      text PRIMARY KEY,
    slot    timestamptz NOT NULL,
    attempt int NOT NULL,
    token   bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS invoices (
    run      text REFERENCES runs,
    customer bigint REFERENCES customers,
    cents    bigint NOT NULL,
    PRIMARY KEY (run, customer)
);
