import * as SqlClient from "@effect/sql/SqlClient"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit } from "effect"
import type { ControlEvent, ControlVersion } from "../../src/index.js"
import { Handlers } from "../../src/fleet/index.js"
import * as RowsArtifact from "../../src/cli/internal/rowsArtifact.js"
import { layerClient } from "../support/postgres.js"

const event = { type: "entitlement.updated", event_id: "e1", control_version: 1 } as ControlEvent.ControlEvent & {
  readonly control_version: ControlVersion.ControlVersion
}

const allowed = RowsArtifact.handlers(new Set(["public.tenants", 'odd "one.Ta"ble', "public.nowhere"]))

const applyText = (text: string | Uint8Array) => allowed.handle({ event, artifact: Buffer.from(text) })

const apply = (artifact: object) => applyText(JSON.stringify(artifact))

const tenants = { db: "public", table: "tenants", pk: ["id"] }

layer(layerClient, { excludeTestServices: true })("an artifact of rows", (it) => {
  /** Runs in a transaction that leaves nothing. */
  const withTable = <A, E>(
    columns: string,
    use: (sql: SqlClient.SqlClient) => Effect.Effect<A, E, SqlClient.SqlClient>
  ) =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const used = Effect.zipRight(sql.unsafe(`CREATE TABLE tenants (${columns})`), use(sql))
      const result = yield* used.pipe(Effect.exit, Effect.flatMap(Effect.fail), sql.withTransaction, Effect.flip)
      return yield* Exit.isExit(result) ? (result as Exit.Exit<A, E>) : Effect.die(result)
    })

  const rowsOf = (sql: SqlClient.SqlClient) =>
    sql<{ readonly row: string }>`SELECT to_jsonb(tenants)::text AS row FROM tenants ORDER BY id`.pipe(
      Effect.map((rows) => rows.map(({ row }) => row))
    )

  it.effect("inserts rows, changes the columns that it has, and deletes", () =>
    withTable("id text PRIMARY KEY, plan text, note text DEFAULT 'none'", (sql) =>
      Effect.gen(function* () {
        yield* apply({
          ...tenants,
          op: "upsert",
          rows: [
            { id: "a", plan: "free" },
            { id: "b", plan: null }
          ]
        })
        assert.deepStrictEqual(yield* rowsOf(sql), [
          '{"id": "a", "note": "none", "plan": "free"}',
          '{"id": "b", "note": "none", "plan": null}'
        ])
        yield* sql`UPDATE tenants SET note = 'kept'`
        yield* apply({ ...tenants, op: "upsert", rows: [{ id: "a", plan: "gold" }] })
        // Nothing but the key: the row is there, and that is all it says.
        yield* apply({ ...tenants, op: "upsert", rows: [{ id: "a" }] })
        yield* apply({
          ...tenants,
          op: "delete",
          rows: [
            { id: "b", plan: "whatever" },
            { id: "nobody", plan: null }
          ]
        })
        yield* apply({ ...tenants, op: "delete", rows: [] })
        assert.deepStrictEqual(yield* rowsOf(sql), ['{"id": "a", "note": "kept", "plan": "gold"}'])
      })
    )
  )

  it.effect("keeps values as they are: digits, nesting, arrays, bytes and generated keys", () =>
    withTable("id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n numeric, j json, a text[], b bytea", (sql) =>
      Effect.gen(function* () {
        const row = String.raw`{"id":9007199254740993,"n":0.10,"j":{"x":1e400},"a":["x",null],"b":"\\x00ff"}`
        yield* applyText(`{"db":"public","table":"tenants","op":"upsert","pk":["id"],"rows":[${row}]}`)
        const found = yield* sql`SELECT id::text, n::text, j::text, a, encode(b, 'hex') AS b FROM tenants`
        assert.deepStrictEqual(found, [
          { id: "9007199254740993", n: "0.10", j: '{"x":1e400}', a: ["x", null], b: "00ff" }
        ])
      })
    )
  )

  it.effect("loses no column that has a name of JavaScript's own", () =>
    withTable('id text PRIMARY KEY, "__proto__" text, "constructor" text', (sql) =>
      Effect.gen(function* () {
        const upsert = (...rows: ReadonlyArray<string>) =>
          applyText(`{"db":"public","table":"tenants","op":"upsert","pk":["id"],"rows":[${rows.join(",")}]}`)
        yield* upsert('{"id":"a","__proto__":"p","constructor":"c"}')
        assert.deepStrictEqual(yield* rowsOf(sql), ['{"id": "a", "__proto__": "p", "constructor": "c"}'])
        const { reason } = yield* Effect.flip(
          upsert('{"id":"b","constructor":"c"}', '{"id":"d","__proto__":"p"}')
        ).pipe(Effect.filterOrDieMessage((error) => error._tag === "CannotApply", "refused for another reason"))
        assert.match(reason, /"rows.1" has other columns than "rows.0"$/)
      })
    )
  )

  it.effect("quotes every name", () =>
    withTable("id int", (sql) =>
      Effect.gen(function* () {
        yield* sql.unsafe(`CREATE SCHEMA "odd ""one"`)
        yield* sql.unsafe(
          `CREATE TABLE "odd ""one"."Ta""ble" ("a b" int, "c""d" int, x int, PRIMARY KEY ("a b", "c""d"))`
        )
        const odd = { db: 'odd "one', table: 'Ta"ble', pk: ["a b", 'c"d'] }
        const row = { "a b": 1, 'c"d': 2 }
        yield* apply({
          ...odd,
          op: "upsert",
          rows: [
            { ...row, x: 3 },
            { "a b": 1, 'c"d': 3, x: 4 }
          ]
        })
        yield* apply({ ...odd, op: "delete", rows: [row] })
        assert.deepStrictEqual(yield* sql.unsafe(`SELECT * FROM "odd ""one"."Ta""ble"`), [{ "a b": 1, 'c"d': 3, x: 4 }])
      })
    )
  )

  const malformed: ReadonlyArray<readonly [string, string | Uint8Array, RegExp]> = [
    ["bytes that are no text", new Uint8Array([0xff]), /it is not UTF-8$/],
    ["text that is no JSON", "{", /artifact is invalid: its JSON is invalid$/],
    ["no table", JSON.stringify({ db: "public", op: "upsert", pk: ["id"], rows: [] }), /"table" is missing$/],
    ["another operation", JSON.stringify({ ...tenants, op: "drop", rows: [] }), /"op" is invalid$/],
    [
      "a field too many",
      JSON.stringify({ ...tenants, op: "upsert", rows: [], where: "x" }),
      /"where" is not a known field$/
    ],
    ["no key", JSON.stringify({ ...tenants, pk: [], op: "upsert", rows: [] }), /"pk.0" is missing$/],
    ["a row that is none", JSON.stringify({ ...tenants, op: "upsert", rows: [1] }), /"rows.0" is invalid$/],
    [
      "rows of different columns",
      JSON.stringify({ ...tenants, op: "upsert", rows: [{ id: "a", plan: "x" }, { id: "b" }] }),
      /"rows.1" has other columns than "rows.0"$/
    ],
    [
      "a row without its key",
      JSON.stringify({ ...tenants, op: "delete", rows: [{ plan: "x" }] }),
      /"rows.0" has no "id", which pk names$/
    ],
    [
      "a key twice",
      JSON.stringify({
        ...tenants,
        op: "upsert",
        rows: [
          { id: 1, plan: "a" },
          { id: 1, plan: "b" }
        ]
      }),
      /^public\.tenants: ON CONFLICT .* a second time$/
    ],
    [
      "a value that the column cannot hold",
      JSON.stringify({ ...tenants, op: "upsert", rows: [{ id: "x" }] }),
      /^public\.tenants: invalid input syntax for type integer/
    ],
    [
      "a constraint that is broken",
      JSON.stringify({ ...tenants, op: "upsert", rows: [{ id: -1 }] }),
      /^public\.tenants: .* violates check constraint/
    ]
  ]
  it.effect.each(malformed)("can never be applied with %s", ([, artifact, reason]) =>
    withTable("id int PRIMARY KEY CHECK (id > 0), plan text", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(applyText(artifact))
        assert.instanceOf(error, Handlers.CannotApply)
        assert.match(error.message, reason)
      })
    )
  )

  const mendable: ReadonlyArray<readonly [string, object, RegExp]> = [
    [
      "is not allowed",
      { ...tenants, table: "stacks", rows: [] },
      /the table "public\.stacks" is not allowed: add it to APPLY_TABLES/
    ],
    [
      "is not there",
      { ...tenants, table: "nowhere", rows: [{ id: 1 }] },
      /public\.nowhere: relation "public\.nowhere" does not exist/
    ],
    ["lacks a column", { ...tenants, rows: [{ id: 1, plan: "x" }] }, /public\.tenants: column "plan" .* does not exist/]
  ]
  it.effect.each(mendable)("waits for its table where that %s", ([, artifact, reason]) =>
    withTable("id int PRIMARY KEY", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(apply({ op: "upsert", ...artifact }))
        assert.instanceOf(error, Handlers.HandlerFailed)
        assert.match(error.message, reason)
      })
    )
  )

  it.effect("is not wanted of every event", () => allowed.handle({ event, artifact: undefined }))
})
