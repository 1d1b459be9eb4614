import * as Bounds from "../../internal/bounds.js"
import { bucketOf, literal, quote, type Names } from "./names.js"

/** The function that returns the largest payload, qualified. */
export const maxPayloadBytes = ({ schema }: Names): string =>
  `${quote(schema)}.control_events_outbox_max_payload_bytes()`

/** Removes rows that this transaction appended, qualified and without arguments. */
export const takeBack = ({ schema }: Names): string => `${quote(schema)}.control_events_outbox_take_back`

/** The planner inlines the function, so that reading it costs nothing. */
const answering = (names: Names, bytes: number): string =>
  `FUNCTION ${maxPayloadBytes(names)} RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT ${bytes}';`

/** Sets the largest payload. Requires an existing outbox: otherwise it would create a function without one. */
export const setMaxPayloadBytes = (names: Names, bytes: number): string => `
DO ${literal(`BEGIN PERFORM ${maxPayloadBytes(names)}; CREATE OR REPLACE ${answering(names, bytes)} END`)};
`

/**
 * The reason to reject a row that is older than the outbox's bounds or bypassed the trigger; NULL if it is within them.
 * Reads sizes only, not texts.
 */
export const refused = (names: Names): string =>
  `CASE WHEN payload_bytes > ${maxPayloadBytes(names)}
      THEN concat('the payload has ', payload_bytes, ' bytes, the maximum is ', ${maxPayloadBytes(names)})
    ${(["event_id", "ordering_key", "traceparent"] as const)
      .map(
        (column) =>
          `WHEN octet_length(${column}) > ${Bounds.textBytes[column]}
      THEN concat('${column} has ', octet_length(${column}), ' bytes, the maximum is ${Bounds.textBytes[column]}')`
      )
      .join("\n    ")} END`

/** Whether any column exceeds the outbox's bounds: then the row is not kept whole. */
export const isBeyond = (names: Names): string =>
  [
    `payload_bytes > ${maxPayloadBytes(names)}`,
    ...Object.entries(Bounds.textBytes).map(([column, bytes]) => `coalesce(octet_length(${column}) > ${bytes}, false)`)
  ].join(" OR ")

/** The columns of a row that only the outbox may write. */
const serviceColumns = [
  "last_error",
  "last_attempt_at",
  "next_attempt_at",
  "parked_at",
  "published_control_version",
  "published_at"
]

const bound = ([column, bytes]: readonly [string, number]) => `
  IF octet_length(NEW.${column}) > ${bytes} THEN
    RAISE EXCEPTION '${column} has % bytes, the maximum is ${bytes}', octet_length(NEW.${column})
      USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, COLUMN = '${column}';
  END IF;`

const finite = (column: string) => `
  IF NEW.${column} < '0002-01-01 BC' OR NEW.${column} > '10001-01-01' THEN
    RAISE EXCEPTION '${column} is %, which is no instant of the years 1 to 9999', NEW.${column}
      USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, COLUMN = '${column}';
  END IF;`

/**
 * The body of the trigger for every row. It runs with the rights of the role that inserts, and with a fixed
 * search_path.
 */
const beforeInsert = (names: Names): string => `
BEGIN
  IF NEW.ordering_key IS NULL THEN
    NEW.ordering_key := coalesce(NEW.tenant_id, '');
  END IF;

  -- Bounds.${Object.entries(Bounds.textBytes).map(bound).join("")}
  IF octet_length(NEW.payload_json::text) > ${maxPayloadBytes(names)} THEN
    RAISE EXCEPTION '${Bounds.payloadReason("%", "%")}', octet_length(NEW.payload_json::text), ${maxPayloadBytes(names)}
      USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, COLUMN = 'payload_json',
        HINT = 'Keep what is large in an artifact, or raise the limit as the owner of the outbox: controlpublish migrate --max-payload-bytes';
  END IF;${finite("created_at")}

  -- What is the pump's to write is reset, unless the role may update it anyway, as for a restore.
  IF NEW.attempt_count <> 0 OR ${serviceColumns.map((column) => `NEW.${column} IS NOT NULL`).join(" OR ")} THEN
    IF has_column_privilege(TG_RELID, 'published_at', 'UPDATE') THEN${["last_attempt_at", "next_attempt_at", "parked_at", "published_at"].map(finite).join("")}
    ELSE
      NEW.attempt_count := 0;
${serviceColumns.map((column) => `      NEW.${column} := NULL;`).join("\n")}
    END IF;
  END IF;

  -- The pump may publish what commits. A commit that the disk, or a synchronous standby, can still lose would leave the
  -- feed with an event that no row has.
  IF current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;

  -- Two transactions of one ordering key commit in the order of their ids: the lock is held until the end of the
  -- transaction, and the id is drawn after it. The transaction gets its xid before it draws, so that whoever sees the id
  -- drawn can wait for the transaction.
  IF pg_advisory_xact_lock(${names.orderLock}, ${bucketOf("NEW.ordering_key")}) IS NOT NULL
     AND pg_current_xact_id() IS NOT NULL THEN
    IF NEW.id IS NULL THEN
      NEW.id := nextval(${literal(names.sequence)});
    ELSIF current_setting('controlpublish.restore', true) IS DISTINCT FROM 'on' THEN
      RAISE EXCEPTION 'the row brings the id %, and the outbox draws ids itself: they are the order of events', NEW.id
        USING ERRCODE = 'generated_always', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, COLUMN = 'id',
          HINT = 'To append, leave out id. To restore rows with their ids, stop the pumps, use pg_dump --disable-triggers, or SET controlpublish.restore = on for the session.';
    ELSIF NOT has_column_privilege(TG_RELID, 'published_at', 'UPDATE') OR NOT has_sequence_privilege(${literal(names.sequence)}, 'UPDATE') THEN
      RAISE EXCEPTION 'the role % may not restore rows with their ids', current_user
        USING ERRCODE = 'insufficient_privilege', HINT = 'Restore as the owner of the outbox.';
    ELSIF NEW.id < 1 THEN
      RAISE EXCEPTION 'the row brings the id %, and ids begin with 1', NEW.id
        USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, COLUMN = 'id';
    ELSE
      -- What is appended after a restore comes after what was restored.
      PERFORM setval(${literal(names.sequence)}, NEW.id)
        FROM ${names.sequence} drawn WHERE NEW.id > drawn.last_value OR (NEW.id = drawn.last_value AND NOT drawn.is_called);
    END IF;
  END IF;
  RETURN NEW;
END
`

