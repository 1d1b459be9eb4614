import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Logger, LogLevel, Redacted, Scope } from "effect"
import { Outbox, Pump, PumpConfig, Sink } from "../../src/index.js"
import { Migrations, Postgres } from "../../src/postgres/index.js"
import { MemorySink } from "../../src/testing/index.js"
import { makeOwnServer } from "../support/ownServer.js"
import { eventually, feedIds, layerPump } from "../support/pump.js"
import { connectTo } from "../support/roles.js"

const insert = (id: string, key: string) =>
  `INSERT INTO control_events_outbox (event_id, event_type, payload_json, ordering_key)
    VALUES ('${id}', 'x', '{"event_id":"${id}","type":"x","created_at":"2026-01-01T00:00:00Z"}', '${key}')`

const client = (url: string) => PgClient.layer({ url: Redacted.make(url) })

const store = (url: string) =>
  Postgres.layer().pipe(Layer.provideMerge(Layer.orDie(Migrations.layer())), Layer.provideMerge(client(url)))

const drained = (sink: Layer.Layer<Sink.Sink>) =>
  Pump.layerManual.pipe(
    Layer.provide(sink),
    Layer.provide(Layer.orDie(PumpConfig.layer({ drainTimeout: "500 millis" }))),
    Layer.provide(Logger.minimumLogLevel(LogLevel.None))
  )

