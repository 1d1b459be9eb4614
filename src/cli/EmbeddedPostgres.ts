/**
 * A PostgreSQL server in a directory, for when no other database is given.
 *
 * Processes that use the same directory share one server. The first one starts it, detached from its terminal. The last
 * one to leave stops it. A killed process leaves a lease that no longer counts; at worst the server runs until the next
 * user of the directory leaves.
 *
 * The directory contains:
 *
 * - `postgres`: the data, or a link to it. To start afresh, delete it together with `password` and `superuser`.
 * - `password`: the password of the role `controlpublish`, which owns the database. Only the directory's owner can read
 *   it.
 * - `superuser`: the password of the superuser `postgres`. Only the directory's owner can read it.
 * - `postgres.log`: the server's output.
 * - `users`: the leases, one file for each process that uses the server.
 * - `lock`: the queue of processes that are about to start or stop it.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import * as Fs from "node:fs/promises"
import * as Net from "node:net"
import * as Path from "node:path"
import { Client, DatabaseError } from "pg"
import * as PostgresBinaries from "./internal/postgresBinaries.js"
import * as PostgresData from "./internal/postgresData.js"
import * as PostgresRoles from "./internal/postgresRoles.js"
import * as Processes from "./internal/processes.js"

/**
 * The server could not be started or joined. The message is one line and says what to do if that is known.
 *
 * @since 0.1.0
 * @category errors
 */
