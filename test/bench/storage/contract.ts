import { quote, type Names } from "../../../src/postgres/internal/names.js"
import { payloadSql } from "../support/outbox.js"
import { median } from "../support/row.js"
import { cost, one, outbox, type Server } from "./cycle.js"
import { fillPublished } from "./looks.js"
import { base, columnsBefore } from "./schemas/view.js"
import type { Variant } from "./variant.js"

const appended = "event_id, event_type, tenant_id, payload_json, ordering_key"

const row = (n: string) =>
  `'e-' || ${n}, 'tenant.created', 't' || ${n} % 500, (${payloadSql(500, 150)
    .replaceAll(/\bn\b(?! %)/g, n)
    .replaceAll(/\bn %/g, `${n} %`)})::json, 't' || ${n} % 500`

/** An INSTEAD OF trigger, which COPY into a view needs. */
const insteadOf = (names: Names): string => `
CREATE FUNCTION ${quote(names.schema)}.control_events_outbox_instead() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO ${base(names)} (id, event_id, event_type, tenant_id, stack_id, version, base_version, artifact_ref, checksum,
      payload_json, ordering_key, traceparent, created_at)
    VALUES (NEW.id, NEW.event_id, NEW.event_type, NEW.tenant_id, NEW.stack_id, NEW.version, NEW.base_version,
      NEW.artifact_ref, NEW.checksum, NEW.payload_json, NEW.ordering_key, NEW.traceparent, coalesce(NEW.created_at, now()))
    RETURNING id INTO NEW.id;
  RETURN NEW;
END $$;
CREATE TRIGGER control_events_outbox_instead INSTEAD OF INSERT ON ${names.outbox}
  FOR EACH ROW EXECUTE FUNCTION ${quote(names.schema)}.control_events_outbox_instead();
`

/** What a statement answers: nothing, if it works. Whatever it does is rolled back. */
const attempt = async ({ client }: Server, text: string): Promise<string> => {
  await client.query("BEGIN")
  try {
    await client.query("SET LOCAL statement_timeout = '600s'")
    await client.query(text)
    return "works"
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  } finally {
    await client.query("ROLLBACK")
  }
}

/** What people and programs do with `control_events_outbox` beside appending and reading. */
const statements = ({ outbox, schema }: Names, file: string): Readonly<Record<string, string>> => ({
  "INSERT … ON CONFLICT (event_id) DO NOTHING RETURNING event_id": `INSERT INTO ${outbox} (${appended})
    SELECT ${row("1")} ON CONFLICT (event_id) DO NOTHING RETURNING event_id`,
  "COPY … FROM": `COPY ${outbox} (${appended}) FROM '${file}'`,
  "INSERT of a published row (restore)": `SET LOCAL controlpublish.restore = on;
    INSERT INTO ${outbox} (id, ${appended}, published_control_version, published_at)
    SELECT 999999999, ${row("0")}, 7, now()`,
  "UPDATE … SET published_at = NULL": `UPDATE ${outbox} SET published_at = NULL, published_control_version = NULL WHERE event_id = 'e-5'`,
  "UPDATE … SET payload_json": `UPDATE ${outbox} SET payload_json = '{}' WHERE event_id = 'e-5'`,
  "DELETE … WHERE event_id": `DELETE FROM ${outbox} WHERE event_id = 'e-5'`,
  "SELECT … FOR UPDATE": `SELECT FROM ${outbox} WHERE event_id = 'e-5' FOR UPDATE`,
  "LOCK TABLE": `LOCK TABLE ${outbox} IN SHARE MODE`,
  TRUNCATE: `TRUNCATE ${outbox}`,
  "REFERENCES (id)": `CREATE TABLE ${quote(schema)}.referring (id bigint REFERENCES ${outbox} (id))`,
  "CREATE TRIGGER … AFTER INSERT FOR EACH ROW": `CREATE TRIGGER other AFTER INSERT ON ${outbox} FOR EACH ROW
    EXECUTE FUNCTION ${quote(schema)}.control_events_outbox_after_insert()`,
  "CREATE PUBLICATION … FOR TABLE": `CREATE PUBLICATION ${quote(schema)} FOR TABLE ${outbox}`,
  "CREATE INDEX": `CREATE INDEX ON ${outbox} (tenant_id)`,
  "ALTER TABLE … SET (autovacuum_…)": `ALTER TABLE ${outbox} SET (autovacuum_vacuum_threshold = 5)`,
  // With a trigger for updates alone, which a view can have: whether that takes anything from an INSERT.
  "ON CONFLICT beside INSTEAD OF UPDATE": `
    CREATE FUNCTION ${quote(schema)}.instead() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER instead INSTEAD OF UPDATE ON ${outbox} FOR EACH ROW EXECUTE FUNCTION ${quote(schema)}.instead();
    INSERT INTO ${outbox} (${appended}) SELECT ${row("7")} ON CONFLICT (event_id) DO NOTHING RETURNING event_id;
    UPDATE ${outbox} SET published_at = NULL, published_control_version = NULL WHERE event_id = 'e-7'`
})

