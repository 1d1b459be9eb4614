import * as Attended from "./attended.js"
import * as Audited from "./audited.js"
import * as Guarded from "./guarded.js"
import { begin } from "./migrator.js"
import { literal, quote, type Names } from "./names.js"

type Roles = Readonly<Record<"append" | "operate" | "pump" | "view", ReadonlyArray<string>>>

/** The columns that an append writes. The trigger and the pump write the rest. */
const appended = `event_id, event_type, tenant_id, stack_id, version, base_version, artifact_ref, checksum, payload_json,
  ordering_key, traceparent, created_at`

/** A table, its privileges, and the roles that get them. Without roles there is no statement. */
const granting = (rights: string, on: string, roles: ReadonlyArray<string>): string =>
  roles.length === 0 ? "" : `GRANT ${rights} ON ${on} TO ${Array.from(new Set(roles)).map(quote).join(", ")};\n`

/**
 * For the server, a GRANT without the right to grant is a warning, not an error. So ownership of the tables and each
 * role's access to the schema are checked.
 */
const statements = (
  schema: string,
  table: string,
  roles: ReadonlyArray<string>,
  grants: ReadonlyArray<string>
): string => `
SET LOCAL search_path TO pg_catalog, pg_temp;
DO ${literal(`
DECLARE
  owner oid;
BEGIN
  SELECT relowner INTO owner FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = ${literal(schema)} AND relname = ${literal(table)};
  IF owner IS NULL THEN
    RAISE EXCEPTION 'the table ${table} is missing: migrate first' USING ERRCODE = 'undefined_table';
  END IF;
  IF NOT pg_has_role(owner, 'USAGE') THEN
    RAISE EXCEPTION 'the tables belong to the role %: grant as that role', owner::regrole
      USING ERRCODE = 'insufficient_privilege';
  END IF;
END
`)};
${grants.join("")}DO ${literal(`
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY[${roles.map(literal).join(", ")}]::text[] LOOP
    IF NOT has_schema_privilege(name, ${literal(schema)}, 'USAGE') THEN
      RAISE EXCEPTION 'the role % has no USAGE on the schema: have its owner grant it', quote_ident(name)
        USING ERRCODE = 'insufficient_privilege';
    END IF;
  END LOOP;
END
`)};
`

/** The rights of an outbox's roles. */
export const outbox = (names: Names, { append, operate, pump, view }: Roles): string => {
  const { attempts, audit, outbox, schema, sequence } = names
  const writers = [...operate, ...pump]
  const readers = [...view, ...writers]
  return statements(
    schema,
    names.table,
    [...append, ...readers],
    [
      granting("USAGE", `SCHEMA ${quote(schema)}`, [...append, ...readers]),
      granting("SELECT", `${quote(schema)}.controlpublish_migrations`, [...append, ...readers]),
      // For databases where functions are not executable by everybody.
      granting("EXECUTE", `FUNCTION ${Guarded.maxPayloadBytes(names)}`, [...append, ...readers]),
      granting(`INSERT (${appended}), SELECT (event_id)`, outbox, append),
      granting("EXECUTE", `FUNCTION ${Guarded.takeBack(names)}(text[])`, append),
      granting("SELECT", `${outbox}, ${attempts}, ${audit}`, readers),
      granting("SELECT", `SEQUENCE ${sequence}`, readers),
      granting("UPDATE (attempt_count, last_error, next_attempt_at, parked_at, payload_json), DELETE", outbox, writers),
      granting("DELETE", attempts, writers),
      granting("INSERT, UPDATE (discarded)", audit, writers),
      granting(
        "EXECUTE",
        `FUNCTION ${Audited.erasedRow(names)}(json, json), ${Audited.markerOf(names)}(${outbox})`,
        writers
      ),
      granting("UPDATE (last_attempt_at, published_control_version, published_at)", outbox, pump),
      granting("INSERT", attempts, pump),
      granting("SELECT", Attended.pumps(names), readers),
      granting("INSERT, UPDATE, DELETE", Attended.pumps(names), pump)
    ]
  )
}

/** The rights of a node's roles. */
export const node = (schema: string, roles: ReadonlyArray<string>): string => {
  const table = (name: string) => `${quote(schema)}.${name}`
  return statements(schema, "applied_events", roles, [
    granting("USAGE", `SCHEMA ${quote(schema)}`, roles),
    granting("SELECT", table("controlpublish_fleet_migrations"), roles),
    granting("SELECT, INSERT, UPDATE (feed, control_version), DELETE", table("applied_events"), roles),
    granting("SELECT, UPDATE (feed, control_version, marked_after)", table("applied_position"), roles)
  ])
}

export const inTransaction = (sql: string): string => `${begin};\n${sql}\nCOMMIT;\n`
