import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Either, Layer, Logger, Metric, Redacted } from "effect"
import { createHash } from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { HttpServer } from "@effect/platform"
import * as AdminServer from "../../src/admin/AdminServer.js"
import * as Addresses from "../../src/admin/internal/addresses.js"
import * as Tokens from "../../src/admin/Tokens.js"
import { Outbox, Pump, PumpConfig, Retention } from "../../src/index.js"
import { MemoryOutboxAdmin, MemoryOutboxStore, MemorySink } from "../../src/testing/index.js"
import * as Http from "./support/http.js"

const memory = Layer.mergeAll(
  Outbox.layer,
  Pump.layer.pipe(Layer.provide(PumpConfig.layerDefaults)),
  Retention.layer({ keep: "all" }).pipe(Layer.provideMerge(MemoryOutboxAdmin.layer))
).pipe(Layer.provideMerge(MemorySink.layer), Layer.provide(MemoryOutboxStore.layer))

const start = (given: Partial<AdminServer.Options> = {}) =>
  Effect.gen(function* () {
    const options: AdminServer.Options = { host: "127.0.0.1", port: 0, orFree: false, token: undefined, ...given }
    const server = yield* Layer.build(AdminServer.layerServer(options))
    yield* Effect.provide(Layer.build(AdminServer.layer(options)), Context.merge(yield* Layer.build(memory), server))
    const { port } = Context.get(server, HttpServer.HttpServer).address as HttpServer.TcpAddress
    return {
      port,
      get: (path: string, headers = {}) => Http.send(port, { path, headers }),
      post: (path: string, headers = {}) => Http.send(port, { path, body: { reason: "a test" }, headers })
    }
  })

const proxies = (text: string) => Either.getOrThrow(Addresses.parseList(text))

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

const [reader, operator, next] = ["reader-reader-reader", "operator-operator-1", "operator-operator-2"]

const temporary = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "controlpublish-tokens-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true }))
)

/** What is logged while an effect runs. */
const logged = <A, E, R>(use: (lines: () => string) => Effect.Effect<A, E, R>) => {
  const lines: Array<string> = []
  const logger = Logger.make(({ message }) => void lines.push(String(message)))
  return Effect.provide(
    use(() => lines.join("\n")),
    Logger.replace(Logger.defaultLogger, logger)
  )
}

const refusedFor = (reason: string) =>
  Effect.sync(() =>
    Metric.unsafeSnapshot()
      .filter(
        ({ metricKey: { name, tags } }) =>
          name === "controlpublish_admin_refused_total" && [...tags].some(({ value }) => value === reason)
      )
      .reduce((sum, { metricState }) => sum + ("count" in metricState ? Number(metricState.count) : 0), 0)
  )

