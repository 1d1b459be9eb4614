import { Effect } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { freePort } from "./nats.js"

const isInstalled = spawnSync("pgbouncer", ["--version"]).status === 0

const howToInstall = "pgbouncer is not on the PATH: apt-get install pgbouncer, or brew install pgbouncer"

/** Whether the suites that need a pooler can run. In CI they have to; elsewhere a line says that they do not. */
export const available = (): boolean => {
  if (!isInstalled && (process.env.CI ?? "") !== "") throw new Error(howToInstall)
  if (!isInstalled) console.warn(`SKIPPED: the tests behind a pooler. ${howToInstall}`)
  return isInstalled
}

const accepts = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, "127.0.0.1")
    socket.once("connect", () => {
      resolve(true)
      socket.destroy()
    })
    socket.once("error", () => resolve(false))
  })

/** A pooler before the server of `target`, for the length of the scope. Answers the URL that leads through it. */
export const pgbouncer = (target: URL, mode: "transaction" | "session") =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const directory = await mkdtemp(join(tmpdir(), "controlpublish-pgbouncer-"))
        const port = await freePort()
        const config = join(directory, "pgbouncer.ini")
        const server = [
          `host=${target.hostname}`,
          `port=${target.port || 5432}`,
          `user=${decodeURIComponent(target.username)}`,
          ...(target.password === "" ? [] : [`password=${decodeURIComponent(target.password)}`])
        ]
        await writeFile(
          config,
          `[databases]
* = ${server.join(" ")}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = ${mode}
default_pool_size = 20
max_client_conn = 200
`
        )
        // It refuses to run as root, and the user that it becomes has to read its configuration.
        await chmod(directory, 0o755)
        const asUser = process.getuid?.() === 0 ? ["-u", "postgres"] : []
        const child = spawn("pgbouncer", [...asUser, config], { stdio: ["ignore", "ignore", "pipe"] })
        let said = ""
        child.stderr.on("data", (data: Buffer) => (said += data.toString()))
        const deadline = Date.now() + 20_000
        while (!(await accepts(port))) {
          if (child.exitCode !== null || Date.now() > deadline) throw new Error(`pgbouncer does not start: ${said}`)
          await new Promise((resolve) => setTimeout(resolve, 20))
        }
        const url = new URL(target)
        url.hostname = "127.0.0.1"
        url.port = String(port)
        return { child, directory, url }
      }),
      ({ child, directory }) =>
        Effect.promise(async () => {
          const gone = child.exitCode === null ? once(child, "exit") : undefined
          child.kill("SIGKILL")
          await gone
          await rm(directory, { recursive: true, force: true })
        })
    ),
    ({ url }) => url
  )
