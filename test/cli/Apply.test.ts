import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Layer, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import * as Pg from "pg"
import { vi } from "vitest"
import { FileArtifactStore } from "../../src/file/index.js"
import * as EmbeddedPostgres from "../../src/cli/EmbeddedPostgres.js"
import * as Nats from "../support/nats.js"
import { layerDatabase, rawClient, TestDatabase } from "../support/postgres.js"
import { eventually } from "../support/pump.js"
import * as Controlpublish from "./support/controlpublish.js"
import * as Feeds from "./support/feeds.js"

vi.setConfig({ testTimeout: 120_000 })

const feeds = { file: Feeds.file, jetstream: () => Feeds.jetStream }

/** The first key of the advisory locks that hold changes up. */
const holding = 4711

/** A table, and a journal with a line for each row that was changed. A change to the plan `held-N` waits for a lock. */
const tables = (schema: string) => `
  CREATE SCHEMA ${schema};
  CREATE TABLE ${schema}.tenants (id text PRIMARY KEY, plan text);
  CREATE TABLE ${schema}.journal (n bigserial, change text);
  CREATE FUNCTION ${schema}.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.plan LIKE 'held-%' THEN PERFORM pg_advisory_xact_lock(${holding}, substr(NEW.plan, 6)::int); END IF;
    INSERT INTO ${schema}.journal (change) VALUES (TG_OP || ' ' || coalesce(NEW.id || ' ' || NEW.plan, OLD.id));
    RETURN NULL;
  END $$;
  CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON ${schema}.tenants
    FOR EACH ROW EXECUTE FUNCTION ${schema}.note();`

let events = 0
let held = 0

/** A node with a schema of its own, a feed that is filled by hand, and the artifacts. */
const node = (kind: keyof typeof feeds) =>
  Effect.gen(function* () {
    const program = yield* Controlpublish.Program
    const cwd = yield* Controlpublish.workingDirectory
    const { url } = yield* TestDatabase
    const client = yield* rawClient
    const schema = `node_${randomBytes(4).toString("hex")}`
    yield* Effect.promise(() => client.query(tables(schema)))
    const feed = yield* feeds[kind](cwd)
    const artifacts = yield* FileArtifactStore.make({ directory: Path.join(cwd, "artifacts") })
    const env = {
      DATABASE_URL: Redacted.value(url),
      DATABASE_SCHEMA: schema,
      APPLY_TABLES: `${schema}.tenants`,
      ...feed.env
    }
    const query = <Row extends Pg.QueryResultRow>(sql: string) =>
      Effect.promise(async () => (await client.query<Row>(sql)).rows)
    const journal = Effect.map(
      query<{ readonly change: string }>(`SELECT change FROM ${schema}.journal ORDER BY n`),
      (rows) => rows.map(({ change }) => change)
    )
    /** An event of an artifact: of rows, or of whatever bytes. */
    const event = (artifact: Uint8Array | { readonly op: string; readonly rows: ReadonlyArray<object> }) =>
      Effect.gen(function* () {
        const bytes =
          artifact instanceof Uint8Array
            ? artifact
            : Buffer.from(JSON.stringify({ db: schema, table: "tenants", pk: ["id"], ...artifact }))
        return { event_id: `e${++events}`, type: "entitlement.updated", ...(yield* Effect.orDie(artifacts.put(bytes))) }
      })
    const upsert = (id: string, plan: string) => event({ op: "upsert", rows: [{ id, plan }] })
    /** A plan for a change that is held up, in the midst of its transaction, until it is released. */
    const hold = Effect.gen(function* () {
      const lock = `${holding}, ${++held}`
      yield* query(`SELECT pg_advisory_lock(${lock})`)
      const waiting = `SELECT FROM pg_locks WHERE locktype = 'advisory' AND (classid, objid) = (${lock}) AND NOT granted`
      return {
        plan: `held-${held}`,
        reached: eventually(
          "the change that is held up is reached",
          Effect.map(query(waiting), (rows) => rows.length > 0)
        ),
        release: query(`SELECT pg_advisory_unlock(${lock})`)
      }
    })
    return {
      schema,
      hold,
      journal,
      event,
      upsert,
      query,
      publish: (made: ReadonlyArray<Effect.Effect<Feeds.Event>>) => Effect.flatMap(Effect.all(made), feed.publish),
      position: Effect.map(
        query<{ readonly position: number }>(`SELECT control_version::int AS position FROM ${schema}.applied_position`),
        ([row]) => row!.position
      ),
      until: (what: string, changes: number) =>
        eventually(
          what,
          Effect.map(journal, ({ length }) => length >= changes)
        ),
      path: (artifactRef: unknown) => Path.join(cwd, "artifacts", String(artifactRef)),
      apply: (args: ReadonlyArray<string> = [], more: Record<string, string> = {}) =>
        Controlpublish.start(program, ["apply", ...args], { cwd, env: { ...env, ...more } }),
      run: (args: ReadonlyArray<string>) => Controlpublish.run(program, ["apply", ...args], { cwd, env })
    }
  })