export class EmbeddedPostgresError extends Schema.TaggedError<EmbeddedPostgresError>(
  "controlpublish/EmbeddedPostgresError"
)("EmbeddedPostgresError", {
  message: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {}

/**
 * A running server, accepting connections.
 *
 * @since 0.1.0
 * @category models
 */
export interface EmbeddedPostgres {
  /** The URL of the database `controlpublish` for its owner, who is not a superuser. Contains the password. */
  readonly url: Redacted.Redacted
  /** The same for the superuser, for what the application may not do, such as creating databases. */
  readonly superuserUrl: Redacted.Redacted
  /** Absolute, without symbolic links. */
  readonly directory: string
  /** A port on 127.0.0.1, which changes with each start. */
  readonly port: number
}

/**
 * Starts the server of a directory, or joins it if another process has started it. Creates a missing directory.
 *
 * When the scope closes, the process leaves the server, and stops it if nobody else uses it. Gives up after 60 seconds.
 *
 * @example
 * import * as Effect from "effect/Effect"
 * import * as EmbeddedPostgres from "./EmbeddedPostgres.js"
 *
 * export const program = Effect.scoped(
 *   Effect.gen(function* () {
 *     const { port } = yield* EmbeddedPostgres.start({ directory: ".controlpublish" })
 *     yield* Effect.log(`PostgreSQL listens on ${port}`)
 *   })
 * )
 *
 * @since 0.1.0
 * @category constructors
 */
export const start: (options: {
  /** Relative to the working directory. */
  readonly directory: string
}) => Effect.Effect<EmbeddedPostgres, EmbeddedPostgresError, Scope.Scope> = Effect.fn("EmbeddedPostgres.start")(
  function* (options) {
    const cannotUse = `Cannot use the directory ${options.directory}`
    const place = yield* attempt(cannotUse, () => PostgresData.prepare(options.directory))
    // The lease comes before the lock: a process that is about to stop the server sees the lease, or is waited for.
    yield* Effect.acquireRelease(
      attempt(cannotUse, () => Processes.claim(place.users)),
      (lease) =>
        attempt(cannotUse, () => Fs.rm(Path.join(place.users, lease), { force: true })).pipe(
          Effect.zipRight(exclusively(place, stopUnlessUsed(place))),
          Effect.interruptible,
          Effect.timeout("30 seconds"),
          Effect.catchAllCause((cause) => Effect.logWarning("The embedded PostgreSQL may run on", cause))
        )
    )
    let state = "another process is starting or stopping it"
    const report = (message: string) => {
      state = message
    }
    return yield* exclusively(place, run(place, report)).pipe(
      Effect.interruptible,
      Effect.timeoutFail({
        duration: "60 seconds",
        onTimeout: () =>
          new EmbeddedPostgresError({ message: `PostgreSQL is not ready after 60 seconds: ${state}; see ${place.log}` })
      })
    )
  }
)

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

/** The server may be ready in a moment. */
class NotYet extends Data.TaggedError("NotYet")<{ readonly message: string }> {}

const poll = Schedule.spaced("50 millis")

const failure = (what: string, cause: unknown): EmbeddedPostgresError =>
  new EmbeddedPostgresError({ message: `${what}: ${PostgresBinaries.messageOf(cause)}`, cause })

const attempt = <A>(what: string, f: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, EmbeddedPostgresError> =>
  Effect.tryPromise({ try: f, catch: (cause) => failure(what, cause) })

const exclusively = <A, R>(place: PostgresData.Place, self: Effect.Effect<A, EmbeddedPostgresError, R>) =>
  Processes.lock(place.lock).pipe(
    Effect.mapError(({ error }) => failure(`Cannot lock ${place.directory}`, error)),
    Effect.zipRight(self),
    Effect.scoped
  )

/**
 * Gets the server running, whatever is found: nothing, a server that starts, runs or stops, or the remains of a crash.
 */
const run = Effect.fnUntraced(function* (place: PostgresData.Place, report: (state: string) => void) {
  report("it takes long to create the database")
  const binaries = yield* Effect.cached(
    attempt("Cannot start PostgreSQL", async () => {
      const found = await PostgresBinaries.locate()
      return PostgresBinaries.accountFor(found, place.directory, place.data)
    })
  )
  yield* attempt("Cannot read the data", () => PostgresData.recover(place))
  if (!(yield* attempt("Cannot read the data", () => PostgresData.isInitialised(place)))) {
    const { account, binaries: found } = yield* binaries
    yield* attempt("Cannot create the database", (signal) => PostgresData.initialise(place, found, account, signal))
  }
  const password = yield* attempt("Cannot read the password", () => Fs.readFile(place.password, "utf8"))
  report("it takes long to start")
  return yield* Effect.gen(function* () {
    const server =
      (yield* findServer(place)) ??
      (yield* Effect.flatMap(binaries, ({ account, binaries: { postgres } }) => launch(place, postgres, account)))
    if (!server.ready) return yield* new NotYet({ message: "it is starting or stopping" })
    const { port } = server
    const url = PostgresRoles.urlOf(port, PostgresData.owner, password)
    yield* connect(url)
    const superPassword = yield* attempt("Cannot give the application a role of its own", () =>
      PostgresRoles.superuserPassword(place, port, password)
    )
    const superuserUrl = PostgresRoles.urlOf(port, PostgresData.superuser, superPassword)
    return { url: Redacted.make(url), superuserUrl: Redacted.make(superuserUrl), directory: place.directory, port }
  }).pipe(
    Effect.tapErrorTag("NotYet", ({ message }) => Effect.sync(() => report(message))),
    Effect.retry({ while: (error) => error._tag === "NotYet", schedule: poll }),
    // The schedule has no end.
    Effect.catchTag("NotYet", (error) => Effect.die(error))
  )
})

const findServer = (place: PostgresData.Place) =>
  attempt("Cannot look for the server", () => PostgresData.findServer(place))

/** Starts a server and waits until it is ready. If the wait ends otherwise, the server is stopped. */
const launch = (
  place: PostgresData.Place,
  postgres: string,
  account: PostgresBinaries.Account
): Effect.Effect<PostgresData.Server, EmbeddedPostgresError | NotYet> =>
  Effect.acquireUseRelease(
    attempt("Cannot start PostgreSQL", () => spawnServer(place, postgres, account)),
    ({ ended }) => Effect.raceFirst(awaitReady(place), failWhenEnded(ended)),
    ({ child, log }, exit) =>
      Effect.zipRight(
        // Not after it has ended: the pid may belong to another process by now.
        Exit.isSuccess(exit) || child.pid === undefined || child.exitCode !== null || child.signalCode !== null
          ? Effect.void
          : stop(child.pid),
        Effect.promise(() => log.close())
      )
  )

const awaitReady = (place: PostgresData.Place): Effect.Effect<PostgresData.Server, EmbeddedPostgresError | NotYet> =>
  findServer(place).pipe(
    Effect.flatMap((server) => (server?.ready ? Effect.succeed(server) : new NotYet({ message: "it is starting" }))),
    Effect.retry({ while: (error) => error._tag === "NotYet", schedule: poll })
  )

const failWhenEnded = (ended: Promise<string>): Effect.Effect<never, EmbeddedPostgresError | NotYet> =>
  Effect.flatMap(
    Effect.promise(() => ended),
    (reason): Effect.Effect<never, EmbeddedPostgresError | NotYet> => {
      const message = `PostgreSQL did not start: ${reason}`
      // The port was taken meanwhile, or a server that crashed takes a moment to end.
      return /Address already in use|pre-existing shared memory|lock file "postmaster.pid"/.test(reason)
        ? new NotYet({ message })
        : new EmbeddedPostgresError({ message })
    }
  )

interface Spawned {
  readonly child: ChildProcess
  /** Completes when the process has ended, with the reason. */
  readonly ended: Promise<string>
  readonly log: Fs.FileHandle
}

const spawnServer = async (
  place: PostgresData.Place,
  postgres: string,
  account: PostgresBinaries.Account
): Promise<Spawned> => {
  await PostgresData.removeStalePidFile(place)
  await PostgresData.settle(place, account)
  const settings = {
    listen_addresses: "127.0.0.1",
    port: await freePort(),
    unix_socket_directories: "",
    shared_buffers: "128MB",
    max_connections: 100
  }
  const args = Object.entries(settings).flatMap(([key, value]) => ["-c", `${key}=${value}`])
  const data = await Fs.realpath(place.data)
  const log = await Fs.open(place.log, "a+", 0o600)
  const { size } = await log.stat()
  if (account.owner !== undefined) await log.chown(account.owner.uid, account.owner.gid)
  // In its own session, so that a Ctrl-C in this process's terminal does not reach it.
  const child = spawn(postgres, ["-D", data, ...args], {
    ...account.options,
    detached: true,
    stdio: ["ignore", log.fd, log.fd]
  })
  child.unref()
  const ended = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message))
    child.once("exit", (code, signal) => {
      const printed = Buffer.alloc(16_384)
      const describe = ({ bytesRead }: { readonly bytesRead: number }) =>
        PostgresBinaries.lastLines(printed.toString("utf8", 0, bytesRead)) || `it ended with ${signal ?? code}`
      void log.read(printed, 0, printed.length, size).then(describe, PostgresBinaries.messageOf).then(resolve)
    })
  })
  return { child, ended, log }
}

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = Net.createServer()
    server.once("error", reject)
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() =>
        address !== null && typeof address === "object" ? resolve(address.port) : reject(new Error("no free port"))
      )
    })
  })

