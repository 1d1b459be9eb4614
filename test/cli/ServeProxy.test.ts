/** `serve` behind nginx on the same machine, and with TLS of its own. */
import { assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs/promises"
import * as Https from "node:https"
import * as Net from "node:net"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { vi } from "vitest"
import * as Http from "../admin/support/http.js"
import * as Controlpublish from "./support/controlpublish.js"

vi.setConfig({ testTimeout: 60_000 })

const PATH = `${process.env.PATH ?? ""}:/usr/sbin`

const hasNginx = spawnSync("nginx", ["-v"], { env: { PATH } }).status === 0

if (!hasNginx) {
  if (process.env.CI === "true") throw new Error("nginx is missing: apt-get install nginx-light")
  console.warn("Skipped, as there is no nginx on the PATH: the tests of serve behind a proxy")
}

const token = "a-token-of-more-than-16-characters"

const bearer = { authorization: `Bearer ${token}` }

const serve = (given: Record<string, string>) =>
  Effect.gen(function* () {
    const program = yield* Controlpublish.Program
    const cwd = yield* Controlpublish.workingDirectory
    const env = { FEED_SINK: "nop", ADMIN_PORT: "0", ...given }
    const running = yield* Controlpublish.start(program, ["serve"], { cwd, env })
    yield* running.waitFor(/Stop with Ctrl-C/)
    const [, scheme, port] = /^ {2}admin +(https?):\/\/.*:(\d+) /m.exec(yield* running.printed)!
    return { running, scheme, port: Number(port) }
  })

const freePort = Effect.promise(async () => {
  const server = Net.createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as Net.AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
})

/** nginx in front of a port, with what a location says beside `proxy_pass`. */
const nginx = (to: number, location = "") =>
  Effect.gen(function* () {
    const directory = yield* Controlpublish.workingDirectory
    const port = yield* freePort
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
      .map((name) => `${name}_temp_path ${directory}/${name};`)
      .join("\n")
    const conf = Path.join(directory, "nginx.conf")
    yield* Effect.promise(() =>
      Fs.writeFile(
        conf,
        `daemon off; master_process off; pid ${directory}/pid; error_log stderr;
        events {}
        http { access_log off; ${temporary}
          server { listen 127.0.0.1:${port}; location / { proxy_pass http://127.0.0.1:${to}; ${location} } } }`
      )
    )
    yield* Effect.acquireRelease(
      Effect.sync(() => spawn("nginx", ["-c", conf, "-p", directory], { env: { PATH }, stdio: "ignore" })),
      (child) =>
        Effect.promise(async () => {
          const ended = child.exitCode === null ? once(child, "close") : undefined
          child.kill("SIGTERM")
          await ended
        })
    )
    const send = (path: string, headers = {}, body?: unknown) => Http.send(port, { path, headers, body })
    yield* Effect.retry(Effect.sandbox(Effect.delay(send("/health/live"), "50 millis")), { times: 1_000 })
    return send
  })

layer(Controlpublish.layerProgram, { excludeTestServices: true, timeout: 300_000 })("serve", (it) => {
  describe.runIf(hasNginx)("behind nginx on the same machine", () => {
    it.scoped("lets nobody read without a token, with the defaults of nginx", () =>
      Effect.gen(function* () {
        const { port } = yield* serve({ ADMIN_TOKEN: token })
        const send = yield* nginx(port)
        for (const path of ["/api/status", "/api/events", "/api/events/e", "/api/audit", "/api/stream"]) {
          assert.strictEqual((yield* send(path, { host: "ops.example" })).status, 401, path)
        }
        assert.strictEqual((yield* send("/api/status", { host: "ops.example", ...bearer })).status, 200)
        assert.strictEqual((yield* send("/health/ready")).status, 200)

        const open = yield* serve({})
        const through = yield* nginx(open.port)
        assert.strictEqual((yield* Http.send(open.port, { path: "/api/status" })).status, 200)
        const refused = yield* through("/api/status")
        assert.strictEqual(refused.status, 403)
        assert.include(refused.json.message, "set ADMIN_TOKEN")
      })
    )

    it.scoped("answers to its name where the proxy passes it on, and writes down who asked", () =>
      Effect.gen(function* () {
        const location = `proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;`
        const strict = yield* serve({ ADMIN_TOKEN: token })
        const unknown = yield* nginx(strict.port, location)
        const refused = yield* unknown("/api/status", { host: "ops.example", ...bearer })
        assert.strictEqual(refused.status, 403)
        assert.include(refused.json.message, "ADMIN_ALLOWED_HOSTS")

        const { port, running } = yield* serve({
          ADMIN_TOKEN: token,
          ADMIN_ALLOWED_HOSTS: "ops.example",
          ADMIN_TRUSTED_PROXIES: "127.0.0.1"
        })
        const send = yield* nginx(port, location)
        const headers = { host: "ops.example", origin: "https://ops.example", ...bearer }
        assert.strictEqual((yield* send("/api/status", headers)).status, 200)
        assert.strictEqual((yield* send("/api/status", { host: "evil.example", ...bearer })).status, 403)
        // The outbox of nop keeps no audit; the log has the same line.
        yield* send("/api/pump/pause", { ...headers, "x-forwarded-for": "203.0.113.9" }, { reason: "a test" })
        yield* running.waitFor(/Operator action failed: pause.*from 203\.0\.113\.9 through 127\.0\.0\.1/)
      })
    )
  })

  it.scoped("speaks TLS with the certificates that it is given, and asks clients for theirs", () =>
    Effect.gen(function* () {
      const file = (name: string) => fileURLToPath(new URL(`../support/tls/${name}`, import.meta.url))
      const tls = { ADMIN_TLS_CERT_FILE: file("server.pem"), ADMIN_TLS_KEY_FILE: file("server.key") }
      const read = (name: string) => Effect.promise(() => Fs.readFile(file(name)))
      const ca = yield* read("ca.pem")
      const ask = (port: number, options: Https.RequestOptions = {}) =>
        Effect.promise(
          () =>
            new Promise<number | string>((resolve) => {
              Https.get(
                { host: "127.0.0.1", port, path: "/api/status", agent: false, ca, headers: bearer, ...options },
                (response) => resolve(response.resume().statusCode ?? 0)
              ).on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
            })
        )
      const plain = yield* serve({ ...tls, ADMIN_TOKEN: token })
      assert.strictEqual(plain.scheme, "https")
      assert.strictEqual(yield* ask(plain.port), 200)
      assert.strictEqual(yield* ask(plain.port, { headers: {} }), 401)
      const mutual = yield* serve({ ...tls, ADMIN_TLS_CLIENT_CA_FILE: file("ca.pem"), ADMIN_TOKEN: token })
      assert.isString(yield* ask(mutual.port))
      const client = { cert: yield* read("client.pem"), key: yield* read("client.key") }
      assert.strictEqual(yield* ask(mutual.port, client), 200)
      assert.isNull(mutual.running.process.exitCode)

      const program = yield* Controlpublish.Program
      for (const [env, message] of [
        [{ ADMIN_TLS_CERT_FILE: file("server.pem") }, /^controlpublish: ADMIN_TLS_KEY_FILE .*is missing/],
        [{ ...tls, ADMIN_TLS_KEY_FILE: file("client.key") }, /^controlpublish: ADMIN_TLS_KEY_FILE .*cannot be used/],
        [{ ...tls, ADMIN_TLS_CERT_FILE: "/nowhere.pem" }, /^controlpublish: ADMIN_TLS_CERT_FILE .*cannot read/],
        [{ ADMIN_TOKEN: "a" }, /^controlpublish: ADMIN_TOKEN: has 1 characters, the minimum is 16/],
        [{ ADMIN_TOKEN: "x".repeat(15), ADMIN_HOST: "0.0.0.0" }, /^controlpublish: ADMIN_TOKEN: has 15 characters/],
        [{ ADMIN_TOKENS_FILE: "/nowhere" }, /^controlpublish: ADMIN_TOKENS_FILE .*no such file/],
        [{ ADMIN_ALLOWED_HOSTS: "https://ops.example" }, /^controlpublish: ADMIN_ALLOWED_HOSTS .*valid is a name/],
        [{ ADMIN_TRUSTED_PROXIES: "10.0.0.0/40" }, /^controlpublish: ADMIN_TRUSTED_PROXIES .*valid is an address/]
      ] as const) {
        const { code, stderr } = yield* Controlpublish.run(program, ["serve"], {
          env: { FEED_SINK: "nop", ADMIN_PORT: "0", ...env }
        })
        assert.strictEqual(code, 1)
        assert.match(stderr, message)
        assert.strictEqual(stderr.trim().split("\n").length, 1)
      }
    })
  )
})