layer(Layer.merge(Controlpublish.layerProgram, layerDatabase), { excludeTestServices: true, timeout: 300_000 })(
  "controlpublish apply",
  (it) => {
    for (const kind of ["file", "jetstream"] as const) {
      const runs = kind === "file" || Nats.available()

      it.scoped.skipIf(!runs)(`applies what is in the feed ${kind} and what comes, and goes on after a stop`, () =>
        Effect.gen(function* () {
          const { apply, event, journal, position, publish, schema, until, upsert } = yield* node(kind)
          yield* publish([
            event({
              op: "upsert",
              rows: [
                { id: "a", plan: "free" },
                { id: "b", plan: "free" }
              ]
            })
          ])
          const first = yield* apply()
          yield* first.waitFor(/Stop with Ctrl-C/)
          assert.include(yield* first.printed, `tables    ${schema}.tenants\n`)
          yield* publish([upsert("a", "gold"), event({ op: "delete", rows: [{ id: "b" }] })])
          yield* until("all is applied", 4)
          const { code, stderr, stdout } = yield* first.stop("SIGTERM")
          assert.deepStrictEqual([code, stderr], [0, ""])
          assert.match(stdout, /Stopping: finishing the events in flight\.\nStopped\.\n$/)

          yield* publish([upsert("c", "free")])
          const second = yield* apply()
          yield* until("the one that came meanwhile is applied", 5)
          assert.strictEqual((yield* second.stop("SIGINT")).code, 0)
          assert.deepStrictEqual(yield* journal, [
            "INSERT a free",
            "INSERT b free",
            "UPDATE a gold",
            "DELETE b",
            "INSERT c free"
          ])
          assert.strictEqual(yield* position, 4)
        })
      )

      it.scoped.skipIf(!runs)(`applies nothing of the feed ${kind} twice, however often it is killed`, () =>
        Effect.gen(function* () {
          const { apply, hold, journal, position, publish, until, upsert } = yield* node(kind)
          const holds = yield* Effect.all([hold, hold, hold])
          const changes = Array.from({ length: 60 }, (_, n) => ({
            id: `t${n}`,
            plan: n % 20 === 10 ? holds[(n - 10) / 20]!.plan : "free"
          }))
          const all = changes.map(({ id, plan }) => `INSERT ${id} ${plan}`)
          yield* publish(changes.map(({ id, plan }) => upsert(id, plan)))
          for (const [index, { reached, release }] of holds.entries()) {
            const running = yield* apply()
            yield* reached
            yield* running.stop("SIGKILL")
            // What shares the transaction of the one that is held up is not there either.
            const { length } = yield* journal
            assert.isAtMost(length, 10 + 20 * index)
            assert.deepStrictEqual(yield* journal, all.slice(0, length))
            // The server lets go of the transaction when it finds nobody to answer.
            yield* release
          }
          const last = yield* apply()
          yield* until("all is applied", all.length)
          yield* last.stop("SIGTERM")
          assert.deepStrictEqual(yield* journal, all)

          // All of it is read again, and nothing of it applied.
          const again = yield* apply(["--from", "0"])
          yield* publish([upsert("new", "free")])
          yield* until("the new one is applied", all.length + 1)
          assert.strictEqual((yield* again.stop("SIGTERM")).code, 0)
          assert.deepStrictEqual(yield* journal, [...all, "INSERT new free"])
          assert.strictEqual(yield* position, all.length + 1)
        })
      )
    }

    it.scoped("finishes the events in flight when it is stopped, and begins no others", () =>
      Effect.gen(function* () {
        const { apply, hold, journal, position, publish, upsert } = yield* node("file")
        const { plan, reached, release } = yield* hold
        yield* publish([upsert("a", plan), upsert("b", "free")])
        const running = yield* apply()
        yield* reached
        const stopping = yield* Effect.fork(running.stop("SIGTERM"))
        yield* running.waitFor(/Stopping: finishing the events in flight/)
        yield* release
        const { code, stderr } = yield* Fiber.join(stopping)
        assert.deepStrictEqual([code, stderr], [0, ""])
        assert.deepStrictEqual(yield* journal, [`INSERT a ${plan}`])
        assert.strictEqual(yield* position, 1)
      })
    )

    it.scoped("begins where it is told to", () =>
      Effect.gen(function* () {
        const { apply, journal, publish, run, until, upsert } = yield* node("file")
        yield* publish([upsert("a", "free"), upsert("b", "free"), upsert("c", "free")])
        const running = yield* apply(["--from", "2"])
        yield* until("it applies", 1)
        assert.strictEqual((yield* running.stop("SIGTERM")).code, 0)
        assert.deepStrictEqual(yield* journal, ["INSERT c free"])
        // What was passed has no marks.
        const { code, stderr } = yield* run(["--from", "0"])
        assert.strictEqual(code, 1)
        assert.match(stderr, /^controlpublish: Cannot continue after control version 0: [^\n]*\n$/)
        assert.deepStrictEqual(yield* journal, ["INSERT c free"])
      })
    )

    it.scoped("halts at what it cannot apply, says what it is, and goes on when that is mended", () =>
      Effect.gen(function* () {
        const { apply, event, journal, path, publish, schema, until, upsert } = yield* node("file")
        const missing = yield* upsert("missing", "free")
        const corrupt = yield* upsert("corrupt", "free")
        const kept = yield* Effect.promise(() => Fs.readFile(path(corrupt.artifact_ref)))
        const away = `${path(missing.artifact_ref)}.away`
        yield* Effect.promise(async () => {
          await Fs.rename(path(missing.artifact_ref), away)
          await Fs.writeFile(path(corrupt.artifact_ref), "x")
        })
        yield* publish([
          Effect.succeed(missing),
          Effect.succeed(corrupt),
          event({ op: "delete", rows: [{ id: "missing" }] }),
          event(
            Buffer.from(JSON.stringify({ db: "pg_catalog", table: "pg_class", op: "delete", pk: ["oid"], rows: [] }))
          ),
          upsert("after", "free")
        ])
        const running = yield* apply()
        yield* running.waitFor(/Event 1 cannot be applied, and later events wait\. .*is not in the store/)
        yield* Effect.promise(() => Fs.rename(away, path(missing.artifact_ref)))
        yield* running.waitFor(/Event 2 cannot be applied.* is corrupt/)
        yield* Effect.promise(() => Fs.writeFile(path(corrupt.artifact_ref), kept))
        yield* running.waitFor(
          /Event 4 cannot be applied.*the table \\"pg_catalog\.pg_class\\" is not allowed: add it to APPLY_TABLES/
        )
        assert.strictEqual((yield* running.stop("SIGTERM")).code, 0)
        const changes = ["INSERT missing free", "INSERT corrupt free", "DELETE missing"]
        assert.deepStrictEqual(yield* journal, changes)

        const allowing = yield* apply(["--tables", `${schema}.tenants, pg_catalog.pg_class`])
        yield* until("it goes on", 4)
        assert.strictEqual((yield* allowing.stop("SIGTERM")).code, 0)
        assert.deepStrictEqual(yield* journal, [...changes, "INSERT after free"])
      })
    )

    it.scoped("halts at an artifact that holds no rows, or sets it aside with the reason where it is told to", () =>
      Effect.gen(function* () {
        const { apply, event, journal, publish, query, schema, until, upsert } = yield* node("file")
        yield* publish([
          event(Buffer.from("no JSON")),
          event({ op: "upsert", rows: [{ id: null, plan: "free" }] }),
          upsert("after", "free")
        ])
        const halting = yield* apply()
        yield* halting.waitFor(/Event 1 cannot be applied.*The artifact is invalid: /)
        assert.strictEqual((yield* halting.stop("SIGTERM")).code, 0)
        assert.deepStrictEqual(yield* journal, [])

        const settingAside = yield* apply(["--cannot-apply", "set-aside"])
        yield* until("it goes on", 1)
        const { code, stderr } = yield* settingAside.stop("SIGTERM")
        assert.strictEqual(code, 0)
        assert.match(stderr, /Event 1 is set aside/)
        assert.deepStrictEqual(yield* journal, ["INSERT after free"])
        const reasons = yield* query<{ readonly set_aside: string | null }>(
          `SELECT set_aside FROM ${schema}.applied_events ORDER BY control_version`
        )
        assert.match(reasons[0]!.set_aside ?? "", /^The artifact is invalid: /)
        assert.match(reasons[1]!.set_aside ?? "", /null value in column "id"/)
        assert.isNull(reasons[2]!.set_aside)
      })
    )

    it.scoped("applies nothing from nop, and opens no database", () =>
      Effect.gen(function* () {
        const program = yield* Controlpublish.Program
        const cwd = yield* Controlpublish.workingDirectory
        const env = { DATABASE_URL: "postgres://nobody@127.0.0.1:1/none" }
        const running = yield* Controlpublish.start(program, ["apply"], { cwd, env })
        yield* running.waitFor(/source +nop: nothing will be applied.*\nStop with Ctrl-C/)
        const { code, stderr } = yield* running.stop("SIGTERM")
        assert.deepStrictEqual([code, stderr], [0, ""])
        assert.deepStrictEqual(yield* Effect.promise(() => Fs.readdir(cwd)), [])
      })
    )

    it.scoped("applies to the embedded database where no other is given", () =>
      Effect.gen(function* () {
        const program = yield* Controlpublish.Program
        const cwd = yield* Controlpublish.workingDirectory
        const feed = yield* Feeds.file(cwd)
        const artifacts = yield* FileArtifactStore.make({ directory: Path.join(cwd, "artifacts") })
        const { url } = yield* EmbeddedPostgres.start({ directory: Path.join(cwd, ".controlpublish") })
        const client = new Pg.Client({ connectionString: Redacted.value(url) })
        yield* Effect.acquireRelease(
          Effect.promise(() => client.connect()),
          () => Effect.promise(() => client.end())
        )
        yield* Effect.promise(() => client.query("CREATE TABLE tenants (id text PRIMARY KEY)"))
        const rows = { db: "public", table: "tenants", op: "upsert", pk: ["id"], rows: [{ id: "a" }] }
        const reference = yield* artifacts.put(Buffer.from(JSON.stringify(rows)))
        yield* feed.publish([{ event_id: "embedded", type: "tenant.created", ...reference }])
        const running = yield* Controlpublish.start(program, ["apply", "--tables", "public.tenants"], {
          cwd,
          env: feed.env
        })
        yield* eventually(
          "the row is there",
          Effect.promise(async () => (await client.query("SELECT FROM tenants")).rowCount === 1)
        )
        yield* running.waitFor(/database  embedded PostgreSQL in /)
        assert.strictEqual((yield* running.stop("SIGTERM")).code, 0)
      })
    )

    it.scoped("refuses a setting that cannot be, and a feed or database that is not there", () =>
      Effect.gen(function* () {
        const program = yield* Controlpublish.Program
        const cwd = yield* Controlpublish.workingDirectory
        const url = Redacted.value((yield* TestDatabase).url)
        const cases: ReadonlyArray<readonly [ReadonlyArray<string>, Record<string, string>, number, RegExp]> = [
          [
            [],
            { FEED_SOURCE: "kafka" },
            1,
            /: FEED_SOURCE \(--source\): got "kafka", valid is nop, file or jetstream\n$/
          ],
          [
            ["--source", "file"],
            { APPLY_TABLES: "public.tenants, stacks" },
            1,
            /: APPLY_TABLES \(--tables\): got "stacks", valid is schema\.table, separated by commas\n$/
          ],
          [
            ["--source", "file", "--cannot-apply", "skip"],
            {},
            1,
            /: APPLY_CANNOT_APPLY \(--cannot-apply\): got "skip", valid is halt or set-aside\n$/
          ],
          [["--source", "file", "--from=-1"], {}, 2, /: --from: valid is an integer from 0\n$/],
          [
            ["--source", "jetstream"],
            { NATS_URL: "http://x" },
            1,
            /: NATS_URL \(--nats-url\): got an invalid NATS address/
          ],
          [
            ["--source", "file"],
            { DATABASE_URL: "postgres://u:s3cret@127.0.0.1:1/db" },
            1,
            /: Cannot connect to .*u@127/
          ],
          // With a position to set, the feed is looked at before anything else.
          [
            ["--source", "file", "--from", "0"],
            { DATABASE_URL: url },
            1,
            /: Cannot read the feed in the directory .*\/feed: ENOENT/
          ]
        ]
        yield* Effect.forEach(
          cases,
          ([args, env, expected, line]) =>
            Effect.gen(function* () {
              const { code, stderr, stdout } = yield* Controlpublish.run(program, ["apply", ...args], { cwd, env })
              assert.deepStrictEqual([code, stdout], [expected, ""], stderr)
              assert.match(stderr, line)
              assert.match(stderr, /^controlpublish: [^\n]*\n$/)
              assert.notInclude(stderr, "s3cret")
            }),
          { concurrency: 3, discard: true }
        )
      })
    )
  }
)
