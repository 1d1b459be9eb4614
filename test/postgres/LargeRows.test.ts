/** What rows cost those who look and those who publish that are larger than an outbox takes: their text is not read. */
import { HttpServer } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Option } from "effect"
import * as Http from "node:http"
import * as Os from "node:os"
import { OutboxAdmin, OutboxStore, Pump, PumpConfig, Retention } from "../../src/index.js"
import * as AdminServer from "../../src/admin/AdminServer.js"
import { Postgres, PostgresOutboxAdmin } from "../../src/postgres/index.js"
import * as Guarded from "../../src/postgres/internal/guarded.js"
import * as Names from "../../src/postgres/internal/names.js"
import { MemorySink } from "../../src/testing/index.js"
import { layerClient, layerOutbox } from "../support/postgres.js"
import { asOwner } from "../support/roles.js"

const mega = 1024 * 1024

const services = Layer.mergeAll(
  Pump.layerManual,
  Retention.layer({ keep: "all" }).pipe(Layer.provideMerge(PostgresOutboxAdmin.layer()))
).pipe(
  Layer.provideMerge(MemorySink.layer),
  Layer.provide(PumpConfig.layerDefaults),
  Layer.provideMerge(Postgres.layer())
)

/** A row of before the bounds, or one that came around the trigger. */
const plant = (id: number, bytes: number, columns: Record<string, string> = {}) => {
  const all = {
    id: String(id),
    event_id: `'e${id}'`,
    event_type: "'x'",
    ordering_key: `'k${id}'`,
    payload_json: `('{"event_id":"e${id}","type":"x","text":"' || repeat('x', ${bytes}) || '"}')::json`,
    ...columns
  }
  return asOwner(`SET session_replication_role = replica;
    INSERT INTO control_events_outbox (${Object.keys(all).join()}) VALUES (${Object.values(all).join()})`)
}

/** The most memory that the process took beyond what it had, in megabytes. */
const memoryOf = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const before = process.memoryUsage.rss()
    let most = before
    const timer = setInterval(() => (most = Math.max(most, process.memoryUsage.rss())), 5)
    const value = yield* Effect.ensuring(
      self,
      Effect.sync(() => clearInterval(timer))
    )
    return [value, (Math.max(most, process.memoryUsage.rss()) - before) / mega] as const
  })

/** Reads an answer and keeps none of it. */
const get = (port: number, path: string) =>
  Effect.promise(
    () =>
      new Promise<{ readonly status: number; readonly bytes: number; readonly headers: Http.IncomingHttpHeaders }>(
        (resolve, reject) => {
          Http.get({ host: "127.0.0.1", port, path, agent: false }, (response) => {
            let bytes = 0
            response.on("data", (chunk: Buffer) => (bytes += chunk.length))
            response.on("end", () => resolve({ status: response.statusCode ?? 0, bytes, headers: response.headers }))
            response.on("error", reject)
          }).on("error", reject)
        }
      )
  )

const served = (context: Context.Context<Layer.Layer.Success<typeof services>>) =>
  Effect.gen(function* () {
    const settings: AdminServer.Options = { host: "127.0.0.1", port: 0, orFree: false, token: undefined }
    const server = yield* Layer.build(AdminServer.layerServer(settings))
    yield* Effect.provide(Layer.build(AdminServer.layer(settings)), Context.merge(context, server))
    const { address } = Context.get(server, HttpServer.HttpServer)
    assert(address._tag === "TcpAddress")
    return address.port
  })

const sixTimes = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.all(
    Array.from({ length: 6 }, () => self),
    { concurrency: 6 }
  )

