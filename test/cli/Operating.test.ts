import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { hostname, userInfo } from "node:os"
import { vi } from "vitest"
import { Migrations } from "../../src/postgres/index.js"
import { layerDatabase, rawClient, TestDatabase } from "../support/postgres.js"
import * as Controlpublish from "./support/controlpublish.js"

vi.setConfig({ testTimeout: 120_000 })

const latest = Migrations.latest.id

/** An outbox with events of all states, and the command to operate it. */
const operated = (schema: string) =>
  Effect.gen(function* () {
    const program = yield* Controlpublish.Program
    const { url } = yield* TestDatabase
    const env = { DATABASE_URL: Redacted.value(url), DATABASE_SCHEMA: schema }
    const client = yield* rawClient
    const query = (sql: string) =>
      Effect.promise(async () => (await client.query(sql)).rows as ReadonlyArray<Record<string, unknown>>)
    const run = (args: ReadonlyArray<string>, more: Record<string, string> = {}) =>
      Controlpublish.run(program, args, { env: { ...env, ...more } })
    const json = (args: ReadonlyArray<string>, more: Record<string, string> = {}) =>
      Effect.map(run([...args, "--json"], more), ({ code, stderr, stdout }) => {
        assert.strictEqual(code, 0, stderr)
        return JSON.parse(stdout) as unknown
      })
    yield* run(["migrate"])
    const outbox = `"${schema}".control_events_outbox`
    yield* query(
      `INSERT INTO ${outbox} (event_id, event_type, tenant_id, payload_json, created_at)
         SELECT 'e' || n, 'tenant.created', 't' || n % 2, json_build_object('event_id', 'e' || n, 'text', E'\\u001b[2Jred\\u202e'),
           '2026-01-01T00:00:00Z'::timestamptz + n * interval '1 hour'
         FROM generate_series(1, 8) n;
       UPDATE ${outbox} SET parked_at = '2026-02-01', attempt_count = 3, last_error = E'no\\n\\u001b[31msuch thing'
         WHERE event_id IN ('e1', 'e2', 'e3');
       UPDATE ${outbox} SET published_at = '2026-01-02', published_control_version = 41, attempt_count = 1
         WHERE event_id IN ('e4', 'e5');
       INSERT INTO "${schema}".control_events_attempts (outbox_id, at, error)
         SELECT id, '2026-02-01', 'no such thing' FROM ${outbox} WHERE event_id = 'e1'`
    )
    return { env, json, outbox, program, query, run }
  })

const fails = (result: Controlpublish.Result, code: number, line: RegExp) => {
  assert.deepStrictEqual([result.code, result.stdout], [code, ""], result.stderr)
  assert.match(result.stderr, line)
  assert.match(result.stderr, /^controlpublish: [^\n]*\n$/)
}

/** Nothing in it moves a terminal's cursor. */
const isHarmless = (text: string) => assert.notMatch(text, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/)

const idsOf = (page: unknown) => (page as { events: ReadonlyArray<{ eventId: string }> }).events.map((e) => e.eventId)