/** Connects once: only this shows that it is our server, with our password, and that it accepts connections. */
const connect = (url: string): Effect.Effect<void, EmbeddedPostgresError | NotYet> =>
  Effect.tryPromise({
    try: async () => {
      const client = new Client({ connectionString: url, connectionTimeoutMillis: 5000 })
      client.on("error", () => {})
      try {
        await client.connect()
      } finally {
        await client.end().catch(() => {})
      }
    },
    catch: (cause) => {
      const message = `Cannot connect to PostgreSQL: ${PostgresBinaries.messageOf(cause)}`
      // Wrong password or no such database: waiting does not help.
      return cause instanceof DatabaseError && /^(28|3D)/.test(cause.code ?? "")
        ? new EmbeddedPostgresError({ message, cause })
        : new NotYet({ message })
    }
  })

const stopUnlessUsed = Effect.fnUntraced(function* (place: PostgresData.Place) {
  const users = yield* attempt("Cannot look for other users", () => Processes.claims(place.users))
  if (users.length > 0) return
  const server = yield* findServer(place)
  if (server !== undefined) yield* stop(server.pid)
})

/** A fast shutdown. If that takes too long, an immediate one, from which the next start recovers. */
const stop = (pid: number): Effect.Effect<void> =>
  Effect.zipRight(signalAndWait(pid, "SIGINT", "10 seconds"), signalAndWait(pid, "SIGQUIT", "5 seconds"))

const signalAndWait = (pid: number, signal: NodeJS.Signals, patience: Duration.DurationInput): Effect.Effect<void> =>
  Effect.promise(async () => (await Processes.isAlive(pid)) && Processes.signal(pid, signal)).pipe(
    Effect.zipRight(
      Effect.repeat(
        Effect.promise(() => Processes.isAlive(pid)),
        { while: (alive) => alive, schedule: Schedule.upTo(poll, patience) }
      )
    ),
    Effect.asVoid
  )
