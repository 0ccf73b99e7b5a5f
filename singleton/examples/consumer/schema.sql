-- Producers write here.
CREATE TABLE IF NOT EXISTS events (
    part     int,
    position bigint,
    account  bigint NOT NULL,
    cents    bigint NOT NULL,
    PRIMARY KEY (part, position)
);

-- What the tables of the partitions are like: entries_0 and so on, each with a fence.
CREATE TABLE IF NOT EXISTS entry (
    position bigint PRIMARY KEY,
    account  bigint NOT NULL,
    cents    bigint NOT NULL,
    token    bigint NOT NULL
);
