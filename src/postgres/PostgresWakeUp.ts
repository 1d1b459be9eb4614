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
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { OutboxError } from "../OutboxStore.js"
import type { WakeUp } from "../WakeUp.js"
import { listen, type Listener } from "./internal/listener.js"
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
  heldByPump: `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = ${armLock >>> 0} AND objid = 0
    AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND mode = 'ExclusiveLock' AND granted) AS held`
})

/**
 * @since 1.0.0
 * @category constructors
 */
export const make = (names: Names): Effect.Effect<WakeUp["Type"], never, PgClient.PgClient | Scope.Scope> =>
  Effect.gen(function* () {
    const { config } = yield* PgClient.PgClient
    const text = statements(names)
    const latches = new Set<Effect.Latch>()
    const wakeAll = () => latches.forEach((latch) => latch.unsafeOpen())

    const connection = yield* RcRef.make<Listener, OutboxError, Scope.Scope>({
      acquire: listen(config, names, wakeAll),
      idleTimeToLive
    })
    // Whoever does not wait any more leaves the attempt alone.
    const connected: Effect.Effect<Listener, OutboxError, Scope.Scope> = RcRef.get(connection).pipe(
      Effect.flatMap((listener) =>
        listener.isLost()
          ? Effect.zipRight(RcRef.invalidate(connection), RcRef.get(connection))
          : Effect.succeed(listener)
      ),
      Effect.disconnect
    )

    const take = (listener: Listener): Effect.Effect<boolean, never, Scope.Scope> =>
      Effect.acquireRelease(Effect.isSuccess(listener.script(text.take)), (taken) =>
        taken && !listener.isLost() ? listener.send(text.release) : Effect.void
      )

    const heldByPump = (listener: Listener) =>
      listener.query<{ readonly held: boolean }>(text.heldByPump).pipe(
        Effect.map(([row]) => row?.held === true),
        Effect.orElseSucceed(() => false)
      )

    /** Goes on trying to arm, and then asks now and then whether the connection still is one. */
    const keepArmed = (listener: Listener, armed: boolean, latch: Effect.Latch) =>
      Effect.gen(function* () {
        let waits = 0
        while (!armed) {
          yield* Effect.sleep(Math.min(10 * 2 ** waits++, rearm))
          if (yield* heldByPump(listener)) continue
          armed = yield* take(listener)
          // Rows may have been committed unannounced before.
          if (armed) yield* latch.open
        }
        return yield* Effect.forever(Effect.delay(Effect.ignore(listener.query("SELECT 1")), heartbeat))
      })

    /** Connects again, not at once, and has the pump look and arm itself anew. */
    const reconnectFor = (latch: Effect.Latch) =>
      connected.pipe(
        Effect.tapError((error) => Effect.logWarning("Appends cannot wake the pump; it polls meanwhile", error)),
        Effect.retry(reconnect),
        Effect.delay("100 millis"),
        Effect.zipRight(latch.open)
      )

    return {
      arm: Effect.gen(function* () {
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
