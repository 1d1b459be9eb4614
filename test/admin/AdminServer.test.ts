import { HttpServer } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Either, Exit, Layer, Redacted, Scope, Stream } from "effect"
import { Outbox, OutboxAdmin, OutboxStore, Pump, PumpConfig, Retention, type Sink } from "../../src/index.js"
import * as Tokens from "../../src/admin/Tokens.js"
import * as AdminServer from "../../src/admin/AdminServer.js"
import { MemoryOutboxAdmin, MemoryOutboxStore, MemorySink } from "../../src/testing/index.js"
import * as Http from "./support/http.js"

type Services =
  | Outbox.Outbox
  | OutboxAdmin.OutboxAdmin
  | Pump.Pump
  | Retention.Retention
  | Sink.Sink
  | MemorySink.MemorySink
  | HttpServer.HttpServer

const memory: Layer.Layer<Exclude<Services, HttpServer.HttpServer>> = Layer.mergeAll(
  Outbox.layer,
  Pump.layer.pipe(Layer.provide(PumpConfig.layerDefaults)),
  Retention.layer({ keep: "all" }).pipe(Layer.provideMerge(MemoryOutboxAdmin.layer))
).pipe(Layer.provideMerge(MemorySink.layer), Layer.provide(MemoryOutboxStore.layer))

/** Beyond this machine, as far as the rules go. */
const everywhere = "0.0.0.0"

const token = Redacted.make("t0ken")

const bearer = { authorization: "Bearer t0ken" }

const options = (given: Partial<AdminServer.Options> = {}): AdminServer.Options => ({
  host: "127.0.0.1",
  port: 0,
  orFree: false,
  token: undefined,
  ...given
})

/** A server over an outbox in memory, some of whose services may be replaced. */
const start = (given?: Partial<AdminServer.Options>, replaced: Context.Context<never> = Context.empty()) =>
  Effect.gen(function* () {
    const context = Context.merge(yield* Layer.build(memory), replaced)
    const server = yield* Layer.build(AdminServer.layerServer(options(given)))
    yield* Effect.provide(Layer.build(AdminServer.layer(options(given))), Context.merge(context, server))
    const { address } = Context.get(server, HttpServer.HttpServer)
    assert.strictEqual(address._tag, "TcpAddress")
    const port = (address as HttpServer.TcpAddress).port
    return {
      port,
      send: (request: Http.Request) => Http.send(port, request),
      get: (path: string, headers = {}) => Http.send(port, { path, headers }),
      post: (path: string, body: unknown, headers = {}) => Http.send(port, { path, body, headers }),
      append: (...ids: ReadonlyArray<string>) =>
        Effect.flatMap(Outbox.Outbox, (outbox) =>
          outbox.withTransaction(outbox.appendAll(ids.map((id) => ({ event_id: id, type: "x", tenant_id: "t" }))))
        ).pipe(Effect.orDie, Effect.provide(context)),
      sink: Context.get(context, MemorySink.MemorySink),
      pump: Context.get(context, Pump.Pump)
    }
  })

const until = <A>(self: Effect.Effect<A>, predicate: (value: A) => boolean) =>
  Effect.repeat(Effect.delay(self, "10 millis"), { until: predicate })

const reason = { reason: "a test" }

const write = [
  "/api/pump/pause",
  "/api/redrive",
  "/api/retention/run",
  "/api/events/e/park",
  "/api/events/e/discard",
  "/api/events/e/erase"
]

const read = ["/api/status", "/api/events", "/api/events/e", "/api/events/e/payload", "/api/audit", "/api/stream"]

const open = ["/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs"]

/** The status of a request; a stream's is known before it ends. */
const statusOf = (port: number, path: string, headers: Record<string, string> = {}) =>
  path === "/api/stream"
    ? Effect.scoped(Effect.map(Http.open(port, path, headers), ({ status }) => status))
    : Effect.map(Http.send(port, { path, headers }), ({ status }) => status)

