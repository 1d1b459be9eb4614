/**
 * Reads the state of the service once for all clients.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { OutboxAdmin, type Overview, type Stranger } from "../OutboxAdmin.js"
import { Pump } from "../Pump.js"
import * as PumpMetrics from "../PumpMetrics.js"
import type { AttendedPump, PumpStatus } from "../PumpStatus.js"
import { Retention } from "../Retention.js"
import { Sink } from "../Sink.js"
import * as Strangers from "../internal/strangers.js"
import { version } from "../internal/version.js"
import type { Check, Health, Sample, Status } from "./AdminApi.js"
import { inTime } from "./internal/inTime.js"

/**
 * Reads the state of the service once a second for all clients.
 *
 * @since 0.1.0
 * @category models
 */
export class StatusBoard extends Context.Tag("controlpublish/admin/StatusBoard")<
  StatusBoard,
  {
    /** At most a second old. */
    readonly status: Effect.Effect<Status>
    /** One status per second, shared by all readers. A slow reader misses some. */
    readonly changes: Stream.Stream<Status>
    /** Backlog and rates of the last ten minutes, oldest first. Recorded even if nobody reads the status. */
    readonly history: Effect.Effect<{ readonly samples: ReadonlyArray<Sample> }>
    /** The pump as it is now, database and sink as in `status`. */
    readonly health: Effect.Effect<Health>
  }
>() {}

/** The limit of counts. */
const countLimit = 10_000

/** Between two readings. */
const period = Duration.seconds(1)

/** Rates are taken over this. */
const window = Duration.toMillis("10 seconds")

/** How long samples are kept. */
const remembered = Duration.toMillis("10 minutes")

/** How often a sample is taken while nobody looks. */
const unwatchedPeriod = Duration.seconds(5)

interface Totals {
  readonly at: number
  readonly drawn: number | undefined
  readonly published: number
}

/** The last successful reading, and why a newer one failed. */
interface Reading {
  readonly pumps: ReadonlyArray<AttendedPump> | undefined
  readonly overview: Overview | undefined
  readonly readAt: number | undefined
  /** Those that the reading before had found, too: others may just be between two statements. */
  readonly strangers: ReadonlyArray<Stranger>
  readonly databaseError: string | undefined
  readonly sinkError: string | undefined
  /** When the database, or the sink, failed first since it last answered. */
  readonly failingSince: { readonly database: number | undefined; readonly sink: number | undefined }
}

const nothingRead: Reading = {
  pumps: undefined,
  overview: undefined,
  readAt: undefined,
  strangers: [],
  databaseError: undefined,
  sinkError: undefined,
  failingSince: { database: undefined, sink: undefined }
}

/** Why the pump backs off, if this part is the cause. */
const outageOf = (part: "database" | "sink", { lastError, state }: PumpStatus): string | undefined =>
  state === "unavailable" && lastError?.of === part ? lastError.message : undefined

/** The pump may notice an outage before a reading does, or after. */
const earliest = (readings: number | undefined, outage: string | undefined, { since }: PumpStatus): number =>
  Math.min(readings ?? since, outage === undefined ? (readings ?? since) : since)

const databaseCheck = ({ databaseError, failingSince }: Reading, status: PumpStatus): Check => {
  if (status.state === "inert") return { ok: true, message: "not opened: the sink is nop" }
  const outage = outageOf("database", status)
  const reason = databaseError ?? outage
  return reason === undefined
    ? { ok: true, message: "answers" }
    : { ok: false, message: reason, since: earliest(failingSince.database, outage, status) }
}

const sinkCheck = ({ failingSince, sinkError }: Reading, status: PumpStatus): Check => {
  const { sink, state } = status
  if (state === "inert") return { ok: true, message: `${sink}: nothing is published` }
  const outage = outageOf("sink", status)
  const reason = outage ?? sinkError
  return reason === undefined
    ? { ok: true, message: `${sink}: no failure known` }
    : { ok: false, message: `${sink}: ${reason}`, since: earliest(failingSince.sink, outage, status) }
}

const words: Record<PumpStatus["state"], Check> = {
  inert: { ok: true, message: "inert: the sink is nop" },
  publishing: { ok: true, message: "publishing" },
  idle: { ok: true, message: "idle: nothing is publishable" },
  // Paused is what an operator asked for.
  paused: { ok: true, message: "paused by an operator" },
  unavailable: { ok: false, message: "backs off and retries by itself" },
  stopping: { ok: false, message: "stopping: finishes the events in flight" },
  stopped: { ok: false, message: "stopped" }
}

const stateCheck = ({ lastError, since, state }: PumpStatus): Check => {
  const { message, ok } = words[state]
  if (ok) return { ok, message }
  return state === "unavailable" && lastError !== undefined
    ? { ok, message: `${message}: ${lastError.message}`, since }
    : { ok, message, since }
}

/** A pump that finds its lanes held goes on without them, and looks idle. */
const pumpCheck = ({ strangers }: Reading, status: PumpStatus): Check => {
  const check = stateCheck(status)
  if (strangers.length === 0) return check
  const since = strangers.flatMap(({ since }) => (since === undefined ? [] : [since]))
  return {
    ok: check.ok && strangers.every(({ lanes }) => lanes.length === 0),
    message: [check.message, ...strangers.slice(0, 3).map(Strangers.describe)].join("; "),
    ...(since.length === 0 ? {} : { since: Math.min(...since) })
  }
}

