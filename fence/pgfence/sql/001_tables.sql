-- The tables of a fence. {schema} stands for the name of the schema. Run once, when the schema is new.

CREATE SCHEMA IF NOT EXISTS {schema};
REVOKE ALL ON SCHEMA {schema} FROM PUBLIC;

CREATE TABLE {schema}.installation (
    version      integer     NOT NULL PRIMARY KEY CHECK (version > 0),
    installed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    installed_by text        NOT NULL DEFAULT session_user
);
COMMENT ON TABLE {schema}.installation IS 'Which steps of the installation have been taken.';

-- Invariant: floor never decreases, and drained never exceeds it. A write is admitted only when its token = floor = drained.
CREATE TABLE {schema}.fence (
    resource   text        NOT NULL PRIMARY KEY CHECK (pg_catalog.octet_length(resource) BETWEEN 1 AND 512),
    floor      bigint      NOT NULL CHECK (floor > 0),
    drained    bigint      NOT NULL CHECK (drained > 0 AND drained <= floor),
    raised_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    raised_by  text        NOT NULL DEFAULT session_user,
    drained_at timestamptz NOT NULL DEFAULT pg_catalog.now()
) WITH (fillfactor = 50);
COMMENT ON COLUMN {schema}.fence.floor IS 'The lowest token that is admitted; transactions under older ones are refused.';
COMMENT ON COLUMN {schema}.fence.drained IS 'Every transaction under a token below this one has ended.';

-- One row for each fence, changed only while the fence''s lock is held exclusively. A transaction that sees an old snapshot
-- locks it FOR SHARE, which PostgreSQL refuses if the row has changed since the snapshot. It is not the fence row because
-- that one must be free to be raised while such transactions run.
CREATE TABLE {schema}.turn (
    resource text   NOT NULL PRIMARY KEY REFERENCES {schema}.fence ON DELETE CASCADE,
    drained  bigint NOT NULL CHECK (drained > 0)
) WITH (fillfactor = 50);

REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC;
