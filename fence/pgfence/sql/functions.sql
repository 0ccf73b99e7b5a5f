-- The functions of a fence. {schema} stands for the name of the schema. Run at every installation: each is replaced.
--
-- All run as the owner of the schema with a search path of their own, so that nobody else needs rights to the tables and
-- nobody can put functions or operators of theirs in the way. Only check_write has no search path of its own, because that
-- would cost every write 3 µs; instead each name and operator in it is qualified. Parameters are called by number where a
-- name could be mistaken for a column.

-- The SQLSTATE class WF is the fence's. The detail is JSON, for programs.
CREATE OR REPLACE FUNCTION {schema}.refuse(code text, reason text, why text, hint text,
    resource text, token text, floor bigint)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $writ$
BEGIN
    RAISE EXCEPTION USING ERRCODE = code, MESSAGE = 'writ: ' || reason || ': ' || why, HINT = hint,
        DETAIL = json_build_object('reason', reason, 'resource', resource, 'token', token, 'floor', floor::text)::text;
END
$writ$;

-- The advisory lock of a fence: transactions that write hold it shared until they end, a raise takes it exclusively.
CREATE OR REPLACE FUNCTION {schema}.lock_key(resource text)
RETURNS bigint LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $writ$
    SELECT ('x' || left(encode(sha256(convert_to(E'writ\n{schema_name}\n' || $1, 'UTF8')), 'hex'), 16))::bit(64)::bigint
$writ$;

-- The setting that holds a transaction's token for the resource.
CREATE OR REPLACE FUNCTION {schema}.setting_name(resource text)
RETURNS text LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $writ$
    SELECT 'writ.t' || right(encode(sha256(convert_to(E'writ\n{schema_name}\n' || $1, 'UTF8')), 'hex'), 32)
$writ$;

-- Says why a write with this token is refused; called only when it is. The order matters: whoever may not present tokens
-- is told nothing about the floor.
CREATE OR REPLACE FUNCTION {schema}.explain(name text, presented text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
DECLARE
    row_floor   bigint;
    row_drained bigint;
BEGIN
    IF presented IS NULL OR presented = '' THEN
        PERFORM {schema}.refuse('WF001', 'NO_TOKEN', 'the transaction has presented no token for resource ' || quote_literal(name),
            'Begin it with pgfence.BeginTx, or call {schema_name}.set_token(resource, token) first in the transaction.', name, NULL, NULL);
    END IF;
    IF NOT has_function_privilege(session_user, '{schema}.set_token(text, bigint)'::regprocedure, 'EXECUTE') THEN
        PERFORM {schema}.refuse('WF005', 'NOT_TRUSTED', 'role ' || quote_ident(session_user) || ' is not trusted to present tokens',
            'Have an administrator run: writ-guard sql grant --role ' || quote_ident(session_user), name, presented, NULL);
    END IF;
    IF presented !~ '^[1-9][0-9]{0,18}$' OR presented::numeric > 9223372036854775807 THEN
        PERFORM {schema}.refuse('WF006', 'INVALID_TOKEN', left(quote_literal(presented), 80) || ' is not a token',
            'Present the token of the grant as a decimal integer.', name, left(presented, 80), NULL);
    END IF;
    SELECT f.floor, f.drained INTO row_floor, row_drained FROM {schema}.fence f WHERE f.resource = name;
    IF NOT FOUND THEN
        PERFORM {schema}.refuse('WF003', 'UNKNOWN_RESOURCE', 'there is no fence for resource ' || quote_literal(name),
            'Install it with: writ-guard sql install --resource NAME.', name, presented, NULL);
    END IF;
    IF presented::bigint < row_floor THEN
        PERFORM {schema}.refuse('WF002', 'STALE_TOKEN', 'token ' || presented || ' for resource ' || quote_literal(name)
            || ' is below the floor ' || row_floor, 'Stop writing and acquire again.', name, presented, row_floor);
    END IF;
    IF presented::bigint > row_drained THEN
        PERFORM {schema}.refuse('WF004', 'NOT_RAISED', 'the fence of resource ' || quote_literal(name)
            || ' has not been raised to token ' || presented || ', or older transactions still run',
            'Raise it before the transaction begins: pgfence.BeginTx or writ-guard sql bump.', name, presented, row_floor);
    END IF;
END
$writ$;

-- The trigger. Arguments: resource, setting_name(resource), lock_key(resource).
--
-- First the lock, then the floor with a snapshot that is taken after the lock was granted; the other way round, or in one
-- statement, an old floor could be read while a raise is finished. In READ COMMITTED each statement of this function has
-- such a snapshot. What a statement's trigger returns is of no account.
CREATE OR REPLACE FUNCTION {schema}.check_write()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $writ$
BEGIN
    IF NOT pg_catalog.pg_try_advisory_xact_lock_shared(TG_ARGV[2]::pg_catalog.int8) THEN
        -- A raise is waiting. Who is stale already need not wait with it.
        PERFORM {schema}.explain(TG_ARGV[0], pg_catalog.current_setting(TG_ARGV[1], true));
        PERFORM pg_catalog.pg_advisory_xact_lock_shared(TG_ARGV[2]::pg_catalog.int8);
    END IF;
    PERFORM FROM {schema}.fence f
    WHERE f.resource OPERATOR(pg_catalog.=) TG_ARGV[0]
        AND f.floor::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.current_setting(TG_ARGV[1], true)
        AND f.drained OPERATOR(pg_catalog.=) f.floor
        AND pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.=) 'read committed'
        AND pg_catalog.has_function_privilege(session_user,
            '{schema}.set_token(pg_catalog.text, pg_catalog.int8)'::pg_catalog.regprocedure, 'EXECUTE');
    IF NOT FOUND THEN
        PERFORM {schema}.check_snapshot(TG_ARGV[0], pg_catalog.current_setting(TG_ARGV[1], true));
    END IF;
    RETURN NULL;