describe("A large row", () => {
  it.scopedLive(
    "costs six readers at a time little, within the outbox's limit and beyond it",
    () =>
      Effect.gen(function* () {
        const context = yield* Layer.build(services)
        yield* asOwner(Guarded.setMaxPayloadBytes(Names.make("public"), 64 * mega))
        yield* plant(1, 50 * mega)
        yield* plant(2, 80 * mega, { event_type: `repeat('x', 300000)`, traceparent: `repeat('x', ${40 * mega})` })
        const port = yield* served(context)
        yield* sixTimes(get(port, "/api/events/e1"))

        const [shown, ofShown] = yield* memoryOf(sixTimes(get(port, "/api/events/e1")))
        for (const { bytes, status } of shown) {
          assert.strictEqual(status, 200)
          assert.isBelow(bytes, mega)
        }
        const [beyond, ofBeyond] = yield* memoryOf(sixTimes(get(port, "/api/events/e2")))
        for (const { bytes, status } of beyond) {
          assert.strictEqual(status, 200)
          assert.isBelow(bytes, 10_000)
        }
        const [listed, ofLists] = yield* memoryOf(sixTimes(get(port, "/api/events")))
        for (const { bytes } of listed) assert.isBelow(bytes, 10_000)
        const [raw, ofRaw] = yield* memoryOf(sixTimes(get(port, "/api/events/e1/payload")))
        for (const { bytes, headers, status } of raw) {
          assert.deepStrictEqual([status, bytes], [200, 50 * mega + `{"event_id":"e1","type":"x","text":""}`.length])
          assert.strictEqual(headers["content-type"], "application/json")
          assert.strictEqual(headers["content-disposition"], `attachment; filename="e1.json"`)
          assert.strictEqual(headers["x-content-type-options"], "nosniff")
        }
        assert.strictEqual((yield* get(port, "/api/events/e2/payload")).status, 409)
        assert.strictEqual((yield* get(port, "/api/events/none/payload")).status, 404)
        // Six whole payloads would be 300 MB as bytes alone.
        assert.isBelow(Math.max(ofShown, ofBeyond, ofLists), 60)
        assert.isBelow(ofRaw, 220)
      }).pipe(Effect.provide(Layer.provideMerge(layerOutbox("public"), layerClient))),
    300_000
  )

  it.scopedLive.runIf(Os.freemem() > 6_000 * mega)(
    "of 540 MB, which no string of JavaScript holds, is parked and stops nobody",
    () =>
      Effect.gen(function* () {
        const context = yield* Layer.build(services)
        const bytes = 540 * mega
        yield* plant(1, bytes)
        yield* plant(2, 10, { traceparent: `repeat('x', ${bytes})` })
        yield* plant(3, 10)
        const longId = "i".repeat(200_000)
        yield* plant(4, 10, { event_id: `'${longId}'` })
        yield* asOwner("SELECT setval('control_events_outbox_id_seq', 4)")
        const pump = Context.get(context, Pump.Pump)
        const store = Context.get(context, OutboxStore.OutboxStore)
        const admin = Context.get(context, OutboxAdmin.OutboxAdmin)
        const [report, ofPump] = yield* memoryOf(pump.drain)
        assert.deepInclude({ ...report }, { published: 1, parked: 3 })
        assert.isBelow(ofPump, 60)
        const parked = yield* store.parked({ limit: 10 })
        assert.match(parked.map(({ error }) => error).join(), /the payload has \d+ bytes.*traceparent has \d+ bytes/)
        const [[payload, trace], ofReads] = yield* memoryOf(Effect.all([admin.event("e1"), admin.event("e2")]))
        assert.isAbove(Option.getOrThrow(payload).payloadOmitted ?? 0, bytes)
        assert.isUndefined(Option.getOrThrow(trace).traceparent)
        assert.isBelow(ofReads, 60)
        const by = { actor: "ann", reason: "too large" }
        yield* admin.discard("e1", by)
        yield* admin.discard("e2", by)
        yield* admin.discard(longId, by)
        const sizes = yield* Effect.all([admin.audit({ limit: 10 }), admin.events({}, { limit: 10 })])
        assert.isBelow(JSON.stringify(sizes).length, 3_000)
      }).pipe(Effect.provide(Layer.provideMerge(layerOutbox("public"), layerClient))),
    300_000
  )
})
