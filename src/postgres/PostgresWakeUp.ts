/**
 * Wakes idle pumps through LISTEN and NOTIFY on its own connection.
 *
 * Appends notify only while a pump waits: an armed pump holds an advisory lock exclusively, and an append that finds
 * the lock free holds it shared until its transaction ends. A pump therefore cannot arm itself while a row is about to
 * be committed that nobody would announce.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as RcRef from "effect/RcRef"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { OutboxError } from "../OutboxStore.js"
import type { WakeUp } from "../WakeUp.js"
import { listen, type Listener, type Pooled } from "./internal/listener.js"
import type { Names } from "./internal/names.js"

/** The heartbeat of an idle connection. */
const heartbeat = Duration.seconds(10)

/** How long a pump waits for the lock, in milliseconds, before it tries again to arm itself. */
const rearm = 2_000

/** How long a connection without listeners is kept. */
const idleTimeToLive = Duration.seconds(30)

/** The schedule of reconnects. */
const reconnect = Schedule.exponential("100 millis").pipe(
  Schedule.union(Schedule.spaced("10 seconds")),
  Schedule.jittered
)

const statements = ({ armLock }: Names) => ({
  // Waits for the appends that hold the lock. Appends that come meanwhile see the waiter and notify. The wait is short,
  // because notifications are not delivered during a statement.
  take: `SET lock_timeout = 50; SELECT pg_advisory_lock(${armLock}, 0)`,
  release: `SELECT pg_advisory_unlock(${armLock}, 0)`,
  // A live listener has sent a query within three heartbeats. Of another role's session the server shows only the name.
  // A stranded lock is ended only if its session does nothing else.
  holder: `SELECT pid, usename AS "user", application_name AS application, listening,
      CASE WHEN NOT listening AND state = 'idle' AND pg_has_role(usesysid, 'USAGE') THEN pg_terminate_backend(pid)
        ELSE false END AS ended
    FROM (
      SELECT pid, usename, usesysid, application_name, state, application_name LIKE 'controlpublish%' AND (
        state_change IS NULL OR (state_change > clock_timestamp() - interval '${3 * Duration.toSeconds(heartbeat)} s'
          AND query ~ '^(SET lock_timeout|SELECT 1$|SELECT pid, usename|SELECT EXISTS)')) AS listening
      FROM pg_locks JOIN pg_stat_activity USING (pid)
      WHERE locktype = 'advisory' AND classid = ${armLock >>> 0} AND objid = 0 AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND mode = 'ExclusiveLock' AND granted
    ) holder`
})

interface Holder {
  readonly pid: number
  readonly user: string
  readonly application: string
  /** Whether it is a live listener. */
  readonly listening: boolean
  readonly ended: boolean
}

const said = ({ application, ended, pid, user }: Holder): string => {
  const session = `ession ${pid} (user ${JSON.stringify(user)}, application ${JSON.stringify(application)})`
  return ended
    ? `Ended s${session}: it held the wake-up lock, but no pump listened on it`
    : `S${session} holds the wake-up lock, but no pump listens on it: appends notify needlessly; end it with SELECT pg_terminate_backend(${pid})`
}

const pooledWarning = (direct: boolean): string =>
  `${direct ? "DATABASE_DIRECT_URL" : "The database URL"} leads through a pooler (the server's process is not the one that the connection was told): appends cannot wake the pump, so it polls; set DATABASE_DIRECT_URL (option directUrl) to a URL of PostgreSQL itself`

