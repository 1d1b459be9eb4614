/**
 * Has a pump say how it is, in the database, so that everybody who looks at the outbox sees all of its pumps.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { randomUUID } from "node:crypto"
import { hostname } from "node:os"
import { version } from "../internal/version.js"
import { OutboxAdmin } from "../OutboxAdmin.js"
import { Pump } from "../Pump.js"
import type { PumpReport, PumpStatus } from "../PumpStatus.js"
import { Sink } from "../Sink.js"
import { inTime, patience } from "./internal/inTime.js"

/** A report comes this often at least. */
const beat = Duration.seconds(10)

/** A report comes this often at most, however often the state changes. */
const pause = Duration.seconds(1)

/** Characters of an error that are reported. */
const longest = 500

interface Trouble {
  readonly of: "sink" | "database" | "pump"
  readonly message: string
  readonly since: number
}

const outageOf = ({ lastError, since, state }: PumpStatus): Trouble | undefined =>
  state === "unavailable" && lastError !== undefined
    ? { of: lastError.of, message: lastError.message, since }
    : undefined

/**
 * Reports every ten seconds and at changes of the state, and takes the report back when the scope closes. A process that
 * is killed is listed as lost. What cannot be reported is said once, and never keeps the pump from its work.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<never, never, OutboxAdmin | Pump | Sink> = Layer.scopedDiscard(
  Effect.gen(function* () {
    const admin = yield* OutboxAdmin
    const pump = yield* Pump
    const sink = yield* Sink
    if (sink.inert) return
    const known = { id: randomUUID(), host: hostname(), pid: process.pid, version, sink: sink.name }
    const startedAt = yield* Clock.currentTimeMillis
    let before: { readonly at: number; readonly published: number } | undefined
    let rate: number | undefined
    let broken: Trouble | undefined
    let said = false

    const checked = Effect.gen(function* () {
      const at = yield* Clock.currentTimeMillis
      const check = yield* Effect.either(inTime(sink.check ?? Effect.void, "The sink"))
      broken = check._tag === "Right" ? undefined : { of: "sink", message: check.left, since: broken?.since ?? at }
    })

    const report = Effect.gen(function* () {
      yield* checked
      const status = yield* pump.status
      const at = yield* Clock.currentTimeMillis
      if (before === undefined || at - before.at >= Duration.toMillis(beat)) {
        if (before !== undefined) rate = ((status.published - before.published) * 1_000) / (at - before.at)
        before = { at, published: status.published }
      }
      const trouble = outageOf(status) ?? broken
      const bounds = yield* sink.bounds ?? Effect.succeed([])
      const said: PumpReport = {
        ...known,
        startedAt,
        state: status.state,
        since: status.since,
        published: status.published,
        ...(rate === undefined ? {} : { rate }),
        ...(status.lastPublishedAt === undefined ? {} : { lastPublishedAt: status.lastPublishedAt }),
        ...(bounds.length === 0 ? {} : { bounds }),
        ...(trouble === undefined
          ? {}
          : { trouble: { ...trouble, message: trouble.message.slice(0, longest).toWellFormed() } })
      }
      yield* admin.attend(said)
    }).pipe(
      Effect.disconnect,
      Effect.timeout(Duration.times(patience, 3)),
      Effect.matchEffect({
        onFailure: (error) => {
          const log = said ? Effect.logDebug : Effect.logWarning
          said = true
          return log("The status does not list this pump", error)
        },
        onSuccess: () => Effect.sync(() => void (said = false))
      })
    )

    // A database that is gone takes no part in a stop.
    yield* Effect.addFinalizer(() =>
      admin.leave(known.id).pipe(Effect.disconnect, Effect.timeout(pause), Effect.ignore)
    )
    const changes = pump.changes.pipe(
      Stream.changesWith((one, other) => one.state === other.state),
      Stream.as(undefined),
      Stream.merge(Stream.repeatEffectWithSchedule(Effect.void, Schedule.spaced(beat))),
      Stream.buffer({ capacity: 1, strategy: "sliding" })
    )
    yield* Effect.forkScoped(
      Effect.interruptible(Stream.runForEach(changes, () => Effect.zipLeft(report, Effect.sleep(pause))))
    )
  })
)