layer(Layer.merge(Controlpublish.layerProgram, layerDatabase), { excludeTestServices: true, timeout: 300_000 })(
  "controlpublish, operating",
  (it) => {
    it.scoped("lists and shows events, for people and for scripts", () =>
      Effect.gen(function* () {
        const { json, run } = yield* operated("looking")
        const listed = yield* run(["events", "--state", "parked", "--tenant", "t1"])
        assert.strictEqual(listed.code, 0, listed.stderr)
        isHarmless(listed.stdout)
        assert.match(listed.stdout, /^EVENT {2}TYPE +KEY {2}CREATED +STATE +ATTEMPTS {2}ERROR\n/)
        assert.match(
          listed.stdout,
          /^e3 +tenant\.created {2}t1 +2026-01-01T03:00:00\.000Z {2}parked +3 +no \ufffd\[31msuch/m
        )
        assert.strictEqual(listed.stdout.trim().split("\n").length, 3)

        const first = (yield* json(["events", "--limit", "3"])) as { next: string }
        assert.deepStrictEqual(idsOf(first), ["e8", "e7", "e6"])
        const second = yield* json(["events", "--limit", "3", "--cursor", first.next])
        assert.deepStrictEqual(idsOf(second), ["e5", "e4", "e3"])
        assert.deepStrictEqual(
          idsOf(yield* json(["events", "--since", "2026-01-01T02:00:00Z", "--until", "2026-01-01T04:00:00Z"])),
          ["e3", "e2"]
        )
        assert.deepStrictEqual(idsOf(yield* json(["events", "--since", "1s"])), [])

        const shown = yield* run(["show", "e1"])
        assert.strictEqual(shown.code, 0, shown.stderr)
        isHarmless(shown.stdout)
        for (const line of [/^state {5}parked$/m, /^error {5}no \ufffd\[31msuch thing$/m, /^ {4}"event_id": "e1",$/m]) {
          assert.match(shown.stdout, line)
        }
        assert.match(
          shown.stdout,
          /^failed attempts\n {2}AT.*\n {2}2026-02-01T00:00:00.000Z {2}parked {2}no such thing$/m
        )
        const event = (yield* json(["show", "e4"])) as Record<string, unknown>
        assert.deepInclude(event, { state: "published", controlVersion: 41, publishedAt: "2026-01-02T00:00:00.000Z" })
      })
    )

    it.scoped("shows the beginning of a large payload, and prints all of it where it is wanted raw", () =>
      Effect.gen(function* () {
        const { json, outbox, query, run } = yield* operated("large")
        yield* query(`INSERT INTO ${outbox} (event_id, event_type, payload_json) VALUES
          ('small', 'x', '{"b": 1,"a":12345678901234567890}'),
          ('large', 'x', ('{"text":"' || repeat('ü', 3000000) || '"}')::json)`)
        yield* query(`BEGIN; SET LOCAL session_replication_role = replica; INSERT INTO ${outbox}
          (id, event_id, event_type, ordering_key, payload_json)
          VALUES (nextval(pg_get_serial_sequence('${outbox}', 'id')), 'beyond', repeat('t', 300000), 'k', ('"' || repeat('x', 9000000) || '"')::json); COMMIT`)
        const raw = yield* run(["show", "--raw", "small"])
        assert.deepStrictEqual([raw.code, raw.stdout], [0, `{"b": 1,"a":12345678901234567890}\n`])
        const shown = yield* run(["show", "large"])
        assert.strictEqual(shown.code, 0, shown.stderr)
        assert.isBelow(shown.stdout.length, 300_000)
        assert.match(shown.stdout, /\ncut: the first part of 6000011 bytes; --raw prints all of them\n$/)
        const cut = (yield* json(["show", "large"])) as Record<string, unknown>
        assert.deepInclude(cut, { payloadCut: true, payloadBytes: 6_000_011 })
        assert.strictEqual((yield* run(["show", "--raw", "large"])).stdout, `{"text":"${"ü".repeat(3_000_000)}"}\n`)

        const beyond = yield* run(["show", "beyond"])
        assert.match(beyond.stdout, /^cut {7}type$/m)
        assert.match(beyond.stdout, /\npayload\nnot shown: 9000002 bytes\n$/)
        fails(
          yield* run(["show", "--raw", "beyond"]),
          1,
          /beyond the outbox's limit: it has 9000002 bytes; it was not read/
        )
        fails(yield* run(["show", "--raw", "none"]), 3, /holds no event with the id "none"/)
        fails(
          yield* run(["show", "--raw", "--json", "small"]),
          2,
          /--raw prints the payload alone: leave out --json, or --raw/
        )
      })
    )

    it.scoped("says with its exit code what is wrong", () =>
      Effect.gen(function* () {
        const { run } = yield* operated("failing")
        const cases: ReadonlyArray<readonly [ReadonlyArray<string>, number, RegExp]> = [
          [["show", "none"], 3, /The outbox holds no event with the id "none"/],
          [["park", "none", "--reason", "x"], 3, /holds no event/],
          [["redrive", "e1", "none"], 3, /Nothing was redriven\. "none": .*holds no event/],
          [["redrive", "none", "e4", "e1"], 3, /"none": .*; "e4": The event is published/],
          // None of these did anything to the one that could be redriven.
          [["park", "e1", "--reason", "x"], 4, /"e1": The event is parked/],
          [["park", "e4", "--reason", "x"], 4, /"e4": The event is published: only one that is pending can be parked/],
          [["discard", "e4", "--reason", "x"], 4, /only one that is not published can be discarded/],
          [["redrive", "e8"], 4, /only one that is parked can be redriven/],
          [["park", "e8", "--reason", " "], 2, /--reason: got "", valid is text of 1 to 500 characters/],
          [["redrive", "e1", "--dry-run"], 2, /"--dry-run" is not an option of redrive/],
          [["redrive"], 2, /redrive needs ids, a filter/],
          [["redrive", "--all", "e1"], 2, /redrive needs ids, a filter/],
          [["events", "--state", "lost"], 2, /--state: got "lost", valid is pending, waiting, parked or published/],
          [["events", "--limit", "501"], 2, /--limit: got "501", valid is an integer from 1 to 500/],
          [["events", "--cursor", "x"], 2, /--cursor: got "x"/],
          [["events", "--since", "soon"], 2, /--since: got "soon", valid is a time/],
          [["prune", "--retention", "off"], 1, /The retention is off/]
        ]
        yield* Effect.forEach(
          cases,
          ([args, code, line]) => Effect.map(run(args), (result) => fails(result, code, line)),
          { concurrency: 3, discard: true }
        )
        // A terminal that reads the logs is told nothing by what others wrote.
        for (const LOG_FORMAT of ["logfmt", "json"]) {
          const { stderr } = yield* run(["show", "\u009b31m\u202ered", "--log-level", "debug"], { LOG_FORMAT })
          assert.match(stderr, /\ufffd31m\ufffdred/)
          assert.notMatch(stderr, /[\u009b\u202e]/)
        }
        // Without a reason.
        assert.strictEqual((yield* run(["discard", "e8"])).code, 2)
      })
    )

    it.scoped("redrives, parks, discards and prunes, and the audit tells who did", () =>
      Effect.gen(function* () {
        const { json, outbox, query, run } = yield* operated("mending")
        assert.match((yield* run(["redrive", "e1"])).stdout, /^Redrove 1 event\.\n$/)
        assert.deepStrictEqual(yield* json(["redrive", "--tenant", "t1", "--reason", "broker mended"]), { affected: 1 })
        assert.match((yield* run(["redrive", "--all"])).stdout, /^Redrove 1 event\.\n$/)
        assert.match((yield* run(["park", "e7", "--reason", "ticket 7"])).stdout, /^Parked e7\.\n$/)
        assert.match((yield* run(["discard", "e8", "--reason", "ticket 8"])).stdout, /^Discarded e8\.\n$/)
        assert.match((yield* run(["prune"], { RETENTION: "1 event" })).stdout, /^Removed 1 published event\.\n$/)
        assert.deepStrictEqual(
          yield* query(
            `SELECT event_id AS id, parked_at IS NOT NULL AS parked FROM ${outbox} WHERE event_id > 'e3' ORDER BY id`
          ),
          ["e5", "e6", "e7"].map((id) => ({ id, parked: id === "e7" }))
        )
        const { entries } = (yield* json(["audit"])) as { entries: ReadonlyArray<Record<string, unknown>> }
        assert.deepStrictEqual(
          entries.map(({ action, eventId, filter, reason }) => [action, eventId ?? filter, reason]),
          [
            ["prune", undefined, "pruned from the command line"],
            ["discard", "e8", "ticket 8"],
            ["park", "e7", "ticket 7"],
            ["redrive", {}, "redriven from the command line"],
            ["redrive", { tenantId: "t1" }, "broker mended"],
            ["redrive", "e1", "redriven from the command line"]
          ]
        )
        assert.isTrue(entries.every(({ actor }) => actor === `cli ${userInfo().username}@${hostname()}`))
        const erased = yield* run(["erase", "e5", "--reason", "ticket 9"])
        assert.match(
          erased.stdout,
          /^Erased the payload of e5\.\nThe feed has the payload as control version 41 until /
        )
        const shown = (yield* json(["show", "e5"])) as { readonly payload: string }
        assert.deepInclude(JSON.parse(shown.payload), { event_id: "e5", erased: true })
        fails(yield* run(["erase", "e6", "--reason", "x"]), 4, /The event is pending: only one that is published/)
        fails(yield* run(["erase", "none", "--reason", "x"]), 3, /holds no event/)
        const reads = (yield* json(["audit", "--limit", "1"])) as { entries: ReadonlyArray<Record<string, unknown>> }
        assert.deepInclude(reads.entries[0], { action: "read", eventId: "e5" })
        const audited = yield* run(["audit", "--changes", "--limit", "5"])
        assert.match(audited.stdout, /erase +e5 /)
        assert.match(audited.stdout, /redrive {2}1 parked event +cli /)
        assert.match(audited.stdout, /prune {4}\d+ published events? +cli /)
        assert.match(audited.stdout, /\nMore: --cursor \d+\n$/)
      })
    )

    it.scoped("watches, until it is stopped", () =>
      Effect.gen(function* () {
        const { env, outbox, program, query } = yield* operated("watching")
        const watching = yield* Controlpublish.start(program, ["status", "--watch", "--json"], { env })
        yield* watching.waitFor(/"pending":{"value":3,"exact":true}/)
        yield* query(`DELETE FROM ${outbox} WHERE event_id = 'e8'`)
        yield* watching.waitFor(/"pending":{"value":2,"exact":true}/)
        const { code, stdout } = yield* watching.stop("SIGINT")
        assert.strictEqual(code, 0)
        for (const line of stdout.trim().split("\n")) JSON.parse(line)
      })
    )

    it.scoped("looks, with a warning, while the sequence is behind, and changes nothing", () =>
      Effect.gen(function* () {
        const { outbox, query, run } = yield* operated("behind")
        yield* query(`SELECT setval(pg_get_serial_sequence('${outbox}', 'id'), 1)`)
        const warning =
          /^controlpublish: warning: the sequence .* is at 1, but the outbox has the id 8: .* run SELECT setval/
        for (const look of [
          ["status"],
          ["status", "--json"],
          ["events"],
          ["show", "e1"],
          ["show", "e1", "--raw"],
          ["audit"]
        ]) {
          const { code, stderr, stdout } = yield* run(look)
          assert.deepStrictEqual([code, stdout === ""], [0, false], stderr)
          assert.match(stderr, warning, look.join(" "))
          assert.strictEqual(stderr.trimEnd().split("\n").length, 1, stderr)
        }
        fails(yield* run(["redrive", "e1", "--reason", "r"]), 1, /is at 1/)
        fails(yield* run(["append", "--type", "x"]), 1, /is at 1/)
      })
    )

    it.scoped("refuses tables that are older than it needs, or too new, in one line", () =>
      Effect.gen(function* () {
        const { query, run } = yield* operated("upgrading")
        const migrations = `"upgrading".controlpublish_migrations`
        yield* query(`DELETE FROM ${migrations} WHERE migration_id > 1`)
        const older = new RegExp(
          `the schema "upgrading" has migration 1, and this version needs ${latest}: run "controlpublish migrate" first`
        )
        for (const args of [["events"], ["append", "--type", "x"]]) fails(yield* run(args), 1, older)
        assert.match((yield* run(["status"])).stdout, new RegExp(`^migration 1, this version needs ${latest}`, "m"))
        yield* query(`INSERT INTO ${migrations} (migration_id, name) VALUES (1000, 'breaking')`)
        const newer = new RegExp(
          `has migration 1000, and this version, which knows ${latest}, cannot work with it: use a later version`
        )
        for (const args of [["events"], ["append", "--type", "x"], ["migrate"], ["serve", "--sink", "file"]]) {
          fails(yield* run(args, { FEED_SINK_FILE_DIR: "/tmp/controlpublish-never", ADMIN_PORT: "0" }), 1, newer)
        }
        yield* query(`UPDATE ${migrations} SET migration_id = ${latest + 1} WHERE migration_id = 1000`)
        const { code, stderr } = yield* run(["append", "--type", "x"])
        assert.strictEqual(code, 0, stderr)
        assert.match(
          stderr,
          new RegExp(
            `has migration ${latest + 1}, made by a later version; this version knows ${latest} and is compatible`
          )
        )
      })
    )
  }
)
