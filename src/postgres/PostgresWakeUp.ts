/**
 * Wakes idle pumps through LISTEN and NOTIFY, on a connection of its own.
 *
 * Appends notify only while somebody waits: a pump that has armed itself holds an advisory lock exclusively, and an
 * append that finds it free holds it shared until its transaction ends. So a pump cannot arm itself while a row is on
 * its way that nobody would announce.
 *
 * @since 1.0.0
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

/** How often an idle connection is asked whether it still is one. */
const heartbeat = Duration.seconds(10)

/** How long a pump waits at most, in milliseconds, before it tries again to arm itself. */
const rearm = 2_000

/** How long a connection is kept that nobody listens on. */
const idleTimeToLive = Duration.seconds(30)

/** When to connect again. */
const reconnect = Schedule.exponential("100 millis").pipe(
  Schedule.union(Schedule.spaced("10 seconds")),
  Schedule.jittered
)

const statements = ({ armLock }: Names) => ({
  // Waits for the appends that hold the lock: those that come meanwhile find it wanted, and notify. Not for long,
  // because notifications are not delivered during a statement.
  take: `SET lock_timeout = 50; SELECT pg_advisory_lock(${armLock}, 0)`,
  release: `SELECT pg_advisory_unlock(${armLock}, 0)`,
  // A listener that lives has asked something of its own within three heartbeats. Where its session is another role's,
  // the server shows its name alone. A stranded lock is ended only where the session does nothing else.
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
  /** Whether it is a listener that lives. */
  readonly listening: boolean
  readonly ended: boolean
}

const said = ({ application, ended, pid, user }: Holder): string => {
  const session = `ession ${pid} (user ${JSON.stringify(user)}, application ${JSON.stringify(application)})`
  return ended
    ? `Ended s${session}: it held the lock of the wake-up, and no pump listened on it`
    : `S${session} holds the lock of the wake-up, and no pump listens on it: appends notify needlessly; end it with SELECT pg_terminate_backend(${pid})`
}

const pooledWarning = (direct: boolean): string =>
  `${direct ? "DATABASE_DIRECT_URL" : "The database URL"} leads through a pooler (the server's process is not the one that the connection was told): appends cannot wake the pump, and it polls; set DATABASE_DIRECT_URL (option directUrl) to a URL that leads to PostgreSQL itself`

/**
 * Makes the wake-up. `directUrl` is for the listening connection alone, where the `PgClient` leads through a pooler. A
 * listening connection that leads through a pooler is given up with one warning, and no session state is left on it.
 *
 * @since 1.0.0
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
    // Whoever does not wait any more leaves the attempt alone.
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

    /** Whether a listener holds the lock, or a session that cannot be ended. Those without a listener are ended or named. */
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

    /** Goes on trying to arm, and then asks now and then whether the connection still is one. */
    const keepArmed = (listener: Listener, armed: boolean, latch: Effect.Latch) =>
      Effect.gen(function* () {
        let waits = 0
        while (!armed) {
          yield* Effect.sleep(Math.min(10 * 2 ** waits++, rearm))
          if (yield* isHeld(listener)) continue
          armed = yield* take(listener)
          // Rows may have been committed unannounced before.
          if (armed) yield* latch.open
        }
        return yield* Effect.forever(Effect.delay(Effect.ignore(listener.query("SELECT 1")), heartbeat))
      })

    /** Connects again, not at once, and has the pump look and arm itself anew. */
    const reconnectFor = (latch: Effect.Latch) =>
      connected.pipe(
        Effect.tapErrorTag("OutboxError", (error) =>
          Effect.logWarning("Appends cannot wake the pump; it polls meanwhile", error)
        ),
        Effect.retry({ schedule: reconnect, while: (error) => error._tag !== "Pooled" }),
        Effect.delay("100 millis"),
        Effect.zipRight(latch.open),
        // Nothing to wait for but the poll.
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