describe("AdminServer", () => {
  describe("access", () => {
    it.scopedLive("asks for nothing on this machine where there is no token", () =>
      Effect.gen(function* () {
        const { get, port, post } = yield* start()
        for (const path of [...open, "/api/status", "/api/events", "/api/audit", "/api/stream"]) {
          assert.strictEqual(yield* statusOf(port, path), 200, path)
        }
        assert.strictEqual((yield* post("/api/pump/pause", reason)).status, 200)
        const entries = (yield* get("/api/audit")).json.entries as ReadonlyArray<Record<string, unknown>>
        assert.deepStrictEqual(
          entries.map(({ action, actor }) => [action, actor]),
          [["pause", "127.0.0.1"]]
        )
      })
    )

    it.scopedLive("asks for the token once there is one, also on this machine", () =>
      Effect.gen(function* () {
        const { get, port, post, pump } = yield* start({ token })
        for (const path of open) assert.strictEqual(yield* statusOf(port, path), 200, path)
        for (const path of read) {
          assert.strictEqual(yield* statusOf(port, path), 401, path)
          assert.notStrictEqual(yield* statusOf(port, path, bearer), 401, path)
        }
        for (const path of write) {
          for (const headers of [{}, { authorization: "Bearer t0ken2" }, { authorization: "Bearer " }]) {
            const { headers: answered, json, status } = yield* post(path, reason, headers)
            assert.deepStrictEqual(
              [status, json._tag, answered["www-authenticate"]],
              [401, "Unauthorized", "Bearer"],
              path
            )
            assert.notInclude(JSON.stringify(json), "t0ken")
          }
        }
        assert.notStrictEqual((yield* pump.status).state, "paused")
        assert.strictEqual((yield* post("/api/pump/pause", reason, bearer)).status, 200)
        assert.strictEqual((yield* pump.status).state, "paused")
        const [entry] = (yield* get("/api/audit", bearer)).json.entries as [Record<string, unknown>]
        assert.include(entry, { action: "pause", actor: "the holder of the token, from 127.0.0.1", reason: "a test" })
      })
    )

    it.scopedLive("asks for the token beyond this machine, but for health, metrics and pages without data", () =>
      Effect.gen(function* () {
        const { port, post } = yield* start({ host: everywhere, token })
        for (const path of read) {
          assert.strictEqual(yield* statusOf(port, path), 401, path)
          assert.notStrictEqual(yield* statusOf(port, path, bearer), 401, path)
        }
        for (const path of write) assert.strictEqual((yield* post(path, reason)).status, 401, path)
        for (const path of open) assert.strictEqual(yield* statusOf(port, path), 200, path)
      })
    )

    it.scopedLive("refuses the pages of other sites", () =>
      Effect.gen(function* () {
        const { get, port, post } = yield* start()
        const host = `127.0.0.1:${port}`
        const cases: ReadonlyArray<readonly [Record<string, string>, boolean]> = [
          [{}, true],
          [{ host: "localhost" }, true],
          [{ host: `[::1]:${port}` }, true],
          [{ host: "evil.example" }, false],
          [{ host: `127.0.0.1.evil.example:${port}` }, false],
          [{ host: "localhost.evil.example" }, false],
          [{ origin: `http://${host}` }, true],
          [{ origin: "http://evil.example" }, false],
          [{ origin: `http://127.0.0.1:${port + 1}` }, false],
          [{ origin: "null" }, false],
          [{ "sec-fetch-site": "same-origin" }, true],
          [{ "sec-fetch-site": "none" }, true],
          [{ "sec-fetch-site": "same-site" }, false],
          [{ "sec-fetch-site": "cross-site" }, false]
        ]
        for (const [headers, allowed] of cases) {
          for (const [what, { json, status }] of [
            ["a read", yield* get("/api/status", headers)],
            ["a write", yield* post("/api/pump/resume", reason, headers)]
          ] as const) {
            assert.strictEqual(status, allowed ? 200 : 403, `${what} with ${JSON.stringify(headers)}`)
            if (!allowed) assert.strictEqual(json._tag, "Forbidden")
          }
        }
        // A link from elsewhere leads here, a form does not.
        const link = { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate" }
        assert.strictEqual((yield* get("/docs", link)).status, 200)
        assert.strictEqual((yield* post("/api/pump/pause", reason, link)).status, 403)
        const form = { "content-type": "application/x-www-form-urlencoded" }
        for (const headers of [form, { "content-type": "text/plain" }, { "content-type": "" }]) {
          assert.strictEqual((yield* post("/api/pump/pause", "reason=x", headers)).status, 415)
        }
      })
    )

    it.scopedLive("lets others' names in beyond this machine, where the token guards", () =>
      Effect.gen(function* () {
        const { get } = yield* start({ host: everywhere, token })
        const named = { host: "ops.example", ...bearer }
        assert.strictEqual((yield* get("/api/status", named)).status, 200)
        assert.strictEqual((yield* get("/api/status", { ...named, origin: "https://ops.example" })).status, 200)
        assert.strictEqual((yield* get("/api/status", { ...named, origin: "https://evil.example" })).status, 403)
      })
    )

    it.scopedLive("gives every answer its headers", () =>
      Effect.gen(function* () {
        const { get } = yield* start()
        for (const path of ["/api/status", "/nothing", "/docs", "/metrics"]) {
          const { headers } = yield* get(path)
          assert.include(headers["content-security-policy"], "frame-ancestors 'none'", path)
          assert.include(headers["content-security-policy"], "default-src 'none'", path)
          assert.strictEqual(headers["x-content-type-options"], "nosniff", path)
          assert.strictEqual(headers["cache-control"], "no-store", path)
          assert.strictEqual(headers["access-control-allow-origin"], undefined, path)
        }
        assert.notInclude((yield* get("/api/status")).headers["content-security-policy"], "unsafe-inline")
      })
    )
  })

  describe("bad input", () => {
    it.scopedLive("is a 400 that names the field", () =>
      Effect.gen(function* () {
        const { get, post, pump } = yield* start()
        for (const [path, field] of [
          ["/api/events?limit=501", "limit"],
          ["/api/events?limit=0", "limit"],
          ["/api/events?limit=1.5", "limit"],
          ["/api/events?limit=many", "limit"],
          ["/api/events?state=lost", "state"],
          ["/api/events?since=-1", "since"],
          ["/api/events?until=1e300", "until"],
          ["/api/events?id=", "id"],
          ["/api/events?tenant=a%00b", "tenant"],
          ["/api/events?cursor=nonsense", "cursor"],
          ["/api/events?tenat=t", "tenat"],
          ["/api/audit?limit=1000", "limit"],
          ["/api/audit?cursor=nonsense", "cursor"],
          ["/api/events/a%00b", "eventId"]
        ] as const) {
          const { json, status } = yield* get(path)
          assert.deepStrictEqual([status, json._tag, json.field], [400, "BadRequest", field], path)
          assert.match(String(json.message), new RegExp(`^${field}: `), path)
        }
        const { json } = yield* get("/api/events?state=lost")
        assert.strictEqual(json.message, "state: valid is pending, waiting, parked or published")
        for (const [path, body, field] of [
          ["/api/pump/pause", {}, "reason"],
          ["/api/pump/pause", { reason: " " }, "reason"],
          ["/api/pump/pause", { reason: "x".repeat(501) }, "reason"],
          ["/api/pump/pause", { reason: 7 }, "reason"],
          ["/api/pump/pause", { reason: "x", force: true }, "force"],
          ["/api/pump/pause", "{", "body"],
          ["/api/pump/pause", "", "body"],
          ["/api/pump/pause", "[]", "body"],
          ["/api/redrive", { reason: "x" }, "filter"],
          // A misspelt name must not redrive everything.
          ["/api/redrive", { reason: "x", filter: { tenantId: "t" } }, "filter.tenantId"],
          ["/api/redrive", { reason: "x", filter: { state: "pending" } }, "filter.state"],
          ["/api/redrive", { reason: "x", filter: { since: "yesterday" } }, "filter.since"],
          ["/api/events/e/park", {}, "reason"]
        ] as const) {
          const { json, status } = yield* post(path, body)
          assert.deepStrictEqual([status, json._tag, json.field], [400, "BadRequest", field], JSON.stringify(body))
        }
        assert.notStrictEqual((yield* pump.status).state, "paused")
      })
    )

    it.scopedLive("is a path that is written in another way", () =>
      Effect.gen(function* () {
        const { append, get, post, pump } = yield* start()
        yield* pump.pause
        yield* append("e", "e;x")
        for (const path of [
          "//api/status",
          "/api//status",
          "/API/status",
          "/api/Status",
          "/api/status/",
          "/api/status;x",
          "/api;x/status",
          "/api/status#x",
          "/api/%73tatus",
          "/%61pi/status",
          "/api/status%2F",
          "/api/./status",
          "/x/../api/status",
          "/api\\status",
          "/api/events/e/",
          "/api/events/e;x",
          "/api/events//e",
          "/Metrics",
          "/metrics/",
          "/docs/",
          "/health/live;x",
          "http://127.0.0.1/api/status"
        ]) {
          const { json, status } = yield* get(path)
          assert.deepStrictEqual([status, json._tag], [404, "NotFound"], path)
        }
        assert.strictEqual((yield* get("/api/events/e%3Bx")).json.eventId, "e;x")
        for (const path of ["/api/events/e;x/park", "/api/pump/resume/", "//api/pump/resume", "/api/pump/RESUME"]) {
          assert.strictEqual((yield* post(path, reason)).status, 404, path)
        }
        assert.strictEqual((yield* pump.status).state, "paused")
      })
    )

    it.scopedLive("is a name that objects have of themselves, and a body of many levels", () =>
      Effect.gen(function* () {
        const { get, post, pump } = yield* start()
        for (const query of ["__proto__=1", "limit=1&__proto__=t", "%5F_proto__=1", "__proto__"]) {
          const { json, status } = yield* get(`/api/events?${query}`)
          assert.deepStrictEqual([status, json._tag, json.field], [400, "BadRequest", "__proto__"], query)
        }
        for (const name of ["constructor", "toString", "hasOwnProperty", "__defineGetter__", "prototype"]) {
          assert.strictEqual((yield* get(`/api/events?${name}=1`)).status, 400, name)
        }
        for (const body of [
          `{"reason":"x","__proto__":{"a":1}}`,
          `{"reason":"x","constructor":1}`,
          `{"__proto__":{"reason":"x"}}`
        ]) {
          assert.strictEqual((yield* post("/api/pump/pause", body)).status, 400, body)
        }
        for (const body of [
          `{"reason":"x","filter":{"__proto__":{"tenantId":"t"}}}`,
          `{"reason":"x","filter":{"toString":"t"}}`
        ]) {
          assert.strictEqual((yield* post("/api/redrive", body)).status, 400, body)
        }
        const deep = (open: string, close: string, levels: number) => open.repeat(levels) + close.repeat(levels)
        for (const body of [
          deep("[", "]", 30_000),
          deep(`{"a":`, "}", 6_000).replace(":}", ":1}"),
          `{"reason":${deep("[", "]", 20_000)}}`,
          `{"reason":"x","filter":${deep(`{"filter":`, "}", 5_000).replace(":}", ":{}}")}}`,
          "[".repeat(60_000),
          `{"reason":"x"${"}".repeat(60_000)}`
        ]) {
          for (const path of ["/api/pump/pause", "/api/redrive", "/api/events/e/park"]) {
            const { json, status } = yield* post(path, body)
            assert.deepStrictEqual([status, json._tag, json.field], [400, "BadRequest", "body"], body.slice(0, 30))
          }
        }
        assert.notStrictEqual((yield* pump.status).state, "paused")
        // Brackets within a text are none.
        assert.strictEqual((yield* post("/api/pump/pause", { reason: `${"[".repeat(200)}"\\` })).status, 200)
      })
    )

    it.scopedLive("does not reach the service where it is large", () =>
      Effect.gen(function* () {
        const { get, post } = yield* start()
        const { json, status } = yield* post("/api/pump/pause", { reason: "x".repeat(65 * 1024) })
        assert.deepStrictEqual([status, json._tag], [413, "TooLarge"])
        // Without a length that is told before.
        const chunked = Effect.exit(
          post("/api/pump/pause", { reason: "x".repeat(1024 * 1024) }, { "transfer-encoding": "chunked" })
        )
        const answer = yield* chunked
        assert.isTrue(answer._tag === "Failure" || answer.value.status === 413)
        assert.strictEqual((yield* get("/health/live")).status, 200)
      })
    )

    it.scopedLive("is a 404 in JSON for what there is not", () =>
      Effect.gen(function* () {
        const { get, post, send } = yield* start()
        for (const { json, status } of [
          yield* get("/nothing"),
          yield* get("/api/events/none"),
          yield* get("/api/pump/pause"),
          yield* send({ method: "DELETE", path: "/api/events/e", headers: Http.json }),
          yield* post("/api/events/none/park", reason),
          yield* post("/api/events/none/discard", reason),
          yield* post("/api/events/none/redrive", reason)
        ]) {
          assert.deepStrictEqual([status, json._tag], [404, "NotFound"])
          assert.isNotEmpty(json.message)
        }
      })
    )
  })

  it.scopedLive("lets an address listen to the status 32 times at once", () =>
    Effect.gen(function* () {
      const { get, port } = yield* start()
      yield* Effect.scoped(
        Effect.gen(function* () {
          for (let count = 1; count <= 32; count++) {
            assert.strictEqual((yield* Http.open(port, "/api/stream")).status, 200)
          }
          assert.deepInclude((yield* get("/api/stream")).json, { _tag: "TooManyRequests" })
          assert.strictEqual((yield* get("/api/status")).status, 200)
        })
      )
      yield* until(statusOf(port, "/api/stream"), (status) => status === 200)
    })
  )

  it.scopedLive("lets an address download 8 payloads at once", () =>
    Effect.gen(function* () {
      const admin = Context.get(yield* Layer.build(memory), OutboxAdmin.OutboxAdmin)
      const endless = Stream.concat(Stream.make(new TextEncoder().encode("{")), Stream.never)
      const { get, port } = yield* start(
        {},
        Context.make(OutboxAdmin.OutboxAdmin, {
          ...admin,
          payload: () => Effect.succeed({ bytes: 2, pieces: endless })
        })
      )
      const path = "/api/events/e1/payload"
      yield* Effect.scoped(
        Effect.gen(function* () {
          for (let count = 1; count <= 8; count++) {
            assert.strictEqual((yield* Http.open(port, path)).status, 200)
          }
          assert.strictEqual((yield* Http.open(port, path)).status, 429)
          assert.strictEqual((yield* get("/api/status")).status, 200)
        })
      )
      // A place is free again when a download ends.
      yield* until(Effect.scoped(Effect.map(Http.open(port, path), ({ status }) => status)), (status) => status === 200)
    })
  )

  it.scopedLive("pages through events, and finds one by any id", () =>
    Effect.gen(function* () {
      const { append, get, pump } = yield* start()
      yield* pump.pause
      const strange = "a/b c?d#e%2F+ü;:@&=‮" + "x".repeat(150)
      const ids = [...Array.from({ length: 6 }, (_, index) => `e${index}`), strange]
      yield* append(...ids)
      const seen: Array<string> = []
      let cursor: string | undefined
      let pages = 0
      do {
        const { json, status } = yield* get(`/api/events?limit=3${cursor === undefined ? "" : `&cursor=${cursor}`}`)
        assert.strictEqual(status, 200)
        const events = json.events as ReadonlyArray<{ readonly eventId: string }>
        assert.isAtMost(events.length, 3)
        seen.push(...events.map(({ eventId }) => eventId))
        cursor = json.next as string | undefined
        pages++
      } while (cursor !== undefined)
      assert.deepStrictEqual(seen, ids.toReversed())
      assert.isAtLeast(pages, 3)
      const { json, status } = yield* get(`/api/events/${encodeURIComponent(strange)}`)
      assert.deepStrictEqual([status, json.eventId, json.state], [200, strange, "pending"])
      assert.include(json.payload, '"tenant_id":"t"')
      const found = yield* get(`/api/events?id=${encodeURIComponent(strange)}&tenant=t&key=t&state=pending&since=0`)
      assert.strictEqual((found.json.events as ReadonlyArray<unknown>).length, 1)
    })
  )

  it.scopedLive("parks, redrives and discards, and writes down who did it and why", () =>
    Effect.gen(function* () {
      const { append, get, post, pump, sink } = yield* start()
      yield* pump.pause
      yield* append("one", "two", "three")
      const state = (id: string) => Effect.map(get(`/api/events/${id}`), ({ json, status }) => [status, json.state])
      assert.deepStrictEqual((yield* post("/api/events/one/park", { reason: " is poison " })).json, { affected: 1 })
      assert.deepStrictEqual(yield* state("one"), [200, "parked"])
      assert.deepStrictEqual((yield* post("/api/events/one/park", reason)).status, 409)
      assert.deepStrictEqual((yield* post("/api/events/two/redrive", reason)).status, 409)
      yield* post("/api/events/two/park", reason)
      assert.deepStrictEqual((yield* post("/api/redrive", { filter: { tenant: "no" }, ...reason })).json, {
        affected: 0
      })
      assert.deepStrictEqual((yield* post("/api/redrive", { filter: {}, ...reason })).json, { affected: 2 })
      yield* post("/api/events/one/park", reason)
      assert.deepStrictEqual((yield* post("/api/events/one/redrive", reason)).json, { affected: 1 })
      assert.deepStrictEqual((yield* post("/api/events/three/discard", { reason: "never meant" })).json, {
        affected: 1
      })
      assert.deepStrictEqual(yield* state("three"), [404, undefined])
      yield* pump.resume
      yield* until(sink.feed, (feed) => feed.length === 2)
      assert.deepStrictEqual(
        (yield* sink.feed).map(({ eventId }) => eventId as string),
        ["one", "two"]
      )
      yield* until(state("one"), ([, state]) => state === "published")
      assert.strictEqual((yield* post("/api/events/one/discard", reason)).status, 409)
      const entries = (yield* get("/api/audit?changesOnly=true")).json.entries as ReadonlyArray<Record<string, unknown>>
      assert.deepStrictEqual(
        entries.map(({ action }) => action),
        ["discard", "redrive", "park", "redrive", "park", "park"]
      )
      assert.include(entries[0], { actor: "127.0.0.1", reason: "never meant", eventId: "three" })
      assert.include(entries.at(-1), { actor: "127.0.0.1", reason: "is poison", eventId: "one" })
      assert.strictEqual((yield* post("/api/retention/run", reason)).status, 409)
    })
  )

  it.scopedLive("pauses and resumes the pump", () =>
    Effect.gen(function* () {
      const { append, get, post, sink } = yield* start()
      assert.strictEqual((yield* post("/api/pump/pause", reason)).json.state, "paused")
      yield* append("e")
      const { json } = yield* get("/api/status")
      assert.include(json.pump, { state: "paused" })
      assert.deepInclude(json.health, { pump: { ok: true, message: "paused by an operator" }, ready: true })
      assert.strictEqual((yield* sink.feed).length, 0)
      assert.notStrictEqual((yield* post("/api/pump/resume", reason)).json.state, "paused")
      yield* until(sink.feed, (feed) => feed.length === 1)
    })
  )

  it.scopedLive("erases a payload and says what still has it, and the audit has who read one", () =>
    Effect.gen(function* () {
      const { append, get, post } = yield* start({ token })
      yield* append("e1")
      yield* until(get("/api/events/e1", bearer), ({ json }) => json.state === "published")
      const before = yield* get("/api/events/e1/payload", bearer)
      assert.deepStrictEqual([before.status, before.json.event_id], [200, "e1"])
      const erased = yield* post("/api/events/e1/erase", reason, bearer)
      assert.strictEqual(erased.status, 200)
      assert.deepInclude(erased.json, { eventId: "e1", controlVersion: 1 })
      assert.match(String(erased.json.remains), /^The feed has the payload as control version 1 until/)
      assert.deepInclude((yield* get("/api/events/e1/payload", bearer)).json, { event_id: "e1", erased: true })
      assert.strictEqual((yield* post("/api/events/none/erase", reason, bearer)).status, 404)
      const listed = (path: string) =>
        Effect.map(get(path, bearer), ({ json }) =>
          (json.entries as ReadonlyArray<Record<string, unknown>>).map(({ action, actor, eventId, reason }) => ({
            action,
            actor,
            eventId,
            reason
          }))
        )
      const actor = "the holder of the token, from 127.0.0.1"
      const entries = yield* listed("/api/audit")
      const downloaded = { action: "read", actor, eventId: "e1", reason: "downloaded" }
      const deed = { action: "erase", actor, eventId: "e1", reason: "a test" }
      assert.deepStrictEqual(entries.slice(0, 4), [downloaded, deed, downloaded, { ...downloaded, reason: "shown" }])
      assert.deepStrictEqual(yield* listed("/api/audit?changesOnly=true"), [deed])
    })
  )

  it.scopedLive("shows no payload where the audit cannot be written", () =>
    Effect.gen(function* () {
      const gone = Effect.fail(new OutboxStore.OutboxError({ message: "gone", retryable: true }))
      const admin = Context.get(yield* Layer.build(memory), OutboxAdmin.OutboxAdmin)
      const event = Effect.succeedSome({
        ...{ eventId: "e1", type: "x", orderingKey: "", lane: 0, state: "pending" as const, createdAt: 0 },
        ...{ attemptCount: 0, payload: "secret", payloadBytes: 6, failedAttempts: [] }
      })
      const { get } = yield* start(
        {},
        Context.make(OutboxAdmin.OutboxAdmin, {
          ...admin,
          event: () => event,
          payload: () => Effect.succeed({ bytes: 6, pieces: Stream.make(new TextEncoder().encode("secret")) }),
          record: () => gone
        })
      )
      for (const path of ["/api/events/e1", "/api/events/e1/payload"]) {
        const { status, text } = yield* get(path)
        assert.strictEqual(status, 503)
        assert.notInclude(text, "secret")
      }
    })
  )

  it.scopedLive(
    "writes refused writes to the audit, and no stranger can fill it",
    () =>
      Effect.gen(function* () {
        const reader = Tokens.parse("rita read a-token-that-reads").pipe(Either.getOrThrow)
        const { append, get, port, post } = yield* start({ token, tokens: Effect.succeed(reader) })
        yield* append("e1")
        const refused = Effect.map(get("/api/audit?limit=500", bearer), ({ json }) =>
          (json.entries as ReadonlyArray<Record<string, unknown>>).filter(({ action }) => action === "refused")
        )
        yield* until(get("/api/status", bearer), ({ json }) => JSON.stringify(json).includes(`"published"`))
        assert.strictEqual((yield* post("/api/events/e1/redrive", reason, bearer)).status, 409)
        assert.deepInclude((yield* refused)[0], {
          actor: "the holder of the token, from 127.0.0.1",
          eventId: "e1",
          reason: "redrive: The event is not parked, it is published (a test)"
        })
        assert.strictEqual(
          (yield* post("/api/pump/pause", reason, { authorization: "Bearer a-token-that-reads" })).status,
          403
        )
        assert.strictEqual(
          (yield* post("/api/pump/pause", reason, { ...bearer, origin: "http://evil.example" })).status,
          403
        )
        yield* Effect.forEach(Array.from({ length: 40 }), (_, n) => post(`/api/events/e${n}/park`, reason), {
          concurrency: 8
        })
        const sum = (entries: ReadonlyArray<Record<string, unknown>>) =>
          entries.reduce((sum, { affected }) => sum + Number(affected ?? 1), 0)
        const entries = yield* until(refused, (entries) => sum(entries) >= 43)
        assert.strictEqual(sum(entries), 43)
        // Eleven a go, and a slow machine may need a second one.
        assert.isAtMost(entries.length, 1 + 2 * 11)
        const reasons = entries.map(({ actor, reason }) => `${String(actor)} ${String(reason)}`).join("\n")
        assert.match(reasons, /^127\.0\.0\.1 POST \/api\/pump\/pause: The token of rita may only read$/m)
        assert.match(
          reasons,
          /^127\.0\.0\.1 POST \/api\/pump\/pause: The request comes from the page of another site$/m
        )
        assert.match(reasons, /^127\.0\.0\.1 POST \/api\/events\/e\d+\/park: The token is missing/m)
        // Refused reads are counted and logged, and no more.
        assert.strictEqual(yield* statusOf(port, "/api/status"), 401)
      }),
    60_000
  )

  it.scopedLive("pauses nothing that cannot be written to the audit", () =>
    Effect.gen(function* () {
      const admin = yield* Effect.provide(OutboxAdmin.OutboxAdmin, yield* Layer.build(memory))
      const gone = new OutboxStore.OutboxError({ message: "The database is gone", retryable: true })
      const { post, pump } = yield* start({}, Context.make(OutboxAdmin.OutboxAdmin, { ...admin, record: () => gone }))
      const { json, status } = yield* post("/api/pump/pause", reason)
      assert.deepStrictEqual([status, json], [503, { _tag: "Unavailable", message: "The database is gone" }])
      assert.notStrictEqual((yield* pump.status).state, "paused")
    })
  )

  it.scopedLive("answers what dies inside with 500, and goes on", () =>
    Effect.gen(function* () {
      const admin = yield* Effect.provide(OutboxAdmin.OutboxAdmin, yield* Layer.build(memory))
      const { get } = yield* start(
        {},
        Context.make(OutboxAdmin.OutboxAdmin, {
          ...admin,
          audit: () => Effect.die(new Error("s3cret"))
        })
      )
      const { json, status, text } = yield* get("/api/audit")
      assert.deepStrictEqual([status, json._tag], [500, "InternalError"])
      assert.notInclude(text, "s3cret")
      assert.strictEqual((yield* get("/api/events")).status, 200)
    })
  )

  it.scopedLive("is ready or says what is in the way", () =>
    Effect.gen(function* () {
      const { append, get, sink } = yield* start()
      const ready = yield* get("/health/ready")
      assert.deepInclude(ready.json, { ready: true, database: { ok: true, message: "answers" } })
      assert.strictEqual(ready.status, 200)
      yield* sink.setAvailable(false)
      yield* append("e")
      const { json } = yield* until(get("/health/ready"), ({ status }) => status === 503)
      assert.deepInclude(json, { _tag: "NotReady", ready: false, database: { ok: true, message: "answers" } })
      assert.deepInclude(json.sink, { ok: false })
      assert.match((json.sink as { readonly message: string }).message, /^memory: The memory sink /)
      assert.strictEqual((yield* get("/health/live")).status, 200)
      yield* sink.setAvailable(true)
      yield* until(get("/health/ready"), ({ status }) => status === 200)
    })
  )

  it.scopedLive("streams the status to many, who all get the same readings", () =>
    Effect.gen(function* () {
      const { port } = yield* start()
      const streams = yield* Effect.all(Array.from({ length: 20 }, () => Http.open(port, "/api/stream")))
      const times = (text: string) => text.split("\n\n").flatMap((event) => /"at":(\d+)/.exec(event)?.[1] ?? [])
      // Streams that were opened later begin later: from there on all have the same.
      const shared = () => {
        const all = streams.map(({ text }) => times(text()))
        const from = Math.max(...all.map(([first]) => Number(first ?? Infinity)))
        return all.map((times) => times.filter((at) => Number(at) >= from))
      }
      const readings = yield* until(Effect.sync(shared), (all) => all.every((times) => times.length >= 3))
      for (const { text } of streams) assert.match(text(), /^event: status\ndata: \{"at":/)
      for (const times of readings) assert.deepStrictEqual(times.slice(0, 3), readings[0]!.slice(0, 3))
    })
  )

  it.scopedLive("ends its streams when it stops, and waits for nobody who does not read", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { port } = yield* Scope.extend(start(), scope)
      const reader = yield* Http.open(port, "/api/stream")
      const idler = yield* Http.open(port, "/api/stream")
      idler.pause()
      yield* until(
        Effect.sync(() => reader.text()),
        (text) => text.includes("data:")
      )
      const [elapsed] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isTrue(yield* reader.end, "the stream was cut")
      assert.isBelow(Duration.toMillis(elapsed), 5_000)
      assert.isTrue((yield* Effect.exit(Http.send(port, { path: "/health/live" })))._tag === "Failure")
    })
  )

  it.scopedLive("tells of a port that is taken, or takes another where none was chosen", () =>
    Effect.gen(function* () {
      const { port } = yield* start()
      const error = yield* Effect.flip(Layer.build(AdminServer.layerServer(options({ port }))))
      assert.strictEqual(
        error.message,
        `ADMIN_HOST, ADMIN_PORT: cannot listen on 127.0.0.1, port ${port}: another process listens there`
      )
      const other = yield* start({ port, orFree: true })
      assert.notStrictEqual(other.port, port)
      assert.strictEqual((yield* other.get("/health/live")).status, 200)
      const unknown = yield* Effect.flip(Layer.build(AdminServer.layerServer(options({ host: "203.0.113.1" }))))
      assert.include(unknown.message, "this machine has no such address")
    })
  )

  it.scopedLive("documents itself, without anything from elsewhere", () =>
    Effect.gen(function* () {
      const { get } = yield* start()
      const { json } = yield* get("/openapi.json")
      const paths = json.paths as Record<string, Record<string, unknown>>
      assert.containsAllKeys(paths, ["/api/events/{eventId}/redrive", "/api/stream", "/health/ready", "/api/audit"])
      assert.containsAllKeys((json.components as { readonly schemas: object }).schemas, ["Status", "BadRequest"])
      assert.notInclude(JSON.stringify(json), "DecodeError")
      const page = yield* get("/docs")
      assert.match(page.headers["content-type"] ?? "", /^text\/html/)
      assert.notMatch(page.text, /<(script|link|img)[^>]*\s(src|href)=["']?(https?:)?\/\//)
    })
  )
})
