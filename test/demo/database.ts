import { Effect, type Scope } from "effect"
import * as Pg from "pg"
import { DemoError } from "./error.js"

export interface Database {
  readonly url: string
  readonly query: <Row extends Pg.QueryResultRow>(text: string) => Effect.Effect<ReadonlyArray<Row>, DemoError>
}

/** A connection to look at a database with. */
export const database = (url: string): Effect.Effect<Database, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new Pg.Pool({ connectionString: url, max: 1 }).on("error", () => {})),
    (pool) => Effect.promise(() => pool.end())
  ).pipe(
    Effect.map((pool) => ({
      url,
      query: <Row extends Pg.QueryResultRow>(text: string) =>
        Effect.tryPromise({
          try: () => pool.query<Row>(text).then(({ rows }) => rows),
          catch: (cause) => new DemoError({ message: String(cause) })
        })
    }))
  )

/** What the admin service keeps, every node a copy of, and a journal of what was done to it. */
export const tables = `
  CREATE TABLE tenants (id text PRIMARY KEY, name text NOT NULL, plan text NOT NULL, changes int NOT NULL);
  CREATE TABLE stacks (id text PRIMARY KEY, tenant_id text NOT NULL, version int NOT NULL, region text NOT NULL);
  CREATE TABLE journal (n bigserial PRIMARY KEY, tenant_id text NOT NULL, change text NOT NULL);
  CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
      changed jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    BEGIN
      INSERT INTO journal (tenant_id, change)
        VALUES (coalesce(changed->>'tenant_id', changed->>'id'), TG_OP || ' ' || TG_TABLE_NAME || ' ' || changed);
      RETURN NULL;
    END $$;
  CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON tenants FOR EACH ROW EXECUTE FUNCTION note();
  CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON stacks FOR EACH ROW EXECUTE FUNCTION note();`

const contents = {
  tenants: "SELECT * FROM tenants ORDER BY id",
  stacks: "SELECT * FROM stacks ORDER BY id",
  // A change that was made twice, or in another order than at the admin's, leaves the same rows and another journal.
  journal: "SELECT tenant_id, array_agg(change ORDER BY n) FROM journal GROUP BY tenant_id ORDER BY tenant_id"
}

/** The tables in which two databases differ. */
export const differences = (one: Database, other: Database): Effect.Effect<ReadonlyArray<string>, DemoError> =>
  Effect.filter(Object.keys(contents) as ReadonlyArray<keyof typeof contents>, (table) =>
    Effect.zipWith(
      one.query(contents[table]),
      other.query(contents[table]),
      (rows, others) => JSON.stringify(rows) !== JSON.stringify(others)
    )
  )

/** What the outbox holds. */
export const outbox = (admin: Database) =>
  admin
    .query<{
      readonly changes: number
      readonly published: number
      readonly newest: number
    }>(
      `SELECT count(*)::int AS changes, count(published_at)::int AS published,
        coalesce(max(published_control_version), 0)::int AS newest FROM control_events_outbox`
    )
    .pipe(Effect.map(([row]) => row!))

/** How far a node is. Before its first start has migrated, it is at 0. */
export const position = (node: Database): Effect.Effect<number> =>
  node.query<{ readonly position: number }>("SELECT control_version::int AS position FROM applied_position").pipe(
    Effect.map(([row]) => row?.position ?? 0),
    Effect.orElseSucceed(() => 0)
  )