/** What an append costs the server, in microseconds of CPU, by each way to append. */
export const appends = async (server: Server, title: string, variant: Variant, instead: boolean, events: number) => {
  const { client } = server
  const names = await outbox(server, variant)
  const source = server.fresh()
  const { directory } = await one<{ directory: string }>(client, "SHOW data_directory").then((row) => ({
    directory: Object.values(row)[0]!
  }))
  const file = `${directory}/${source}.copy`
  try {
    if (instead) await client.query(insteadOf(names))
    let last = 0
    const next = (count: number) => {
      const from = last + 1
      last += count
      return [from, last] as const
    }
    const singles = Math.min(events, 3_000)
    const [first] = next(singles)
    const single = await cost(server, singles, async () => {
      for (let n = first; n < first + singles; n++) {
        await client.query(`INSERT INTO ${names.outbox} (${appended}) SELECT ${row(String(n))}`)
      }
    })
    const [from, to] = next(events)
    const many = await cost(server, events, async () => {
      for (let n = from; n <= to; n += 5_000) {
        await client.query(
          `INSERT INTO ${names.outbox} (${appended}) SELECT ${row("n")} FROM generate_series(${n}, ${Math.min(to, n + 4_999)}) n`
        )
      }
    })
    const [copyFrom, copyTo] = next(events)
    await client.query(`COPY (SELECT ${row("n")} FROM generate_series(${copyFrom}, ${copyTo}) n) TO '${file}'`)
    const copy = await cost(server, events, () =>
      client.query(`COPY ${names.outbox} (${appended}) FROM '${file}'`)
    ).catch((error: unknown) => (error instanceof Error ? error.message : String(error)))
    const conflict = await attempt(
      server,
      `INSERT INTO ${names.outbox} (${appended}) SELECT ${row("1")} ON CONFLICT (event_id) DO NOTHING RETURNING event_id`
    )
    return {
      through: title,
      single: single.cpu,
      many: many.cpu,
      copy: typeof copy === "string" ? copy : copy.cpu,
      conflict
    }
  } finally {
    await client.query(`DROP SCHEMA ${quote(names.schema)} CASCADE`)
  }
}

/** What reads through `control_events_outbox` take, in milliseconds, and which other statements it answers. */
export const reads = async (server: Server, variant: Variant, published: number) => {
  const { client } = server
  const names = await outbox(server, variant)
  try {
    await fillPublished(server, names, variant, published)
    const timed = async (text: string, times: number): Promise<number | string> => {
      const samples: Array<number> = []
      // One time is enough of what takes very long.
      for (let n = 0; n < times && (samples[0] ?? 0) < 20_000; n++) {
        const from = performance.now()
        const found = await attempt(server, text)
        if (found !== "works") return found
        samples.push(performance.now() - from)
      }
      return median(samples)
    }
    const { directory } = await one<{ directory: string }>(
      client,
      "SELECT current_setting('data_directory') AS directory"
    )
    const file = `${directory}/${names.schema}.copy`
    await client.query(`COPY (SELECT ${row("0")}) TO '${file}'`)
    const answers: Record<string, string> = {}
    for (const [what, text] of Object.entries(statements(names, file))) answers[what] = await attempt(server, text)
    return {
      schema: variant.name,
      times: {
        "published_at IS NULL, counted": await timed(
          `SELECT count(*) FROM ${names.outbox} WHERE published_at IS NULL`,
          3
        ),
        "the same AND parked_at IS NULL": await timed(
          `SELECT count(*) FROM ${names.outbox} WHERE published_at IS NULL AND parked_at IS NULL`,
          3
        ),
        "event_id = $1": await timed(
          `SELECT * FROM ${names.outbox} WHERE event_id = 'e-${Math.ceil(published / 2)}'`,
          21
        ),
        "the 50 newest": await timed(`SELECT * FROM ${names.outbox} ORDER BY id DESC LIMIT 50`, 21),
        "the newest 20,000, published": await timed(
          `SELECT count(published_at) FROM (SELECT * FROM ${names.outbox} ORDER BY id DESC LIMIT 20000) newest`,
          3
        )
      },
      answers
    }
  } finally {
    await client.query(`DROP SCHEMA ${quote(names.schema)} CASCADE`)
  }
}

