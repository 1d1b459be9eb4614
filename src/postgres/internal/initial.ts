import * as Lane from "../../Lane.js"
import { maxErrorLength } from "../../OutboxStore.js"
import { bucketOf, literal, quote, type Names } from "./names.js"

/** Migration 1: the outbox with its triggers. */
export const initial = (names: Names): string => `
CREATE SEQUENCE ${names.sequence} CACHE 1;

CREATE TABLE ${names.outbox} (
  id bigint PRIMARY KEY,
  event_id text COLLATE "C" NOT NULL UNIQUE CHECK (event_id <> ''),
  event_type text NOT NULL CHECK (event_type <> ''),
  tenant_id text,
  stack_id text,
  version bigint,
  base_version bigint,
  artifact_ref text,
  checksum text,
  payload_json json NOT NULL,
  payload_bytes integer NOT NULL GENERATED ALWAYS AS (octet_length(payload_json::text)) STORED,
  ordering_key text COLLATE "C" NOT NULL,
  lane smallint NOT NULL GENERATED ALWAYS AS ((hashtext(ordering_key) & ${Lane.count - 1})::smallint) STORED,
  traceparent text,
  created_at timestamptz NOT NULL DEFAULT now(),
  attempt_count integer NOT NULL DEFAULT 0,
  last_error text CHECK (char_length(last_error) <= ${maxErrorLength}),
  last_attempt_at timestamptz,
  next_attempt_at timestamptz,
  parked_at timestamptz,
  published_control_version bigint CHECK (published_control_version > 0),
  published_at timestamptz,
  CHECK ((published_control_version IS NULL) = (published_at IS NULL))
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

ALTER SEQUENCE ${names.sequence} OWNED BY ${names.outbox}.id;

-- What pumps look for and claim.
CREATE INDEX control_events_outbox_pending ON ${names.outbox} (lane, id)
  WHERE published_at IS NULL AND parked_at IS NULL;

-- Pending rows that wait for a retry: their keys wait with them.
CREATE INDEX control_events_outbox_waiting ON ${names.outbox} (next_attempt_at)
  WHERE published_at IS NULL AND parked_at IS NULL AND next_attempt_at IS NOT NULL;

CREATE INDEX control_events_outbox_parked ON ${names.outbox} (lane, id)
  WHERE published_at IS NULL AND parked_at IS NOT NULL;

-- Two transactions of one ordering key commit in the order of their ids: the lock is held until the end of the
-- transaction, and the id is drawn after it. The transaction gets its xid before it draws, so that whoever sees the id
-- drawn can wait for the transaction.
CREATE FUNCTION ${quote(names.schema)}.control_events_outbox_before_insert() RETURNS trigger LANGUAGE plpgsql AS ${literal(`
BEGIN
  IF NEW.ordering_key IS NULL THEN
    NEW.ordering_key := coalesce(NEW.tenant_id, '');
  END IF;
  IF pg_advisory_xact_lock(${names.orderLock}, ${bucketOf("NEW.ordering_key")}) IS NOT NULL
     AND pg_current_xact_id() IS NOT NULL THEN
    NEW.id := nextval(${literal(names.sequence)});
  END IF;
  RETURN NEW;
END
`)};

CREATE TRIGGER control_events_outbox_before_insert BEFORE INSERT ON ${names.outbox}
  FOR EACH ROW EXECUTE FUNCTION ${quote(names.schema)}.control_events_outbox_before_insert();

-- Notifies only when a pump waits: a pump that is at work finds the row without, and NOTIFY in every commit would make
-- commits queue for one lock.
CREATE FUNCTION ${quote(names.schema)}.control_events_outbox_after_insert() RETURNS trigger LANGUAGE plpgsql AS ${literal(`
BEGIN
  IF NOT pg_try_advisory_xact_lock_shared(${names.armLock}, 0) THEN
    PERFORM pg_notify(${literal(names.channel)}, 'append');
  END IF;
  RETURN NULL;
END
`)};

CREATE TRIGGER control_events_outbox_after_insert AFTER INSERT ON ${names.outbox}
  FOR EACH STATEMENT EXECUTE FUNCTION ${quote(names.schema)}.control_events_outbox_after_insert();
`
