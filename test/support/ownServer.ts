import { Effect, Exit, Redacted, Scope } from "effect"
import { existsSync } from "node:fs"
import { rm } from "node:fs/promises"
import * as Pg from "pg"
import * as EmbeddedPostgres from "../../src/cli/EmbeddedPostgres.js"
import { openDirectory } from "./openDirectory.js"

const query = (url: string, statements: ReadonlyArray<string>) =>
  Effect.promise(async () => {
    const client = new Pg.Client({ connectionString: url })
    client.on("error", () => {})
    await client.connect()
    let rows: Array<Record<string, unknown>> = []
    for (const statement of statements) rows = (await client.query<Record<string, unknown>>(statement)).rows
    await client.end().catch(() => {})
    return rows
  })

/** Ends a process, and waits until it is gone. */
const end = (pid: number) =>
  Effect.promise(async () => {
    try {
      process.kill(pid, "SIGKILL")
      for (;;) {
        process.kill(pid, 0)
        await new Promise((resolve) => setTimeout(resolve, 10))
        // Nobody reaps what a container's first process adopts.
        if (existsSync("/proc/self/stat") && !existsSync(`/proc/${pid}/cmdline`)) return
      }
    } catch {
      return
    }
  })

/**
 * A server that a test may configure, crash and start again. `settings` are those of `ALTER SYSTEM`, and need a start.
 */
export const makeOwnServer = (settings: Record<string, string | number> = {}) =>
  Effect.gen(function* () {
    const directory = yield* Effect.acquireRelease(
      Effect.promise(() => openDirectory("controlpublish-own-")),
      (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }))
    )
    interface Running {
      readonly scope: Scope.CloseableScope
      readonly url: string
    }
    const open: Effect.Effect<Running> = Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { superuserUrl } = yield* EmbeddedPostgres.start({ directory }).pipe(Scope.extend(scope), Effect.orDie)
      return { scope, url: Redacted.value(superuserUrl) }
    })
    let server = yield* open
    yield* Effect.addFinalizer(() => Scope.close(server.scope, Exit.void))
    const restart = Effect.gen(function* () {
      const { scope } = server
      server = yield* open
      yield* Scope.close(scope, Exit.void)
    })
    yield* query(
      server.url,
      Object.entries(settings).map(([name, value]) => `ALTER SYSTEM SET ${name} = '${value}'`)
    )
    yield* Scope.close(server.scope, Exit.void)
    server = yield* open
    return {
      /** Of the superuser. Another one after each start. */
      url: Effect.sync(() => server.url),
      query: (...statements: ReadonlyArray<string>) => Effect.suspend(() => query(server.url, statements)),
      /** Freezes the process that writes what asynchronous commits left behind, so that none of it is written by chance. */
      freezeWalWriter: Effect.suspend(() =>
        Effect.map(
          query(server.url, ["SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"]),
          (rows) => void process.kill(Number(rows[0]?.["pid"]), "SIGSTOP")
        )
      ),
      /** Answers what ends every process of the server at once, as a crash of its machine does. */
      crash: Effect.suspend(() =>
        Effect.map(
          query(server.url, [
            "SELECT pid, split_part(pg_read_file('postmaster.pid'), E'\\n', 1) AS postmaster FROM pg_stat_activity"
          ]),
          (rows) =>
            Effect.forEach([Number(rows[0]?.["postmaster"]), ...rows.map((row) => Number(row["pid"]))], end, {
              discard: true
            })
        )
      ),
      /** Starts the server after a crash, which recovers it. */
      restart
    }
  })