/** What keeps event ids unique once the table has partitions, and what it costs an append. */
export const rotation = async (server: Server, events: number) => {
  const { client } = server
  const schema = server.fresh()
  const at = (name: string) => `${quote(schema)}.${name}`
  await client.query(`CREATE SCHEMA ${quote(schema)}; CREATE SEQUENCE ${at("id")}`)
  const columns = columnsBefore.replaceAll(/\s+/g, " ")
  try {
    const table = (name: string, partitions: number, unique: boolean, body: string) => `
      CREATE TABLE ${at(name)} (id bigint NOT NULL, event_id text COLLATE "C" NOT NULL, event_type text, tenant_id text,
        payload_json json, ordering_key text, lane smallint GENERATED ALWAYS AS ((hashtext(ordering_key) & 63)::smallint) STORED,
        appended_at timestamptz NOT NULL DEFAULT now()) ${partitions === 0 ? "" : "PARTITION BY RANGE (appended_at)"};
      ${Array.from(
        { length: partitions },
        (_, part) => `CREATE TABLE ${at(`${name}_${part}`)} PARTITION OF ${at(name)}
        FOR VALUES FROM (${part === 0 ? "MINVALUE" : `'${2000 + part}-01-01'`}) TO (${part === partitions - 1 ? "MAXVALUE" : `'${2001 + part}-01-01'`});`
      ).join("")}
      CREATE INDEX ON ${at(name)} (id); CREATE INDEX ON ${at(name)} (lane, id);
      CREATE ${unique ? "UNIQUE" : ""} INDEX ON ${at(name)} (event_id);
      CREATE FUNCTION ${at(`${name}_draw`)}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_advisory_xact_lock(1, hashtext(NEW.ordering_key) & 4095);
        NEW.id := nextval('${at("id")}');
        ${body}
        RETURN NEW; END $$;
      CREATE TRIGGER draw BEFORE INSERT ON ${at(name)} FOR EACH ROW EXECUTE FUNCTION ${at(`${name}_draw`)}();`
    await client.query(`CREATE TABLE ${at("ids")} (event_id text COLLATE "C" PRIMARY KEY)`)
    const ways: Readonly<Record<string, string>> = {
      "one table, UNIQUE (event_id)": table("single", 0, true, ""),
      "8 partitions, ids not unique": table("loose", 8, false, ""),
      "8 partitions, a table of ids": table("listed", 8, false, `INSERT INTO ${at("ids")} VALUES (NEW.event_id);`),
      "8 partitions, locked and looked up": table(
        "probed",
        8,
        false,
        `PERFORM pg_advisory_xact_lock(2, hashtext(NEW.event_id) & 4095);
        IF EXISTS (SELECT FROM ${at("probed")} other WHERE other.event_id = NEW.event_id) THEN
          RAISE EXCEPTION 'duplicate' USING ERRCODE = 'unique_violation'; END IF;`
      )
    }
    const names = ["single", "loose", "listed", "probed"]
    const found: Record<string, { readonly cpu: number; readonly wal: number }> = {}
    for (const text of Object.values(ways)) await client.query(text)
    for (const [index, way] of Object.keys(ways).entries()) {
      const insert = (from: number, to: number) =>
        client.query(
          `INSERT INTO ${at(names[index]!)} (${appended}) SELECT ${row("n")} FROM generate_series(${from}, ${to}) n`
        )
      await insert(1, 5_000)
      const { cpu, wal } = await cost(server, events, async () => {
        for (let n = 5_001; n <= 5_000 + events; n += 5_000) await insert(n, n + 4_999)
      })
      found[way] = { cpu, wal }
    }
    const byId = await attempt(
      server,
      `CREATE TABLE ${at("by_id")} (id bigint PRIMARY KEY, note text) PARTITION BY RANGE (id);
       CREATE TABLE ${at("by_id_1")} PARTITION OF ${at("by_id")} FOR VALUES FROM (1) TO (1000);
       CREATE TABLE ${at("by_id_2")} PARTITION OF ${at("by_id")} DEFAULT;
       CREATE FUNCTION ${at("draw")}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := 5; RETURN NEW; END $$;
       CREATE TRIGGER draw BEFORE INSERT ON ${at("by_id")} FOR EACH ROW EXECUTE FUNCTION ${at("draw")}();
       INSERT INTO ${at("by_id")} (id, note) VALUES (5000, 'x')`
    )
    const unique = await attempt(
      server,
      `CREATE TABLE ${at("u")} (id bigint, event_id text UNIQUE) PARTITION BY RANGE (id)`
    )
    const conflict = await attempt(
      server,
      `INSERT INTO ${at("loose")} (${appended}) SELECT ${row("1")} ON CONFLICT (event_id) DO NOTHING`
    )
    return {
      columns,
      found,
      "an id drawn by a BEFORE trigger as the partition key": byId,
      "UNIQUE (event_id)": unique,
      "ON CONFLICT (event_id)": conflict
    }
  } finally {
    await client.query(`DROP SCHEMA ${quote(schema)} CASCADE`)
  }
}
