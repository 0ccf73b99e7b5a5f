-- People write here.
CREATE TABLE IF NOT EXISTS desired (name text PRIMARY KEY, replicas int NOT NULL CHECK (replicas >= 0));

-- These two are fenced: only the controller writes to them.
CREATE TABLE IF NOT EXISTS actual (name text PRIMARY KEY, replicas int NOT NULL);
CREATE TABLE IF NOT EXISTS changes (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name     text NOT NULL,
    replicas int NOT NULL,
    token    bigint NOT NULL
);