const healthOf = (reading: Reading, status: PumpStatus, bounds: Health["bounds"]): Health => {
  const database = databaseCheck(reading, status)
  const sink = sinkCheck(reading, status)
  const pump = pumpCheck(reading, status)
  return { ready: database.ok && sink.ok && pump.ok, database, sink, pump, bounds }
}

/** The growth per second over the window. */
const rate = (totals: ReadonlyArray<Totals>, of: (totals: Totals) => number | undefined): number | undefined => {
  const known = totals.flatMap((totals) => {
    const value = of(totals)
    return value === undefined ? [] : [{ at: totals.at, value }]
  })
  const first = known[0]
  const last = known[known.length - 1]
  return first === undefined || last === undefined || last.at <= first.at
    ? undefined
    : Math.max(0, ((last.value - first.value) * 1000) / (last.at - first.at))
}

/**
 * Starts the readings and keeps the samples of the charts. They end with the scope.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<StatusBoard["Type"], never, OutboxAdmin | Pump | Retention | Sink | Scope.Scope> =
  Effect.gen(function* () {
    const admin = yield* OutboxAdmin
    const pump = yield* Pump
    const retention = yield* Retention
    const sink = yield* Sink
    const startedAt = yield* Clock.currentTimeMillis
    let reading = nothingRead
    let totals: ReadonlyArray<Totals> = []
    let samples: ReadonlyArray<Sample> = []

    const look = Effect.gen(function* () {
      const at = yield* Clock.currentTimeMillis
      const [database, pumps, feed] = yield* Effect.all(
        [
          Effect.either(inTime(admin.overview({ limit: countLimit }), "The database")),
          Effect.option(inTime(admin.pumps(), "The database")),
          Effect.either(inTime(sink.check ?? Effect.void, `The sink ${sink.name}`))
        ],
        { concurrency: "unbounded" }
      )
      const sinkError = Option.getOrUndefined(Either.getLeft(feed))
      const failingSince = {
        database: Either.isLeft(database) ? (reading.failingSince.database ?? at) : undefined,
        sink: sinkError === undefined ? undefined : (reading.failingSince.sink ?? at)
      }
      const known = new Set(reading.overview?.strangers?.map(({ pid }) => pid))
      const listed = Option.getOrElse(pumps, () => reading.pumps)
      reading = Either.isRight(database)
        ? {
            overview: database.right,
            readAt: at,
            strangers: database.right.strangers?.filter(({ pid }) => known.has(pid)) ?? [],
            pumps: listed,
            databaseError: undefined,
            sinkError,
            failingSince
          }
        : { ...reading, databaseError: database.left, sinkError, failingSince }
    })

    const read: Effect.Effect<Status> = Effect.gen(function* () {
      if (!sink.inert) yield* look
      const at = yield* Clock.currentTimeMillis
      const status = yield* pump.status
      const { databaseError, overview, readAt } = reading
      const isFresh = databaseError === undefined && overview !== undefined
      const drawn = isFresh ? overview.drawn : undefined
      totals = [...totals.filter((earlier) => at - earlier.at <= window), { at, drawn, published: status.published }]
      const rates = {
        appended: rate(totals, ({ drawn }) => drawn),
        published: rate(totals, ({ published }) => published)
      }
      const pending = isFresh ? overview.pending.value : undefined
      samples = [...samples.filter((earlier) => at - earlier.at <= remembered), { at, pending, ...rates }]
      const oldest = overview?.oldestPendingAt
      const health = healthOf(reading, status, yield* sink.bounds ?? Effect.succeed([]))
      if (isFresh) yield* PumpMetrics.setBacklog(overview, at)
      yield* PumpMetrics.setHealthy({ database: health.database.ok, sink: health.sink.ok, pump: health.pump.ok })
      return {
        at,
        version,
        startedAt,
        health,
        pump: status,
        pumps: reading.pumps,
        rates,
        outbox: overview,
        outboxAt: readAt,
        oldestPendingAgeMillis: oldest === undefined ? undefined : Math.max(0, at - oldest),
        retention: retention.description
      }
    })

    // A client that comes within a second of the last one gets its reading.
    const changes = yield* Stream.repeatEffectWithSchedule(read, Schedule.spaced(period)).pipe(
      Stream.share({ capacity: 1, strategy: "sliding", replay: 1, idleTimeToLive: period })
    )
    // The reading may be a second old; the pump's status is current.
    const status = Effect.zipWith(
      Effect.map(Stream.runHead(changes), Option.getOrThrow),
      pump.status,
      (read, pump) => ({
        ...read,
        pump,
        health: healthOf(reading, pump, read.health.bounds)
      })
    )
    const health = Effect.map(status, ({ health }) => health)
    const history = Effect.map(status, () => ({ samples }))
    if (!sink.inert) {
      yield* Effect.forkScoped(Effect.repeat(Effect.interruptible(status), Schedule.spaced(unwatchedPeriod)))
    }
    return { status, changes, health, history }
  })

/**
 * Provides the `StatusBoard`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<StatusBoard, never, OutboxAdmin | Pump | Retention | Sink> = Layer.scoped(
  StatusBoard,
  make
)
