/** What strangers can send to the port of `serve`, and that nothing of it ends the service or keeps it from answering. */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { createHash } from "node:crypto"
import * as NodeHttp from "node:http"
import * as Net from "node:net"
import { vi } from "vitest"
import { layerDatabase, TestDatabase } from "../support/postgres.js"
import * as Http from "../admin/support/http.js"
import * as Controlpublish from "./support/controlpublish.js"
import { hold, raw, type Raw } from "./support/sockets.js"

vi.setConfig({ testTimeout: 60_000 })

const token = "a token of 16 and more".replaceAll(" ", "-")

/** `serve` that publishes nothing: the API is the same, and it starts at once. */
const serve = (given: Record<string, string> = {}) =>
  Effect.gen(function* () {
    const program = yield* Controlpublish.Program
    const cwd = yield* Controlpublish.workingDirectory
    const running = yield* Controlpublish.start(program, ["serve"], {
      cwd,
      env: { FEED_SINK: "nop", ADMIN_PORT: "0", ...given }
    })
    yield* running.waitFor(/Stop with Ctrl-C/)
    const [, port] = /^ {2}admin +http:\/\/.*:(\d+) /m.exec(yield* running.printed)!
    return { running, port: Number(port), get: (path: string) => Http.send(Number(port), { path }) }
  })

/** A number from 0 on below `below`, the same in each run. */
const randomOf = (seed: string) => {
  let count = 0
  return (below: number): number => createHash("sha256").update(`${seed} ${count++}`).digest().readUInt32BE() % below
}

const host = "Host: 127.0.0.1\r\n"

const upgrade = `${host}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n`

const websocket = `${host}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n`

const json = "Content-Type: application/json\r\n"

const requests: ReadonlyArray<string> = [
  `GET /health/live HTTP/1.1\r\n${host}\r\n`,
  `GET /api/stream HTTP/1.1\r\n${host}\r\n`,
  `GET /health/live HTTP/1.1\r\n${websocket}\r\n`,
  `GET /api/stream HTTP/1.1\r\n${websocket}\r\n`,
  `GET /api/stream HTTP/1.1\r\n${upgrade}\r\n`,
  `GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade, Upgrade\r\nUpgrade: websocket\r\n\r\n`,
  `POST /api/pump/pause HTTP/1.1\r\n${upgrade}${json}Content-Length: 14\r\n\r\n{"reason":"x"}`,
  `POST /api/pump/pause HTTP/1.1\r\n${host}${json}Content-Length: 14\r\n\r\n{"rea`,
  `POST /api/pump/pause HTTP/1.1\r\n${host}${json}Transfer-Encoding: chunked\r\n\r\n5\r\n{"rea\r\n`,
  `POST /api/pump/pause HTTP/1.1\r\n${host}${json}Transfer-Encoding: chunked\r\n\r\nzz\r\n`,
  `POST /api/pump/pause HTTP/1.1\r\n${host}${json}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n`,
  `POST /api/pump/pause HTTP/1.1\r\n${host}${json}Expect: 100-continue\r\nContent-Length: 14\r\n\r\n`,
  `POST /api/pump/pause HTTP/1.1\r\n${host}${json}Expect: the-unexpected\r\nContent-Length: 14\r\n\r\n`,
  `CONNECT db.internal:5432 HTTP/1.1\r\n${host}\r\nSELECT 1`,
  `CONNECT / HTTP/1.1\r\n${host}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
  `OPTIONS * HTTP/1.1\r\n${host}\r\n`,
  `TRACE /api/status HTTP/1.1\r\n${host}\r\n`,
  `GET http://evil.example/api/status HTTP/1.1\r\n${host}\r\n`,
  `GET //[ HTTP/1.1\r\n${host}\r\n`,
  `GET /api/events/%zz HTTP/1.1\r\n${host}\r\n`,
  `GET /api/events/%E0%A4%A HTTP/1.1\r\n${host}\r\n`,
  `GET /${"a".repeat(100_000)} HTTP/1.1\r\n${host}\r\n`,
  `GET / HTTP/1.1\r\n${host}X: ${"a".repeat(100_000)}\r\n\r\n`,
  `GET / HTTP/1.1\r\n${"X: y\r\n".repeat(3_000)}\r\n`,
  `GET / HTTP/1.1\r\nno header at all\r\n\r\n`,
  `GET / HTTP/9.9\r\n\r\n`,
  `GET /api/status HTTP/1.0\r\n\r\n`,
  `GET /api/status HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n`,
  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
  "\r\n\r\n\r\n",
  "\0\0\0\0",
  "GET",
  `GET /health/live HTTP/1.1\r\n${host}\r\n`.repeat(500),
  `GET /api/stream HTTP/1.1\r\n${host}\r\n`.repeat(100)
]