describe("Access", () => {
  it.scopedLive("takes the scheme Bearer, and no other", () =>
    Effect.gen(function* () {
      const { get } = yield* start({ token: Redacted.make(operator) })
      for (const [authorization, status] of [
        [`Bearer ${operator}`, 200],
        [`bearer ${operator}`, 200],
        [`BEARER  ${operator}`, 200],
        [`Basic1 ${operator}`, 401],
        [`Digest ${operator}`, 401],
        [`Bearer${operator}`, 401],
        [`Bearer: ${operator}`, 401],
        [`Bearer ${operator} x`, 401],
        [`xxxxxxx${operator}`, 401],
        [operator, 401],
        ["", 401]
      ] as const) {
        assert.strictEqual((yield* get("/api/status", { authorization })).status, status, authorization)
      }
    })
  )

  it.scopedLive("lets the holder of a role do what it may, and names the holder in the audit", () =>
    Effect.gen(function* () {
      const digest = createHash("sha256").update(operator).digest("hex")
      const entries = Either.getOrThrow(Tokens.parse(`# ours\n\nrita read ${reader}\nolaf operate sha256:${digest}\n`))
      const { get, post } = yield* start({ token: undefined, tokens: Effect.succeed(entries) })
      assert.strictEqual((yield* get("/api/status")).status, 401)
      assert.strictEqual((yield* get("/api/status", bearer(reader))).status, 200)
      const refused = yield* post("/api/pump/pause", bearer(reader))
      assert.deepStrictEqual([refused.status, refused.json._tag], [403, "Forbidden"])
      assert.include(refused.json.message, "rita may only read")
      assert.strictEqual((yield* post("/api/pump/pause", bearer(operator))).status, 200)
      // The digest is no token.
      assert.strictEqual((yield* get("/api/status", bearer(`sha256:${digest}`))).status, 401)
      const audit = (yield* get("/api/audit", bearer(reader))).json.entries as ReadonlyArray<{ readonly actor: string }>
      assert.deepStrictEqual(
        audit.map(({ actor }) => actor),
        ["olaf, from 127.0.0.1"]
      )
    })
  )

  it("refuses a file of tokens by its line, and never shows a token", () => {
    for (const [text, reason] of [
      ["", "it has no token"],
      ["# none", "it has no token"],
      [`ann read ${reader}\nbob write ${operator}`, "line 2: the role is invalid, valid is read or operate"],
      ["ann read short-secret", "line 1: the token has 12 characters, the minimum is 16: "],
      [`ann read ${reader} more`, "line 1: valid is <name> <read or operate> <token>"],
      [`ann ${reader}`, "line 1: valid is <name> <read or operate> <token>"],
      [`a;b read ${reader}`, "line 1: the name is invalid"],
      [`ann read ${reader}ü`, "line 1: the token has invalid characters"]
    ] as const) {
      const result = Tokens.parse(text)
      assert.isTrue(Either.isLeft(result), text)
      const message = Either.getOrThrow(Either.flip(result))
      assert.include(message, reason)
      for (const secret of [reader, operator, "short-secret"]) assert.notInclude(message, secret)
    }
    assert.isTrue(Either.isLeft(Tokens.check("a")))
    assert.isTrue(Either.isLeft(Tokens.check("x".repeat(15))))
    assert.isTrue(Either.isRight(Tokens.check("x".repeat(16))))
  })

  it.scopedLive("reads the tokens again when their file changes, and keeps them where it cannot", () =>
    logged((lines) =>
      Effect.gen(function* () {
        const file = Path.join(yield* temporary, "tokens")
        const write = (text: string) => Effect.promise(() => Fs.writeFile(file, text))
        yield* write(`olaf operate ${operator}`)
        const { get } = yield* start({ tokens: yield* Tokens.fromFile(file) })
        const until = (token: string, status: number) =>
          Effect.repeat(Effect.delay(get("/api/status", bearer(token)), "300 millis"), {
            until: (answer) => answer.status === status
          })
        yield* until(operator, 200)
        yield* write(`olaf operate ${operator}\nolaf operate ${next}`)
        yield* until(next, 200)
        yield* until(operator, 200)
        yield* write(`olaf operate ${next}`)
        yield* until(operator, 401)
        yield* write("olaf operate")
        yield* Effect.sleep("1200 millis")
        yield* until(next, 200)
        yield* Effect.promise(() => Fs.rm(file))
        yield* Effect.sleep("1200 millis")
        yield* until(next, 200)
        assert.match(lines(), /ADMIN_TOKENS_FILE: line 1: valid is .* stay valid/)
        for (const secret of [operator, next]) assert.notInclude(lines(), secret)
      })
    )
  )

  it.scopedLive("counts wrong tokens, logs them in few lines, and slows their address", () =>
    logged((lines) =>
      Effect.gen(function* () {
        const { get } = yield* start({ token: Redacted.make(operator), isProxy: proxies("127.0.0.1") })
        const guess = (index: number) =>
          get("/api/status", { ...bearer(`wrong-wrong-wrong-${index}`), "x-forwarded-for": "203.0.113.7" })
        yield* guess(0)
        assert.include(lines(), "The admin API refused 1 request with a wrong token from 203.0.113.7")
        const before = yield* refusedFor("wrong")
        const guesses = Array.from({ length: 200 }, (_, index) => guess(index))
        const [elapsed, answers] = yield* Effect.timed(Effect.all(guesses, { concurrency: 20 }))
        const statuses = answers.map(({ status }) => status)
        assert.sameMembers([...new Set(statuses)], [401, 429])
        // Ten at once, then as many a second as may wait.
        const checked = statuses.filter((status) => status === 401).length
        assert.isAtMost(checked, 10 + 20 + 9 * (Duration.toSeconds(elapsed) + 1), "guesses that were looked at")
        assert.isAbove(statuses.length - checked, 50)
        assert.strictEqual((yield* refusedFor("wrong")) - before, checked)
        assert.isAbove(yield* refusedFor("throttled"), 50)
        const warnings = lines()
          .split("\n")
          .filter((line) => line.includes("wrong token"))
        assert.isAtLeast(warnings.length, 1)
        assert.isAtMost(warnings.length, 3)
        assert.include(warnings[0], "203.0.113.7")
        assert.notInclude(lines(), "wrong-wrong")
        // Others are not slowed.
        const [other, { status }] = yield* Effect.timed(
          get("/api/status", { ...bearer(operator), "x-forwarded-for": "203.0.113.8" })
        )
        assert.strictEqual(status, 200)
        assert.isBelow(Duration.toMillis(other), 900)
      })
    )
  )

  it.scopedLive("believes the addresses that a trusted proxy adds, and nothing that stands before", () =>
    Effect.gen(function* () {
      const token = Redacted.make(operator)
      const actorsOf = (options: Partial<AdminServer.Options>, forwarded: ReadonlyArray<string>) =>
        Effect.gen(function* () {
          const { get, post } = yield* start({ token, ...options })
          for (const header of forwarded) {
            yield* post("/api/pump/pause", { ...bearer(operator), "x-forwarded-for": header })
          }
          const { entries } = (yield* get("/api/audit", bearer(operator))).json as {
            readonly entries: ReadonlyArray<{ readonly actor: string }>
          }
          return entries.map(({ actor }) => actor.replace("the holder of the token, from ", "")).toReversed()
        })
      const headers = ["203.0.113.9", "10.9.9.9, 203.0.113.9", "203.0.113.9, 10.0.0.2", "nonsense", "x, 2001:DB8::1"]
      assert.deepStrictEqual(yield* actorsOf({}, headers), Array<string>(5).fill("127.0.0.1"))
      assert.deepStrictEqual(yield* actorsOf({ isProxy: proxies("127.0.0.1, 10.0.0.0/8") }, headers), [
        "203.0.113.9 through 127.0.0.1",
        "203.0.113.9 through 127.0.0.1",
        "203.0.113.9 through 127.0.0.1",
        "127.0.0.1",
        "2001:db8::1 through 127.0.0.1"
      ])
    })
  )

  it.scopedLive("lets nobody in through a proxy where there is no token", () =>
    Effect.gen(function* () {
      const { get, post } = yield* start()
      assert.strictEqual((yield* get("/api/status")).status, 200)
      for (const name of ["x-forwarded-for", "X-Real-IP", "Forwarded", "Via", "X-Forwarded-Proto"]) {
        const { json, status } = yield* get("/api/events", { [name]: "x" })
        assert.strictEqual(status, 403, name)
        assert.include(json.message, "set ADMIN_TOKEN")
        assert.strictEqual((yield* post("/api/pump/pause", { [name]: "x" })).status, 403, name)
      }
    })
  )

  it.scopedLive("answers to the names that it is allowed, and to no others", () =>
    Effect.gen(function* () {
      const allowedHosts = new Set(["ops.example", "ops.example:8443"])
      for (const host of ["127.0.0.1", "0.0.0.0"]) {
        const { get, post } = yield* start({ host, token: Redacted.make(operator), allowedHosts })
        const statusOf = (headers: Record<string, string>) =>
          Effect.map(
            Effect.all([
              get("/api/status", { ...bearer(operator), ...headers }),
              post("/api/pump/resume", { ...bearer(operator), ...headers })
            ]),
            ([{ status }, written]) => (status === written.status ? status : -1)
          )
        for (const [headers, status] of [
          [{ host: "ops.example" }, 200],
          [{ host: "OPS.example:9000" }, 200],
          [{ host: "localhost:7070" }, 200],
          [{ host: "evil.example" }, 403],
          [{ host: "ops.example.evil.example" }, 403],
          [{ host: "ops.example", origin: "https://ops.example" }, 200],
          // Behind a proxy that does not pass the name on.
          [{ origin: "https://ops.example" }, 200],
          [{ origin: "https://ops.example:8443" }, 200],
          [{ origin: "https://ops.example:1" }, 403],
          [{ origin: "https://evil.example" }, 403],
          [{ host: "ops.example", origin: "null" }, 403]
        ] as const) {
          assert.strictEqual(yield* statusOf(headers), status, `${host}: ${JSON.stringify(headers)}`)
        }
        assert.strictEqual(yield* statusOf({ host: "10.1.2.3:7070" }), host === "0.0.0.0" ? 200 : 403)
      }
    })
  )
})