END
$writ$;

-- The rest of the trigger: for transactions with one snapshot, and for those that are refused. A snapshot that is older
-- than the last raise shows an old floor, and is caught by the row lock.
CREATE OR REPLACE FUNCTION {schema}.check_snapshot(name text, presented text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
DECLARE
    row_floor bigint;
BEGIN
    PERFORM {schema}.explain(name, presented); -- returns only if the snapshot shows nothing against it
    SELECT f.floor INTO row_floor FROM {schema}.fence f
        WHERE f.resource = name AND f.floor = f.drained AND f.floor::text = presented;
    IF FOUND AND current_setting('transaction_isolation') = 'read uncommitted' THEN
        RETURN;
    END IF;
    IF FOUND AND current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        PERFORM FROM {schema}.turn t WHERE t.resource = name AND t.drained = row_floor FOR SHARE;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    RAISE EXCEPTION 'writ: the fence of resource % is damaged', quote_literal(name)
        USING ERRCODE = 'WF007', HINT = 'Run: writ-guard sql verify';
END
$writ$;

-- Presents a token for the rest of the transaction. Who may execute it is trusted to present the tokens that were granted.
CREATE OR REPLACE FUNCTION {schema}.set_token(resource text, token bigint)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
BEGIN
    IF $1 IS NULL OR $2 IS NULL OR $2 <= 0 THEN
        PERFORM {schema}.refuse('WF006', 'INVALID_TOKEN', coalesce($2::text, 'NULL') || ' is not a token',
            'Present the resource and the token of the grant.', $1, $2::text, NULL);
    END IF;
    -- The floor is looked at here as well so that every later statement of the transaction sees what older ones have
    -- committed: its snapshot is newer than this one, in which they had ended.
    PERFORM {schema}.explain($1, $2::text);
    PERFORM set_config({schema}.setting_name($1), $2::text, true);
END
$writ$;

-- Where a fence stands.
CREATE OR REPLACE FUNCTION {schema}.state(resource text, OUT floor bigint, OUT drained bigint)
RETURNS record LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
BEGIN
    SELECT f.floor, f.drained INTO floor, drained FROM {schema}.fence f WHERE f.resource = $1;
    IF NOT FOUND THEN
        PERFORM {schema}.refuse('WF003', 'UNKNOWN_RESOURCE', 'there is no fence for resource ' || coalesce(quote_literal($1), 'NULL'),
            'Install it with: writ-guard sql install --resource NAME.', $1, NULL, NULL);
    END IF;
END
$writ$;

-- First half of a bump: from its commit on, older tokens are refused. It waits for nobody.
CREATE OR REPLACE FUNCTION {schema}.raise_floor(resource text, token bigint, OUT floor bigint, OUT drained bigint)
RETURNS record LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
BEGIN
    IF $1 IS NULL OR $2 IS NULL OR $2 <= 0 THEN
        PERFORM {schema}.refuse('WF006', 'INVALID_TOKEN', coalesce($2::text, 'NULL') || ' is not a token',
            'Give the resource and the token of the grant.', $1, $2::text, NULL);
    END IF;
    PERFORM {schema}.make_durable();
    UPDATE {schema}.fence f SET floor = $2, raised_at = now(), raised_by = session_user
        WHERE f.resource = $1 AND f.floor < $2;
    SELECT s.floor, s.drained INTO floor, drained FROM {schema}.state($1) s;
    IF floor > $2 THEN
        PERFORM {schema}.refuse('WF002', 'STALE_TOKEN', 'token ' || $2 || ' for resource ' || quote_literal($1)
            || ' is below the floor ' || floor, 'A newer token has been granted: use that one.', $1, $2::text, floor);
    END IF;
END
$writ$;

-- Second half: waits, as long as lock_timeout lets it, until every transaction that was admitted has ended. While it holds
-- the lock nobody is admitted, so whatever the floor is by now, everything below it has ended.
CREATE OR REPLACE FUNCTION {schema}.drain(resource text, OUT floor bigint)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'writ: drain needs READ COMMITTED' USING ERRCODE = 'WF007';
    END IF;
    PERFORM {schema}.make_durable();
    PERFORM pg_advisory_xact_lock({schema}.lock_key($1));
    UPDATE {schema}.fence f SET drained = f.floor, drained_at = clock_timestamp()
        WHERE f.resource = $1 RETURNING f.floor INTO floor;
    IF NOT FOUND THEN
        PERFORM {schema}.state($1); -- says what is wrong
    END IF;
    UPDATE {schema}.turn t SET drained = $2 WHERE t.resource = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'writ: the fence of resource % is damaged', quote_literal($1)
            USING ERRCODE = 'WF007', HINT = 'Run: writ-guard sql verify';
    END IF;
END
$writ$;

-- A floor that a crash could take back would be none.
CREATE OR REPLACE FUNCTION {schema}.make_durable()
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $writ$
BEGIN
    IF current_setting('synchronous_commit') IN ('off', 'local') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END
$writ$;

-- The transactions that have been admitted and have not ended. pid is NULL for a prepared one.
CREATE OR REPLACE FUNCTION {schema}.holders(resource text)
RETURNS TABLE (pid integer, prepared text, role text, application text, began timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
    WITH locks AS MATERIALIZED (SELECT * FROM pg_locks)
    SELECT l.pid, p.gid, coalesce(a.usename, p.owner)::text, a.application_name, coalesce(a.xact_start, p.prepared)
    FROM locks l
    LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    -- A prepared transaction is known by the lock on its transaction id.
    LEFT JOIN locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
        AND x.virtualtransaction = l.virtualtransaction
    LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
    WHERE l.locktype = 'advisory' AND l.granted AND l.mode = 'ShareLock' AND l.objsubid = 1
        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
        AND (l.classid::bigint << 32 | l.objid::bigint) = {schema}.lock_key($1)
        AND l.pid IS DISTINCT FROM pg_backend_pid()
$writ$;

-- Terminates the backends of transactions under older tokens than the floor. Only while a drain is outstanding: then every
-- transaction that was admitted is older, and the row lock keeps it so until this transaction ends.
CREATE OR REPLACE FUNCTION {schema}.cut(resource text, token bigint)
RETURNS TABLE (pid integer, prepared text, role text, application text, began timestamptz, terminated boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
#variable_conflict use_column
BEGIN
    PERFORM 1 FROM {schema}.fence f WHERE f.resource = $1 AND f.floor = $2 AND f.drained < f.floor FOR UPDATE;
    IF FOUND THEN
        RETURN QUERY SELECT h.*, CASE WHEN h.pid IS NULL THEN false ELSE pg_terminate_backend(h.pid) END
            FROM {schema}.holders($1) h;
    END IF;
END
$writ$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC;
