import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { vi } from "vitest"
import { Migrations } from "../../src/postgres/index.js"
import { layerDatabase, rawClient, TestDatabase } from "../support/postgres.js"
import * as Controlpublish from "./support/controlpublish.js"

/** Runs the command with the test's database, in a schema of its own. */
const command = Effect.gen(function* () {
  const program = yield* Controlpublish.Program
  const { url } = yield* TestDatabase
  const schema = `s_${randomBytes(4).toString("hex")}`
  const env = { DATABASE_URL: Redacted.value(url), DATABASE_SCHEMA: schema }
  const client = yield* rawClient
  return {
    schema,
    env,
    run: (args: ReadonlyArray<string>, options: Controlpublish.Options = {}) =>
      Controlpublish.run(program, args, { ...options, env: { ...env, ...options.env } }),
    query: (sql: string) =>
      Effect.promise(async () => (await client.query(sql)).rows as ReadonlyArray<Record<string, unknown>>),
    events: Effect.promise(async () => {
      const { rows } = await client.query(
        `SELECT payload_json AS event, ordering_key, xmin::text AS transaction FROM "${schema}".control_events_outbox ORDER BY id`
      )
      return rows as ReadonlyArray<{ event: Record<string, unknown>; ordering_key: string; transaction: string }>
    })
  }
})

const run = (args: ReadonlyArray<string>, options?: Controlpublish.Options) =>
  Effect.flatMap(Controlpublish.Program, (program) => Controlpublish.run(program, args, options))

/** One line on stderr, nothing on stdout. */
const fails = (result: Controlpublish.Result, code: number, line: string | RegExp) => {
  assert.deepStrictEqual([result.code, result.stdout], [code, ""], result.stderr)
  if (typeof line === "string") assert.strictEqual(result.stderr, `controlpublish: ${line}\n`)
  else {
    assert.match(result.stderr, line)
    assert.match(result.stderr, /^controlpublish: [^\n]*\n$/)
  }
}

const ndjson = (count: number) =>
  Array.from({ length: count }, (_, index) => JSON.stringify({ type: "test", tenant_id: `t${index % 3}`, n: index }))

vi.setConfig({ testTimeout: 60_000 })