/**
 * The body of the trigger that wakes pumps, once a statement. A transaction that has notified cannot be prepared: where
 * the server takes prepared transactions, pumps find their rows by polling, unless the database says that nobody prepares.
 */
const afterInsert = (names: Names): string => `
BEGIN
  IF current_setting('max_prepared_transactions') <> '0'
     AND current_setting('controlpublish.notify', true) IS DISTINCT FROM 'on' THEN
    RETURN NULL;
  END IF;
  IF NOT pg_try_advisory_xact_lock_shared(${names.armLock}, 0) THEN
    PERFORM pg_notify(${literal(names.channel)}, 'append');
  END IF;
  RETURN NULL;
END
`

/**
 * Migration 3: what a row may bring, who may bring it, and what the functions find by name.
 *
 * It replaces functions, and takes no lock on the outbox: constraints would wait for every open append, and would keep
 * the pump from parking the rows that break them.
 */
export const guarded = (names: Names): string => `
-- One that is there is not ours: replaced, it would still belong to who put it there.
CREATE ${answering(names, Bounds.payloadBytes)}

CREATE OR REPLACE FUNCTION ${quote(names.schema)}.control_events_outbox_before_insert() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS ${literal(beforeInsert(names))};

CREATE OR REPLACE FUNCTION ${quote(names.schema)}.control_events_outbox_after_insert() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS ${literal(afterInsert(names))};

-- INSERT on the table is all that an append by SQL needs. Who draws an id without a row leaves a hole, and no harm.
GRANT USAGE ON SEQUENCE ${names.sequence} TO PUBLIC;

-- Takes back what the running transaction has appended, and nothing else, so that appending needs no right to delete. A
-- row that is seen although its transaction is in progress is one's own, that of a savepoint included.
CREATE FUNCTION ${takeBack(names)}(event_ids text[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS ${literal(`
DECLARE
  own bigint := pg_current_xact_id()::text::bigint;
BEGIN
  DELETE FROM ${names.outbox} gone
  WHERE gone.event_id = ANY (event_ids)
    AND CASE WHEN (gone.xmin::text::bigint - own) & 4294967295 < 2147483648
      THEN pg_xact_status((own + ((gone.xmin::text::bigint - own) & 4294967295))::text::xid8) = 'in progress'
      ELSE false END;
END
`)};

-- Rows that are there already: an attempt at no time at all blocks its key for ever.
UPDATE ${names.outbox} SET next_attempt_at = NULL
  WHERE published_at IS NULL AND parked_at IS NULL AND next_attempt_at IS NOT NULL AND NOT isfinite(next_attempt_at);

-- The audit is added to. Only the payload of a discarded event can be erased from it.
CREATE FUNCTION ${quote(names.schema)}.control_events_audit_keep() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS ${literal(`
BEGIN
  IF TG_OP = 'UPDATE' AND (OLD.id, OLD.at, OLD.action, OLD.actor, OLD.reason, OLD.event_id, OLD.filter::text, OLD.affected)
      IS NOT DISTINCT FROM (NEW.id, NEW.at, NEW.action, NEW.actor, NEW.reason, NEW.event_id, NEW.filter::text, NEW.affected)
    AND OLD.discarded IS NOT NULL AND NEW.discarded IS NOT NULL
    AND NEW.discarded -> 'payload_json' ->> 'erased' = 'true' THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'the audit of the outbox is only added to: % is refused', TG_OP
    USING ERRCODE = 'insufficient_privilege', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
END
`)};

CREATE TRIGGER control_events_audit_keep BEFORE UPDATE OR DELETE ON ${names.audit}
  FOR EACH ROW EXECUTE FUNCTION ${quote(names.schema)}.control_events_audit_keep();

CREATE TRIGGER control_events_audit_keep_all BEFORE TRUNCATE ON ${names.audit}
  FOR EACH STATEMENT EXECUTE FUNCTION ${quote(names.schema)}.control_events_audit_keep();
`
