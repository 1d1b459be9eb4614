import { literal, quote, type Names } from "./names.js"

/** The remains of a discarded row after its payload is erased, qualified and without arguments. */
export const erasedRow = ({ schema }: Names): string => `${quote(schema)}.control_events_audit_erased`

/** The marker for an event's row, and the artifact that it names, qualified and without arguments. */
export const markerOf = ({ schema }: Names): string => `${quote(schema)}.control_events_outbox_marker`

/**
 * Migration 4: an erased payload is all that can change in the audit. What changed something is found among reads, and a
 * discarded row by its event. Nothing in it touches the outbox's own table.
 */
export const audited = (names: Names): string => `
CREATE INDEX control_events_audit_changes ON ${names.audit} (id) WHERE action NOT IN ('read', 'refused');

CREATE INDEX control_events_audit_discarded ON ${names.audit} (event_id) WHERE discarded IS NOT NULL;

-- Text of JSON may have escapes that no text of PostgreSQL can have: then the marker alone is left.
CREATE FUNCTION ${erasedRow(names)}(discarded json, marker json) RETURNS json LANGUAGE plpgsql IMMUTABLE
  SET search_path = pg_catalog, pg_temp AS ${literal(`
BEGIN
  RETURN (SELECT json_object_agg(key, CASE key WHEN 'payload_json' THEN marker WHEN 'last_error' THEN 'null'::json ELSE value END)
    FROM json_each(discarded));
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
  RETURN json_build_object('payload_json', marker);
END
`)};

-- A published payload is a valid event. What makes it one stays; rows of other programs may have it in the payload alone.
CREATE FUNCTION ${markerOf(names)}(event ${names.outbox}) RETURNS json LANGUAGE plpgsql STABLE
  SET search_path = pg_catalog, pg_temp AS ${literal(`
DECLARE
  payload json := event.payload_json;
BEGIN
  RETURN json_build_object('artifact_ref', payload -> 'artifact_ref', 'marker', json_strip_nulls(json_build_object(
    'event_id', event.event_id, 'type', event.event_type, 'tenant_id', payload -> 'tenant_id',
    'stack_id', payload -> 'stack_id', 'version', payload -> 'version', 'base_version', payload -> 'base_version',
    'created_at', payload -> 'created_at', 'erased', true)));
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
  RETURN json_build_object('artifact_ref', event.artifact_ref, 'marker', json_strip_nulls(json_build_object(
    'event_id', event.event_id, 'type', event.event_type, 'tenant_id', event.tenant_id, 'stack_id', event.stack_id,
    'version', event.version, 'base_version', event.base_version, 'erased', true)));
END
`)};

CREATE OR REPLACE FUNCTION ${quote(names.schema)}.control_events_audit_keep() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS ${literal(`
BEGIN
  IF TG_OP = 'UPDATE' AND (OLD.id, OLD.at, OLD.action, OLD.actor, OLD.reason, OLD.event_id, OLD.filter::text, OLD.affected)
      IS NOT DISTINCT FROM (NEW.id, NEW.at, NEW.action, NEW.actor, NEW.reason, NEW.event_id, NEW.filter::text, NEW.affected)
    AND OLD.discarded IS NOT NULL AND NEW.discarded IS NOT NULL
    AND NEW.discarded -> 'payload_json' ->> 'erased' = 'true'
    AND NEW.discarded::text = ${erasedRow(names)}(OLD.discarded, NEW.discarded -> 'payload_json')::text THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'the audit of the outbox is only added to: % is refused', TG_OP
    USING ERRCODE = 'insufficient_privilege', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
END
`)};
`
