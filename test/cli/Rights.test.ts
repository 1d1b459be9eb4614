import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { vi } from "vitest"
import * as Names from "../../src/postgres/internal/names.js"
import { layerDatabase, TestDatabase } from "../support/postgres.js"
import { eventually } from "../support/pump.js"
import { asOwner, connectTo, failureOf, makeRole } from "../support/roles.js"
import * as Controlpublish from "./support/controlpublish.js"

vi.setConfig({ testTimeout: 120_000 })

layer(Controlpublish.layerProgram, { excludeTestServices: true, timeout: 300_000 })(
  "Commands of roles with the rights of their part, on another's database",
  (it) => {
    it.scoped("do all that they are for, and are refused the rest", () =>
      Effect.gen(function* () {
        const program = yield* Controlpublish.Program
        const cwd = yield* Controlpublish.workingDirectory
        const { name } = yield* TestDatabase
        const owner = yield* makeRole("owner")
        const app = yield* makeRole("app")
        const pump = yield* makeRole("pump")
        const operator = yield* makeRole("operate")
        const viewer = yield* makeRole("view")
        const node = yield* makeRole("node")
        const users = [app, pump, operator, viewer, node].map((role) => role.name).join()
        yield* asOwner(`REVOKE ALL ON DATABASE ${name} FROM PUBLIC; GRANT CONNECT ON DATABASE ${name} TO ${owner.name}, ${users};
          REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT ALL ON SCHEMA public TO ${owner.name} WITH GRANT OPTION;
          CREATE TABLE tenants (id text PRIMARY KEY, plan text)`)
        const as = (role: { readonly url: string }, args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
          Controlpublish.run(program, args, { cwd, env: { DATABASE_URL: role.url, ...env } })
        const succeeds = (result: Controlpublish.Result) => {
          assert.strictEqual(result.code, 0, result.stderr)
          return result.stdout
        }
        const grants = { append: app, pump, operate: operator, view: viewer }
        const flags = Object.entries(grants).flatMap(([kind, role]) => [`--grant-${kind}`, role.name])
        succeeds(yield* as(owner, ["migrate", ...flags]))
        succeeds(yield* as(owner, ["migrate", "--node", "--grant-node", node.name]))
        yield* asOwner(`REVOKE CREATE ON SCHEMA public FROM ${owner.name} CASCADE;
          GRANT SELECT, INSERT, UPDATE, DELETE ON tenants TO ${node.name}`)

        const feed = { FEED_SINK: "file", FEED_SINK_FILE_DIR: "feed", ADMIN_PORT: "0" }
        const serving = yield* Controlpublish.start(program, ["serve"], {
          cwd,
          env: { DATABASE_URL: pump.url, ...feed }
        })
        yield* serving.waitFor(/admin/)
        succeeds(yield* as(app, ["append", "--type", "x", "--tenant", "t1", "--event-id", "one"]))
        const status = Effect.map(as(viewer, ["status", "--json"]), (result) => JSON.parse(succeeds(result)) as Status)
        yield* eventually(
          "the event is published",
          Effect.map(
            Effect.promise(() => Fs.readdir(Path.join(cwd, "feed"))),
            (files) => files.some((file) => file.includes("one"))
          )
        )
        yield* asOwner(
          `INSERT INTO control_events_outbox (event_id, event_type, payload_json) VALUES ('bad', 'x', '{}')`
        )
        yield* eventually(
          "it is parked",
          Effect.map(status, ({ backlog }) => backlog.parked.value === 1)
        )
        assert.include(succeeds(yield* as(viewer, ["events"])), "bad")
        assert.include(succeeds(yield* as(viewer, ["show", "one"])), "t1")
        assert.match((yield* as(viewer, ["discard", "bad", "--reason", "x"])).stderr, /permission denied/)
        succeeds(yield* as(operator, ["discard", "bad", "--reason", "x"]))
        assert.include(succeeds(yield* as(viewer, ["audit"])), "discard")
        const stranger = yield* connectTo(app.url, { application_name: "cron" })
        yield* failureOf(stranger, `SELECT pg_advisory_lock(${Names.make("public").laneLock}, 3)`)
        assert.match(
          succeeds(yield* as(viewer, ["status"])),
          new RegExp(
            `^held up +session \\d+ \\(user "${app.name}", application "cron"\\) is no pump and holds lane 3: end it`,
            "m"
          )
        )
        assert.match((yield* as(app, ["events"])).stderr, /permission denied/)
        assert.strictEqual((yield* serving.stop("SIGTERM")).code, 0)

        const source = { FEED_SOURCE: "file", FEED_SOURCE_FILE_DIR: "feed", APPLY_TABLES: "public.tenants" }
        const applying = yield* Controlpublish.start(program, ["apply"], {
          cwd,
          env: { DATABASE_URL: node.url, ...source }
        })
        yield* eventually(
          "the event is applied",
          Effect.map(
            asOwner("SELECT event_id FROM applied_events"),
            ({ rows }) => (rows as ReadonlyArray<{ readonly event_id: string }>)[0]?.event_id === "one"
          )
        )
        assert.strictEqual((yield* applying.stop("SIGTERM")).code, 0)
        // A version behind the tables says who mends that.
        yield* asOwner("DELETE FROM controlpublish_migrations WHERE migration_id > 1")
        const old = yield* as(pump, ["serve"], feed)
        assert.strictEqual(old.code, 1)
        assert.strictEqual(
          old.stderr,
          'controlpublish: Could not migrate schema "public": permission denied for schema public. Run "controlpublish migrate" as the owner of the tables\n'
        )
      }).pipe(Effect.provide(layerDatabase))
    )
  }
)

interface Status {
  readonly backlog: { readonly parked: { readonly value: number } }
}