describe("A crash of the server", () => {
  it.scopedLive(
    "leaves no event in the feed whose row is gone, whatever synchronous_commit the application has",
    () =>
      Effect.gen(function* () {
        // "local" and "remote_write" differ from "on" where a standby has to confirm: see below.
        const server = yield* makeOwnServer({ autovacuum: "off" })
        yield* Effect.scoped(Layer.build(store(yield* server.url)))
        yield* server.query("CREATE TABLE application (event_id text)")
        const ghosts: Array<string> = []
        let lost = 0
        for (const setting of ["off", "local", "remote_write"]) {
          const url = yield* server.url
          const published: Array<string> = []
          const crashed = yield* Deferred.make<void>()
          const scope = yield* Scope.make()
          yield* Effect.gen(function* () {
            yield* server.query(`ALTER DATABASE postgres SET synchronous_commit = '${setting}'`)
            yield* server.query(`ALTER DATABASE controlpublish SET synchronous_commit = '${setting}'`)
            const application = yield* connectTo(url)
            const context = yield* Layer.build(Outbox.layer.pipe(Layer.provideMerge(store(url))))
            const pump = yield* Layer.build(
              drained(
                Layer.succeed(Sink.Sink, {
                  name: "crash",
                  inert: false,
                  publish: ({ events }) =>
                    Effect.gen(function* () {
                      for (const { eventId } of events) published.push(eventId)
                      // Before the versions are written back, which would write what came before as well.
                      yield* crash
                      yield* Deferred.succeed(crashed, undefined)
                      return yield* Effect.never
                    })
                })
              ).pipe(Layer.provide(Layer.succeedContext(context)))
            )
            const crash = yield* server.crash
            yield* server.freezeWalWriter
            const append = Effect.gen(function* () {
              const outbox = yield* Outbox.Outbox
              yield* outbox.withTransaction(outbox.append({ event_id: `${setting}-program`, type: "x" }))
            })
            yield* Effect.provide(append, context)
            for (const key of ["a", "b", "c"]) {
              yield* Effect.promise(() => application.query(insert(`${setting}-${key}`, key)))
            }
            // What an asynchronous commit without an event loses, or this shows nothing.
            yield* Effect.promise(() => application.query(`INSERT INTO application VALUES ('${setting}')`))
            yield* Effect.forkIn(
              Effect.provide(
                Effect.flatMap(Pump.Pump, (_) => _.drain),
                pump
              ),
              scope
            )
            yield* Deferred.await(crashed)
          }).pipe(Scope.extend(scope))
          yield* Scope.close(scope, Exit.void)
          yield* server.restart
          const kept = yield* server.query("SELECT event_id FROM control_events_outbox")
          const ids = kept.map((row) => row["event_id"])
          assert.lengthOf(published, 4)
          ghosts.push(...published.filter((id) => !ids.includes(id)))
          if ((yield* server.query(`SELECT FROM application WHERE event_id = '${setting}'`)).length === 0) lost++
          yield* server.query("TRUNCATE control_events_outbox")
        }
        assert.deepStrictEqual(ghosts, [])
        assert.strictEqual(lost, 1)
      }),
    300_000
  )

  it.scopedLive(
    "publishes nothing that a synchronous standby has not confirmed, also where the application does not wait for it",
    () =>
      Effect.gen(function* () {
        const server = yield* makeOwnServer({ synchronous_commit: "local" })
        const url = yield* server.url
        const context = yield* Layer.build(store(url))
        const pump = yield* Layer.build(drained(MemorySink.layer).pipe(Layer.provide(Layer.succeedContext(context))))
        // The standby is away.
        yield* server.query("ALTER SYSTEM SET synchronous_standby_names = 'standby'", "SELECT pg_reload_conf()")
        const drain = Effect.provide(
          Effect.flatMap(Pump.Pump, (_) => _.drain),
          pump
        )
        for (const setting of ["off", "local", "remote_write"]) {
          const application = yield* connectTo(url)
          yield* Effect.promise(() => application.query(`SET synchronous_commit = ${setting}`))
          const [before] = (yield* Effect.promise(() =>
            application.query<{ pid: number }>("SELECT pg_backend_pid() AS pid")
          )).rows
          void application.query(insert(setting, setting)).catch(() => {})
          yield* eventually(
            `the commit with ${setting} waits for the standby`,
            Effect.map(
              server.query(`SELECT FROM pg_stat_activity WHERE pid = ${before!.pid} AND wait_event = 'SyncRep'`),
              (rows) => rows.length === 1
            )
          )
          assert.deepInclude({ ...(yield* drain) }, { published: 0 })
        }
        yield* server.query("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
        let published = 0
        yield* eventually(
          "all are published when nobody has to confirm any more",
          Effect.map(drain, (report) => (published += report.published) === 3)
        )
      }),
    300_000
  )
})

const armed = (server: { readonly query: (text: string) => Effect.Effect<ReadonlyArray<unknown>> }) =>
  eventually(
    "the pump is idle",
    Effect.map(
      server.query("SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND objid = 0"),
      (rows) => rows.length > 0
    )
  )

describe("Two-phase commit", () => {
  it.scopedLive(
    "takes a transaction that has appended, while a pump is idle, while it is busy, and through a crash",
    () =>
      Effect.gen(function* () {
        const server = yield* makeOwnServer({ max_prepared_transactions: 20 })
        const pumping = Effect.flatMap(server.url, (url) =>
          Layer.build(layerPump({ pollPeriod: "100 millis" }).pipe(Layer.provideMerge(store(url))))
        )
        const session = Effect.map(
          Effect.flatMap(server.url, (url) => connectTo(url)),
          (session) => (statement: string) => Effect.promise(() => session.query(statement))
        )
        const prepare = (run: Effect.Effect.Success<typeof session>, id: string, key: string) =>
          Effect.forEach(["BEGIN", insert(id, key), `PREPARE TRANSACTION '${id}'`], run)
        const isPublished = (id: string) =>
          eventually(
            `${id} is published`,
            Effect.map(feedIds, (ids) => ids.includes(id))
          )
        yield* Effect.gen(function* () {
          const run = yield* session
          const other = yield* session
          yield* Effect.provide(
            Effect.gen(function* () {
              yield* armed(server)
              yield* prepare(run, "idle", "k")
              yield* prepare(run, "rolled back", "other")
              // Of its key nothing comes before it.
              const later = yield* Effect.fork(other(insert("later", "k")))
              yield* run("ROLLBACK PREPARED 'rolled back'")
              yield* run("COMMIT PREPARED 'idle'")
              yield* Fiber.join(later)
              yield* isPublished("later")
              const { calls, script } = yield* MemorySink.MemorySink
              const busy = yield* Effect.makeLatch()
              yield* script(MemorySink.after(busy.await))
              const before = (yield* calls).length
              yield* run(insert("in flight", "flight"))
              yield* eventually(
                "the pump is busy",
                Effect.map(calls, (batches) => batches.length > before)
              )
              yield* prepare(run, "busy", "k")
              yield* busy.open
              yield* isPublished("in flight")
              assert.deepStrictEqual(yield* feedIds, ["idle", "later", "in flight"])
              yield* prepare(run, "crash", "crash")
            }),
            yield* pumping
          )
        }).pipe(Effect.scoped)
        yield* Effect.flatten(server.crash)
        yield* server.restart
        yield* Effect.gen(function* () {
          const run = yield* session
          const other = yield* session
          const context = yield* pumping
          const later = yield* Effect.fork(other(insert("after the crash", "crash")))
          yield* eventually(
            "the later append waits for the prepared one",
            Effect.map(
              server.query("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"),
              (rows) => rows.length > 0
            )
          )
          yield* run("COMMIT PREPARED 'busy'")
          yield* run("COMMIT PREPARED 'crash'")
          yield* Fiber.join(later)
          yield* Effect.provide(isPublished("after the crash"), context)
          const ids = yield* Effect.provide(feedIds, context)
          assert.sameMembers([...ids], ["busy", "crash", "after the crash"])
          assert.isBelow(ids.indexOf("crash"), ids.indexOf("after the crash"))
        }).pipe(Effect.scoped)
      }),
    300_000
  )
})