layer(Layer.merge(Controlpublish.layerProgram, layerDatabase), { excludeTestServices: true, timeout: 300_000 })(
  "controlpublish",
  (it) => {
    it.scoped("refuses a setting that cannot be with one line that names it, what was given and what is valid", () =>
      Effect.gen(function* () {
        const time = 'valid is a finite time of at least 1 millisecond, e.g. "10 seconds" or "500ms"'
        const sinks = "valid is nop, file or jetstream"
        const integer = "valid is an integer from 1 to"
        const cases: ReadonlyArray<readonly [ReadonlyArray<string>, Record<string, string>, string | RegExp]> = [
          [["serve"], { FEED_SINK: "kafka" }, `FEED_SINK (--sink): got "kafka", ${sinks}`],
          [["serve", "--sink", "File"], {}, `FEED_SINK (--sink): got "File", ${sinks}`],
          [
            ["serve", "--sink=jetstream", "--nats-manage-stream", "yes"],
            { FEED_SINK: "file" },
            'NATS_MANAGE_STREAM (--nats-manage-stream): got "yes", valid is true or false'
          ],
          [
            ["serve"],
            { FEED_SINK: "jetstream", NATS_SUBJECT: "control.{kind}" },
            /controlpublish: NATS_SUBJECT \(--nats-subject\): got "control\.\{kind\}": \{kind\} is not one of /
          ],
          [["serve"], { FEED_SINK_BATCH_SIZE: "0" }, `FEED_SINK_BATCH_SIZE (--batch-size): got "0", ${integer} 10000`],
          [["serve", "--batch-size", "x"], {}, `FEED_SINK_BATCH_SIZE (--batch-size): got "x", ${integer} 10000`],
          [["serve"], { FEED_POLL_PERIOD: "10" }, `FEED_POLL_PERIOD (--poll-period): got "10", ${time}`],
          [["serve"], { PUMP_CONCURRENCY: "65" }, `PUMP_CONCURRENCY (--concurrency): got "65", ${integer} 64`],
          [["serve"], { PUMP_PUBLISH_TIMEOUT: "0s" }, `PUMP_PUBLISH_TIMEOUT (--publish-timeout): got "0s", ${time}`],
          [["serve", "--drain-timeout", "-1s"], {}, `PUMP_DRAIN_TIMEOUT (--drain-timeout): got "-1s", ${time}`],
          [
            ["append", "--type", "a"],
            { DATABASE_SCHEMA: "x".repeat(64) },
            `DATABASE_SCHEMA (--database-schema): got "${"x".repeat(64)}", valid is a name of at most 63 bytes`
          ],
          [
            ["status"],
            { LOG_LEVEL: "loud" },
            'LOG_LEVEL: got "loud", valid is one of all, trace, debug, info, warning, error, fatal, none'
          ]
        ]
        yield* Effect.forEach(
          cases,
          ([args, env, line]) => Effect.map(run(args, { env }), (result) => fails(result, 1, line)),
          { concurrency: 3, discard: true }
        )
      })
    )

    it.scoped("never prints the password of the database", () =>
      Effect.gen(function* () {
        const url = "postgres://someone:s3cret@127.0.0.1:1/db"
        const cases: ReadonlyArray<readonly [ReadonlyArray<string>, Record<string, string>, number]> = [
          [["migrate"], { DATABASE_URL: "postgres://someone:12/s3cret@h/db" }, 1],
          [["status", "--database-url", url], {}, 1],
          [["append", "--type", "a"], { DATABASE_URL: url, LOG_LEVEL: "trace" }, 1],
          [["serve", "--log-level", "all"], { DATABASE_URL: url, FEED_SINK: "file", FEED_SINK_FILE_DIR: "feed" }, 1],
          [["serve", "--sink", url], {}, 1],
          [["append", "--databaseurl", url], {}, 2],
          [[url], {}, 2]
        ]
        yield* Effect.forEach(
          cases,
          ([args, env, code]) =>
            Effect.gen(function* () {
              const cwd = yield* Controlpublish.workingDirectory
              const { code: actual, stderr, stdout } = yield* run(args, { env, cwd })
              assert.strictEqual(actual, code, stderr)
              assert.notMatch(stdout + stderr, /s3cret|MTIz/)
            }),
          { concurrency: 3, discard: true }
        )
        const refused = yield* run(["status"], { env: { DATABASE_URL: url } })
        fails(refused, 1, /Cannot connect to postgres:\/\/someone@127\.0\.0\.1:1\/db: connect ECONNREFUSED/)
        const { url: right } = yield* TestDatabase
        const wrong = new URL(Redacted.value(right))
        wrong.password = "s3cret"
        wrong.username = "nobody_at_all"
        const denied = yield* run(["status"], { env: { DATABASE_URL: wrong.href } })
        assert.strictEqual(denied.code, 1)
        assert.notInclude(denied.stderr, "s3cret")
      })
    )

    it.scoped("answers a command line that makes no sense with exit code 2", () =>
      Effect.gen(function* () {
        const cases: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
          [["append"], /append needs an event/],
          [["append", "--type"], /"--type" is not a flag of append, or lacks its value/],
          [["append", "--type", "a", "events.ndjson"], /--type and a file of events exclude each other/],
          [["append", "--type", "a", "--field", "plan=gold"], /--field: got "plan=gold", valid is name=JSON/],
          [["append", "--type", "a", "--field", "type=1"], /--field: the field "type" is given twice/],
          [["append", "--type", "a", "--stack-version", "1x"], /--stack-version: got "1x", valid is an integer from 0/],
          [["append", "-", "--transaction-size", "0"], /--transaction-size: got "0", valid is an integer from 1 to/],
          [["append", "--type", "a", "--transaction-size", "1"], /--transaction-size requires a file/]
        ]
        yield* Effect.forEach(cases, ([args, line]) => Effect.map(run(args), (result) => fails(result, 2, line)), {
          concurrency: 3,
          discard: true
        })
        const unknown = yield* run(["status", "--colour"])
        assert.deepStrictEqual([unknown.code, unknown.stdout], [2, ""])
        assert.include(unknown.stderr, "--colour")
      })
    )

    it.scoped("tells its version, which is that of the package", () =>
      Effect.gen(function* () {
        const file = fileURLToPath(new URL("../../package.json", import.meta.url))
        const { version } = JSON.parse(yield* Effect.promise(() => Fs.readFile(file, "utf8"))) as { version: string }
        const { code, stdout } = yield* run(["--version"])
        assert.deepStrictEqual([code, stdout.trim()], [0, version])
      })
    )

    it.scoped("migrates, and says what it did", () =>
      Effect.gen(function* () {
        const { run, schema } = yield* command
        const missing = yield* run(["status", "--json"])
        assert.strictEqual(missing.code, 0, missing.stderr)
        assert.deepInclude(JSON.parse(missing.stdout), {
          schema,
          migration: { current: 0, latest: Migrations.latest.id },
          backlog: null
        })
        const first = yield* run(["migrate"])
        assert.strictEqual(first.code, 0, first.stderr)
        assert.match(
          first.stdout,
          new RegExp(`Migrated the schema "${schema}": 1 \\(initial\\), 2 \\(operating\\), 3 \\(guarded\\).*\\.`)
        )
        const second = yield* run(["migrate"])
        assert.match(
          second.stdout,
          new RegExp(
            `The schema "${schema}" is up to date: migration ${Migrations.latest.id} \\(${Migrations.latest.name}\\)\\.`
          )
        )
      })
    )

    it.scoped("grants rights on the outbox to roles, or prints the SQL that does", () =>
      Effect.gen(function* () {
        const { query, run, schema } = yield* command
        const role = (kind: string) => `test_${kind}_${randomBytes(4).toString("hex")}`
        const [app, pump, view, node] = [role("app"), role("pump"), role("view"), role("node")] as const
        const all = [app, pump, view, node]
        const flags = ["--grant-append", app, "--grant-pump", pump, "--grant-view", view, "--grant-view", app]
        const may = (table: string, right: string) =>
          Effect.map(
            query(
              `SELECT ${all.map((name) => `has_table_privilege('${name}', '"${schema}".${table}', '${right}') AS ${name}`).join()}`
            ),
            ([row]) => all.filter((name) => (row as Record<string, boolean>)[name])
          )
        yield* Effect.acquireRelease(query(all.map((name) => `CREATE ROLE ${name}`).join("; ")), () =>
          query(all.map((name) => `DROP OWNED BY ${name}; DROP ROLE ${name}`).join("; "))
        )
        const granted = yield* run(["migrate", ...flags])
        assert.strictEqual(granted.code, 0, granted.stderr)
        assert.include(
          granted.stdout,
          `Granted rights to "${app}" (append), "${pump}" (pump), "${view}" (view), "${app}" (view).`
        )
        assert.deepStrictEqual(yield* may("control_events_outbox", "DELETE"), [pump])
        assert.deepStrictEqual(yield* may("control_events_outbox", "SELECT"), [app, pump, view])
        const onNode = yield* run(["migrate", "--node", "--grant-node", node])
        assert.strictEqual(onNode.code, 0, onNode.stderr)
        assert.match(onNode.stdout, new RegExp(`Migrated the schema "${schema}": 1 \\(initial\\)`))
        assert.deepStrictEqual(yield* may("applied_events", "DELETE"), [node])
        const printed = yield* run(["migrate", "--print", ...flags, "--max-payload-bytes", "1000"])
        assert.include(printed.stdout, `GRANT DELETE ON "${schema}".control_events_attempts TO "${pump}";`)
        assert.include(printed.stdout, "'SELECT 1000'")
        const printedNode = yield* run(["migrate", "--print", "--node", "--grant-node", node])
        assert.include(printedNode.stdout, "CREATE TABLE")
        assert.include(printedNode.stdout, `"${schema}".applied_events TO "${node}";`)
        assert.notInclude(printedNode.stdout, "control_events_outbox")
        for (const flag of ["--grant-view", "--grant-append"]) {
          for (const blank of ["", " "]) {
            fails(
              yield* run(["migrate", "--grant-pump", pump, flag, blank]),
              2,
              new RegExp(`${flag}: got an empty text`)
            )
          }
          fails(yield* run(["migrate", `${flag}=`]), 2, new RegExp(flag))
        }
        fails(yield* run(["migrate", "--grant-node", node]), 2, /--grant-node requires --node/)
        fails(yield* run(["migrate", "--node", "--grant-view", view]), 2, /--grant-view is for the outbox/)
        const missing = yield* run(["migrate", "--grant-view", "nobody"])
        assert.strictEqual(missing.code, 1)
        assert.match(missing.stderr, /^controlpublish: Could not grant rights .*: role "nobody" does not exist\n$/)
      })
    )

    it.scoped("sets the largest payload, which an append that is refused names", () =>
      Effect.gen(function* () {
        const { query, run, schema } = yield* command
        for (const bytes of ["0", "134217729"]) {
          fails(
            yield* run(["migrate", "--max-payload-bytes", bytes]),
            2,
            /--max-payload-bytes: valid is an integer from 1 to 134217728/
          )
        }
        const set = yield* run(["migrate", "--max-payload-bytes", "200"])
        assert.match(set.stdout, /The largest payload has 200 bytes\./)
        const large = ["append", "--type", "x", "--field", `note="${"x".repeat(200)}"`]
        fails(yield* run(large), 1, /the payload has \d+ bytes, the maximum is 200.*--max-payload-bytes/)
        yield* run(["migrate", "--max-payload-bytes", "1000"])
        assert.strictEqual((yield* run(large)).code, 0)
        assert.lengthOf(yield* query(`SELECT FROM "${schema}".control_events_outbox`), 1)
      })
    )

    it.scoped("says in one line why it cannot migrate", () =>
      Effect.gen(function* () {
        const { env, run } = yield* command
        fails(
          yield* run(["migrate", "--database-schema", "pg_mine"]),
          1,
          /Could not migrate schema "pg_mine": unacceptable schema name/
        )
        fails(yield* run(["serve", "--sink", "file", "--sink-file-dir", "/dev/null/x"]), 1, /\/dev\/null\/x/)
        const absent = new URL(env.DATABASE_URL)
        absent.pathname = "/absent"
        fails(
          yield* run(["migrate", "--database-url", absent.href]),
          1,
          /Cannot connect to .*: database "absent" does not exist/
        )
      })
    )

    it.scoped("prints the SQL of the migrations without a database", () =>
      Effect.gen(function* () {
        const { query, run: runWith, schema } = yield* command
        const { code, stderr, stdout } = yield* run(["migrate", "--print"], {
          env: { DATABASE_SCHEMA: schema, DATABASE_URL: "postgres://nobody:nothing@127.0.0.1:1/none" }
        })
        assert.deepStrictEqual([code, stderr], [0, ""])
        assert.strictEqual(stdout.trimEnd(), Migrations.print({ schema }).trimEnd())
        yield* query(stdout)
        assert.match((yield* runWith(["migrate"])).stdout, /up to date/)
      })
    )

    it.scoped("appends one event from flags and prints its id", () =>
      Effect.gen(function* () {
        const { events, run } = yield* command
        fails(yield* run(["append", "--type", "a"]), 1, /has no outbox: run "controlpublish migrate" first/)
        yield* run(["migrate"])
        const minimal = yield* run(["append", "--type", "tenant.created", "--tenant", "t1"])
        assert.match(minimal.stdout, /^[0-9a-f]{8}-[0-9a-f]{4}-7[-0-9a-f]{21}\n$/)
        const checksum = `sha256:${"0".repeat(64)}`
        const full = yield* run(
          [
            ["append", "--type", "stack.activated", "--tenant", "t1", "--stack", "s1", "--stack-version", "3"],
            ["--base-version", "2", "--artifact-ref", "a/b", "--checksum", checksum, "--event-id", "e/1"],
            ["--ordering-key", "k", "--field", 'plan={"seats":[1,"ä"]}', "--field", "note=null"]
          ].flat()
        )
        assert.deepStrictEqual([full.code, full.stdout, full.stderr], [0, "e/1\n", ""])
        const [first, second] = yield* events
        assert.deepInclude(first!.event, { event_id: minimal.stdout.trim(), type: "tenant.created", tenant_id: "t1" })
        assert.strictEqual(first!.ordering_key, "t1")
        const { created_at, ...event } = second!.event
        assert.isString(created_at)
        assert.deepStrictEqual(event, {
          event_id: "e/1",
          type: "stack.activated",
          tenant_id: "t1",
          stack_id: "s1",
          version: 3,
          base_version: 2,
          artifact_ref: "a/b",
          checksum,
          plan: { seats: [1, "ä"] },
          note: null
        })
        assert.strictEqual(second!.ordering_key, "k")

        fails(
          yield* run(["append", "--type", "a", "--event-id", "e/1"]),
          1,
          /already holds an event with the id "e\/1"/
        )
        fails(
          yield* run(["append", "--type", "stack.activated", "--tenant", "t1", "--stack", "s1"]),
          1,
          "The event is invalid: version (--stack-version) is required for stack.activated"
        )
      })
    )

    it.scoped("appends the events of a file and of stdin, in transactions of the size given", () =>
      Effect.gen(function* () {
        const { events, run } = yield* command
        yield* run(["migrate"])
        const cwd = yield* Controlpublish.workingDirectory
        yield* Effect.promise(() => Fs.writeFile(Path.join(cwd, "events.ndjson"), `${ndjson(25).join("\n")}\n`))
        const file = yield* run(["append", "events.ndjson", "--transaction-size", "10"], { cwd })
        assert.deepStrictEqual(
          [file.code, file.stdout, file.stderr],
          [0, "Appended 25 events in 3 transactions.\n", ""]
        )

        const input = `\n${ndjson(5).join("\r\n\r\n")}`
        const stdin = yield* run(["append", "-", "--ordering-key", "all"], { input })
        assert.deepStrictEqual(
          [stdin.code, stdin.stdout, stdin.stderr],
          [0, "Appended 5 events in 1 transaction.\n", ""]
        )

        const rows = yield* events
        assert.deepStrictEqual(
          rows.map(({ event }) => event.n),
          [...Array.from({ length: 25 }, (_, n) => n), 0, 1, 2, 3, 4]
        )
        assert.deepStrictEqual(new Set(rows.slice(25).map((row) => row.ordering_key)), new Set(["all"]))
        const transactions = Array.from(new Set(rows.map((row) => row.transaction)))
        const sizes = transactions.map((transaction) => rows.filter((row) => row.transaction === transaction).length)
        assert.deepStrictEqual(sizes, [10, 10, 5, 5])
      })
    )

    it.scoped("stops at a bad line and says what it has appended", () =>
      Effect.gen(function* () {
        const { events, run } = yield* command
        yield* run(["migrate"])
        const lines = ndjson(300)
        lines[248] = `{"type":"test","checksum":"no"}`
        const bad = yield* run(["append", "--transaction-size", "100", "-"], { input: lines.join("\n") })
        fails(
          bad,
          1,
          "stdin, line 249: checksum must be sha256: followed by 64 hexadecimal digits. Appended: 200 events, lines 1 to 200. Not appended: line 201 and all after it."
        )
        assert.strictEqual((yield* events).length, 200)
        const long = yield* run(["append", "-"], { input: `${ndjson(3).join("\n")}\n${"x".repeat(1_100_000)}` })
        fails(long, 1, /^controlpublish: stdin, line 4: the line is longer than 1048576 bytes\. Appended: nothing\./)
        fails(yield* run(["append", "absent.ndjson"]), 1, /Cannot read "absent\.ndjson": ENOENT/)
        assert.strictEqual((yield* events).length, 200)
      })
    )

    it.scoped("ends at once when a line is bad, with more to come on stdin, and when it is interrupted", () =>
      Effect.gen(function* () {
        const program = yield* Controlpublish.Program
        const { env, events, run } = yield* command
        yield* run(["migrate"])
        const open = yield* Controlpublish.start(program, ["append", "-"], { env })
        open.process.stdin!.write(`${ndjson(10).join("\n")}\nnonsense\n`)
        fails(yield* open.end, 1, /line 11: the event must be JSON/)

        const interrupted = yield* Controlpublish.start(program, ["append", "--transaction-size", "10", "-"], { env })
        interrupted.process.stdin!.write(`${ndjson(15).join("\n")}\n`)
        yield* Effect.repeat(events, { until: (rows) => rows.length === 10 })
        const { code, stderr } = yield* interrupted.stop("SIGINT")
        assert.strictEqual(
          stderr,
          "controlpublish: interrupted. Appended: 10 events, lines 1 to 10. Not appended: line 11 and all after it.\n"
        )
        assert.strictEqual(code, 130)
      })
    )

    const itOnTerminal = Controlpublish.hasTerminal ? it.scoped : it.scoped.skip

    itOnTerminal("shows progress on a terminal, reads events from it, and obeys its Ctrl-C", () =>
      Effect.gen(function* () {
        const program = yield* Controlpublish.Program
        const { env, events, query, run, schema } = yield* command
        yield* run(["migrate"])
        const cwd = yield* Controlpublish.workingDirectory
        const options = { cwd, env: { ...env, LANG: "C.UTF-8" }, terminal: true }
        const append = (...args: ReadonlyArray<string>) => Controlpublish.start(program, ["append", ...args], options)

        // An event that somebody else is about to append holds it up, so that there is time to look.
        const lines = ndjson(300)
        lines[280] = `{"type":"test","event_id":"wait"}`
        yield* Effect.promise(() => Fs.writeFile(Path.join(cwd, "events.ndjson"), lines.join("\n")))
        yield* query(
          `BEGIN; INSERT INTO "${schema}".control_events_outbox (event_id, event_type, payload_json) VALUES ('wait', 'test', '{}')`
        )
        const file = yield* append("events.ndjson", "--transaction-size", "10")
        // In colours: they tell what is done from what is left.
        yield* file.waitFor(/\u001b\[35m━{37}\u001b\[39m\u001b\[2m━{3}\u001b\[22m 280 events/)
        yield* query("ROLLBACK")
        const { code, stdout } = yield* file.end
        assert.strictEqual(code, 0, stdout)
        assert.match(stdout, /Appended 300 events in 30 transactions\.\r\n$/)

        const typed = yield* append("-")
        yield* typed.waitFor(/0 events/)
        typed.process.stdin!.write(`${ndjson(2).join("\n")}\n\u0004`)
        assert.match((yield* typed.end).stdout, /Appended 2 events in 1 transaction\.\r\n$/)
        assert.strictEqual((yield* events).length, 302)

        const interrupted = yield* append("-", "--transaction-size", "1")
        yield* interrupted.waitFor(/0 events/)
        interrupted.process.stdin!.write(`${ndjson(1).join("\n")}\n`)
        yield* interrupted.waitFor(/ 1 event/)
        interrupted.process.stdin!.write("\u0003")
        const ended = yield* interrupted.end
        assert.match(
          ended.stdout,
          /controlpublish: interrupted\. Appended: 1 event, lines 1 to 1\. Not appended: line 2/
        )
        assert.strictEqual(ended.code, 130)
      })
    )

    it.scoped("shows the backlog and what is parked, for people and for scripts", () =>
      Effect.gen(function* () {
        const { query, run, schema } = yield* command
        yield* run(["migrate"])
        yield* run(["append", "-"], { input: ndjson(12).join("\n") })
        const outbox = `"${schema}".control_events_outbox`
        yield* query(`UPDATE ${outbox} SET created_at = now() - interval '90 minutes' WHERE payload_json->>'n' = '0'`)
        yield* query(
          `UPDATE ${outbox} SET parked_at = '2024-05-06T07:08:09Z', attempt_count = 4, last_error = E'no\\nsuch thing'
         WHERE (payload_json->>'n')::int >= 6`
        )
        const text = yield* run(["status"])
        assert.strictEqual(text.code, 0, text.stderr)
        for (const line of [
          /^database {2}postgres:\/\/\w+@[^:]+:\d+\/controlpublish_test_/m,
          new RegExp(`^schema {4}"${schema}"$`, "m"),
          new RegExp(`^migration ${Migrations.latest.id} \\(latest\\)$`, "m"),
          /^pending {3}6, the oldest for 1h 30m/m,
          /^waiting {3}0 of them for a retry$/m,
          /^parked {4}6$/m
        ]) {
          assert.match(text.stdout, line)
        }
        const listed = text.stdout.match(
          /^ {2}[-0-9a-f]{36} {2}test {2}t\d {3}2024-05-06T07:08:09.000Z {2}4 {9}no such thing$/gm
        )
        assert.strictEqual(listed?.length, 5, text.stdout)

        const json = JSON.parse((yield* run(["status", "--json"])).stdout) as {
          backlog: Record<string, unknown>
          parked: ReadonlyArray<Record<string, unknown>>
        }
        assert.deepInclude(json.backlog, {
          pending: { value: 6, exact: true },
          waiting: { value: 0, exact: true },
          parked: { value: 6, exact: true }
        })
        assert.isAtLeast(json.backlog.oldestPendingAgeMillis as number, 90 * 60_000)
        assert.deepInclude(json.parked[0], {
          lastError: "no\nsuch thing",
          attemptCount: 4,
          parkedAt: "2024-05-06T07:08:09.000Z"
        })
      })
    )
  }
)