/**
 * Makes the wake-up. `directUrl` is for the listening connection alone, if the `PgClient` leads through a pooler. A
 * listening connection through a pooler is closed with one warning and leaves no session state.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  names: Names,
  directUrl?: Redacted.Redacted
): Effect.Effect<WakeUp["Type"], never, PgClient.PgClient | Scope.Scope> =>
  Effect.gen(function* () {
    const client = yield* PgClient.PgClient
    const config = directUrl === undefined ? client.config : { ...client.config, url: directUrl }
    const text = statements(names)
    const latches = new Set<Effect.Latch>()
    const wakeAll = () => latches.forEach((latch) => latch.unsafeOpen())

    let pooled = false
    const named = new Set<number>()

    const connection = yield* RcRef.make<Listener, OutboxError | Pooled, Scope.Scope>({
      acquire: listen(config, names, wakeAll),
      idleTimeToLive
    })
    // An interrupted waiter does not interrupt the attempt.
    const connected: Effect.Effect<Listener, OutboxError | Pooled, Scope.Scope> = RcRef.get(connection).pipe(
      Effect.flatMap((listener) =>
        listener.isLost()
          ? Effect.zipRight(RcRef.invalidate(connection), RcRef.get(connection))
          : Effect.succeed(listener)
      ),
      Effect.tapErrorTag("Pooled", () =>
        Effect.suspend(() => {
          if (pooled) return Effect.void
          pooled = true
          return Effect.logWarning(pooledWarning(directUrl !== undefined))
        })
      ),
      Effect.disconnect
    )

    const take = (listener: Listener): Effect.Effect<boolean, never, Scope.Scope> =>
      Effect.acquireRelease(Effect.isSuccess(listener.script(text.take)), (taken) =>
        taken && !listener.isLost() ? listener.send(text.release) : Effect.void
      )

    /**
     * Whether the lock is held by a live listener, or by a session that cannot be ended. Other sessions are ended or
     * logged.
     */
    const isHeld = (listener: Listener) =>
      listener.query<Holder>(text.holder).pipe(
        Effect.tap(
          Effect.forEach((holder) => {
            if (holder.listening || named.has(holder.pid)) return Effect.void
            named.add(holder.pid)
            return Effect.logWarning(said(holder))
          })
        ),
        Effect.map((holders) => holders.some(({ ended }) => !ended)),
        Effect.orElseSucceed(() => false)
      )

    /** Keeps trying to arm, then sends a heartbeat now and then. */
    const keepArmed = (listener: Listener, armed: boolean, latch: Effect.Latch) =>
      Effect.gen(function* () {
        let waits = 0
        while (!armed) {
          yield* Effect.sleep(Math.min(10 * 2 ** waits++, rearm))
          if (yield* isHeld(listener)) continue
          armed = yield* take(listener)
          // Rows may have been committed without a notification before.
          if (armed) yield* latch.open
        }
        return yield* Effect.forever(Effect.delay(Effect.ignore(listener.query("SELECT 1")), heartbeat))
      })

    /** Reconnects after a delay, and makes the pump look and arm itself again. */
    const reconnectFor = (latch: Effect.Latch) =>
      connected.pipe(
        Effect.tapErrorTag("OutboxError", (error) =>
          Effect.logWarning("Appends cannot wake the pump; it polls meanwhile", error)
        ),
        Effect.retry({ schedule: reconnect, while: (error) => error._tag !== "Pooled" }),
        Effect.delay("100 millis"),
        Effect.zipRight(latch.open),
        // Only the poll is left to wait for.
        Effect.catchTag("Pooled", () => Effect.void)
      )

    return {
      arm: Effect.gen(function* () {
        if (pooled) return Effect.never
        const latch = yield* Effect.acquireRelease(
          Effect.sync(() => {
            const latch = Effect.unsafeMakeLatch(false)
            latches.add(latch)
            return latch
          }),
          (latch) => Effect.sync(() => latches.delete(latch))
        )
        const listener = yield* Effect.option(connected)
        const keep =
          listener._tag === "Some"
            ? Effect.raceFirst(keepArmed(listener.value, yield* take(listener.value), latch), listener.value.lost)
            : Effect.void
        yield* Effect.forkScoped(Effect.zipRight(keep, reconnectFor(latch)))
        return latch.await
      })
    }
  })