const ends = ["reset", "finish", "wait"] as const

const patience = 30_000

const freePort = Effect.promise(
  () =>
    new Promise<number>((resolve) => {
      const server = Net.createServer().listen(0, "127.0.0.1", () => {
        const { port } = server.address() as Net.AddressInfo
        server.close(() => resolve(port))
      })
    })
)

/** The status, or "refused" where nobody listens, "reset" where that is over, "open" where no answer comes. */
type Answer = number | "refused" | "reset" | "open"

/** Sends one request on a connection of its own. */
const ask = (port: number, path: string) =>
  new Promise<Answer>((resolve) => {
    const request = NodeHttp.get({ host: "127.0.0.1", port, path, agent: false }, (response) => {
      response.resume().on("end", () => resolve(response.statusCode ?? 0))
    })
    // The service itself closes what was silent for 45 seconds, and a busy machine may take many of them to start it.
    request.setTimeout(30_000, () => {
      resolve("open")
      request.destroy()
    })
    request.on("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNREFUSED" ? "refused" : "reset"))
  })

layer(Layer.merge(Controlpublish.layerProgram, layerDatabase), { excludeTestServices: true, timeout: 300_000 })(
  "The port of serve",
  (it) => {
    it.scoped("is reset while an upgrade is asked for, and the service goes on", () =>
      Effect.gen(function* () {
        const { get, port, running } = yield* serve({ ADMIN_TOKEN: token })
        for (const [connection, path] of [
          ["Upgrade, Upgrade: websocket", "/health/live"],
          ["Upgrade\r\nUpgrade: websocket", "/health/live"],
          ["Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk", "/api/stream"]
        ] as const) {
          for (const name of ["127.0.0.1", "evil.example"]) {
            const parts = [`GET ${path} HTTP/1.1\r\nHost: ${name}\r\nConnection: ${connection}\r\n\r\n`]
            for (const after of [0, 5, 30]) yield* raw(port, { parts, end: "reset", after })
            assert.strictEqual((yield* get("/health/live")).status, 200, `${path} of ${name} with ${connection}`)
          }
        }
        assert.isNull(running.process.exitCode)
        assert.notMatch(yield* running.logged, /error/i)
      })
    )

    it.scoped("answers over HTTP/1.1 whoever offers another protocol, and reads the body", () =>
      Effect.gen(function* () {
        const { port } = yield* serve()
        const answers = (text: string, expected: RegExp) =>
          Effect.map(raw(port, { parts: [text], end: "wait" }, patience, expected), (answer) =>
            assert.match(answer, expected)
          )
        const live = `GET /health/live HTTP/1.1\r\n${websocket.replace("Upgrade\r\n", "Upgrade, close\r\n")}\r\n`
        yield* answers(live, /^HTTP\/1\.1 200 OK\r\n[^]*\{"live":true\}$/)
        const body = `{"reason":""}`
        const post = `POST /api/pump/pause HTTP/1.1\r\n${upgrade}${json}Content-Length: ${body.length}\r\n\r\n${body}`
        // The body was looked at.
        yield* answers(post, /^HTTP\/1\.1 400 [^]*"field":"reason"/)
        yield* answers(
          `CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\n\r\n`,
          /^HTTP\/1\.1 405 [^]*"_tag":"MethodNotAllowed"/
        )
        yield* answers("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", /^HTTP\/1\.1 (400|505) /)
      })
    )

    it.scoped("answers every request from the first connection on, while the service starts and stops", () =>
      Effect.gen(function* () {
        const program = yield* Controlpublish.Program
        const cwd = yield* Controlpublish.workingDirectory
        const { url } = yield* TestDatabase
        const port = yield* freePort
        const asked: Array<Promise<readonly [path: string, answer: Answer]>> = []
        const paths = ["/health/ready", "/health/live", "/api/status"]
        const open = new Set<string>()
        const timer = setInterval(() => {
          const path = paths[asked.length % paths.length]!
          asked.push(
            ask(port, path).then((answer) => {
              if (answer === 200) open.add(path)
              return [path, answer] as const
            })
          )
        }, 10)
        yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(timer)))
        const running = yield* Controlpublish.start(program, ["serve"], {
          cwd,
          env: {
            FEED_SINK: "file",
            ADMIN_PORT: String(port),
            DATABASE_URL: Redacted.value(url),
            DATABASE_SCHEMA: "starting"
          }
        })
        yield* running.waitFor(/Stop with Ctrl-C/)
        // The answers of `asked` alone: it has 200 from each path before the service stops.
        yield* Effect.repeat(Effect.sleep("10 millis"), {
          until: () => open.size === paths.length
        })
        const { code } = yield* running.stop("SIGTERM")
        assert.strictEqual(code, 0)
        clearInterval(timer)
        const answers = yield* Effect.promise(() => Promise.all(asked))
        const of = (path: string) => new Set(answers.filter(([asked]) => asked === path).map(([, answer]) => answer))
        for (const path of paths) assert.isFalse(of(path).has("open"), `${path}: ${[...of(path)].join(", ")}`)
        assert.includeMembers([...of("/health/ready")], ["refused", 503, 200])
        assert.includeMembers([...of("/health/live")], ["refused", 200])
        assert.isFalse(of("/health/live").has(503))
        assert.includeMembers([...of("/api/status")], ["refused", 503, 200])
      })
    )

    it.scoped("is given anything, and the service goes on", () =>
      Effect.gen(function* () {
        const { get, port, running } = yield* serve({ ADMIN_TOKEN: token })
        const random = randomOf("sockets")
        const cut = (text: string): Raw => {
          const bytes = Buffer.from(text, "latin1")
          const at = random(bytes.length)
          return {
            parts:
              random(2) === 0 ? [bytes] : [bytes.subarray(0, at), ...(random(2) === 0 ? [bytes.subarray(at)] : [])],
            pause: random(20),
            end: ends[random(ends.length)]!,
            after: random(30)
          }
        }
        const changed = (text: string): string => {
          const at = random(text.length)
          const byte = String.fromCharCode(random(256))
          return text.slice(0, at) + byte + text.slice(at + random(3))
        }
        const cases = [
          ...requests.flatMap((request) => ends.map((end): Raw => ({ parts: [request], end, after: 10 }))),
          ...Array.from({ length: 400 }, () => cut(requests[random(requests.length)]!)),
          ...Array.from({ length: 400 }, () => cut(changed(requests[random(requests.length)]!))),
          ...Array.from({ length: 100 }, () =>
            cut(requests[random(requests.length)]! + requests[random(requests.length)]!)
          )
        ]
        yield* Effect.forEach(cases, (each) => raw(port, each, 100), { concurrency: 24, discard: true })
        for (const path of ["/health/live", "/health/ready", "/metrics", "/"]) {
          assert.notStrictEqual((yield* get(path)).status, 0, path)
        }
        assert.isNull(running.process.exitCode)
        const { code, stderr } = yield* running.stop("SIGTERM")
        assert.strictEqual(code, 0)
        assert.notMatch(stderr, /Unhandled|at .*\.js:\d+/)
      })
    )

    it.scoped("is held by idle and by slow connections, and health and metrics answer meanwhile", () =>
      Effect.gen(function* () {
        const { get, port } = yield* serve()
        // The first scrape loads what renders the metrics.
        yield* get("/metrics")
        const body = `POST /api/pump/pause HTTP/1.1\r\n${host}${json}Content-Length: 60000\r\n\r\n{"rea`
        for (const [count, text] of [
          [300, ""],
          [300, "GET /health/live HTTP/1.1\r\nHo"],
          [300, `GET /health/live HTTP/1.1\r\n${host}\r\n`],
          [300, body],
          [300, `GET /api/stream HTTP/1.1\r\n${host}\r\n`]
        ] as const) {
          const held = yield* hold(port, count, text)
          for (const path of ["/health/live", "/health/ready", "/metrics", "/health/live"]) {
            const answer = yield* Effect.timeoutFail(get(path), {
              // Without a reserve for them nothing is answered until those are closed.
              duration: "5 seconds",
              onTimeout: () => `no answer of ${path} beside ${text.slice(0, 50)}`
            })
            assert.strictEqual(answer.status, 200, `${path} beside ${text}`)
          }
          // What says nothing is closed within seconds.
          if (text === "") {
            yield* Effect.repeat(Effect.delay(Effect.sync(held.open), "100 millis"), {
              until: (open) => open === 0
            }).pipe(Effect.timeout("30 seconds"))
          }
        }
      }).pipe(Effect.scoped)
    )
  }
)
