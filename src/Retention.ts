/**
 * Removes published events that need not be kept from the outbox, a few at a time.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { OutboxAdmin, type By, type Retention as Kept } from "./OutboxAdmin.js"
import type { OutboxError } from "./OutboxStore.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "./internal/layerConfig.js"

/**
 * Removes published events that need not be kept.
 *
 * @since 0.1.0
 * @category models
 */
export class Retention extends Context.Tag("controlpublish/Retention")<
  Retention,
  {
    /** What is kept, for display: `7 days`, `the newest 100000`, or `off`. */
    readonly description: string
    /**
     * Removes now what need not be kept, records the actor in the audit log, and returns the number of removed events.
     * Fails with `RetentionOff` if everything is kept.
     */
    readonly runNow: (by: By) => Effect.Effect<number, RetentionOff | OutboxError>
  }
>() {}

/**
 * Everything is kept, so there is nothing to remove.
 *
 * @since 0.1.0
 * @category errors
 */
export class RetentionOff extends Schema.TaggedError<RetentionOff>("controlpublish/RetentionOff")("RetentionOff", {}) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return "The retention is off: every published event is kept"
  }
}

/**
 * Which published events are kept.
 *
 * @since 0.1.0
 * @category models
 */
export type Keep = Kept | "all"

/**
 * What to keep, and how to remove the rest.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  readonly keep: Keep
  /** The time between the end of a run and the next one. Default 1 minute. */
  readonly every?: Duration.DurationInput | undefined
  /** Rows that are removed at a time. Default 1,000. */
  readonly batchSize?: number | undefined
  /** The pause between two batches, which lets others work. Default 20 milliseconds. */
  readonly pause?: Duration.DurationInput | undefined
}

/**
 * The default: 7 days.
 *
 * @since 0.1.0
 * @category defaults
 */
export const defaultKeep: Keep = { _tag: "Age", age: Duration.days(7) }

/** From 1 s, doubled up to 1 minute. */
const backOff = Schedule.exponential("1 second").pipe(Schedule.union(Schedule.spaced("1 minute")), Schedule.jittered)

const describe = (keep: Keep): string => {
  if (keep === "all") return "off"
  return keep._tag === "Age" ? Duration.format(keep.age) : `the newest ${keep.count}`
}

const makeWith = (
  { batchSize = 1_000, every = "1 minute", keep, pause = "20 millis" }: Options,
  how: {
    /** Whether it runs by itself, or only on request. */
    readonly scheduled: boolean
  }
) =>
  Effect.gen(function* () {
    const admin = yield* OutboxAdmin
    const description = describe(keep)
    if (keep === "all") return Retention.of({ description, runNow: () => new RetentionOff() })

    const oneRun = yield* Effect.makeSemaphore(1)
    const batch = Effect.uninterruptible(admin.prune(keep, { limit: batchSize }))
    const runWith = (onRemoved: (removed: number) => void) =>
      Effect.gen(function* () {
        for (;;) {
          const { more, removed } = yield* batch
          onRemoved(removed)
          if (!more) return
          yield* Effect.sleep(pause)
        }
      }).pipe(oneRun.withPermits(1))

    const run = Effect.suspend(() => {
      let total = 0
      return Effect.map(
        runWith((removed) => (total += removed)),
        () => total
      )
    })

    // A run that ends early has removed something too: the audit log has its count in any case.
    const runNow = (by: By) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          let total = 0
          const exit = yield* Effect.exit(restore(runWith((removed) => (total += removed))))
          yield* admin.record("prune", by, { affected: total })
          yield* exit
          return total
        })
      )

    let failing = false
    const scheduled = run.pipe(
      Effect.tap((removed) => {
        failing = false
        return removed > 0 ? Effect.logInfo(`Removed ${removed} published events; kept: ${description}`) : Effect.void
      }),
      Effect.tapError((error) => {
        // Logged once an outage.
        const log = failing ? Effect.logDebug : Effect.logWarning
        failing = true
        return log("Published events could not be removed; this is tried again", error)
      }),
      Effect.retry(backOff)
    )
    if (how.scheduled) {
      yield* scheduled.pipe(
        Effect.repeat(Schedule.spaced(every)),
        Effect.annotateLogs({ package: "controlpublish", module: "Retention" }),
        Effect.interruptible,
        Effect.forkScoped
      )
    }
    return Retention.of({
      description,
      runNow
    })
  })

/**
 * Prunes while the scope is open. Closing the scope waits for the current batch and starts no other.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<Retention["Type"], never, OutboxAdmin | Scope.Scope> =>
  makeWith(options, { scheduled: true })

/**
 * Prunes as long as the layer's scope is open. Closing the scope waits for the current batch and starts no other.
 *
 * @example
 * import { Retention } from "controlpublish"
 * import { Duration } from "effect"
 *
 * export const RetentionLive = Retention.layer({ keep: { _tag: "Age", age: Duration.days(30) } })
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<Retention, never, OutboxAdmin> =>
  Layer.scoped(Retention, make(options))

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<Options, Retention, never, OutboxAdmin> = makeLayerConfig(layer)

/**
 * Prunes only when `runNow` runs.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerManual = (options: Options): Layer.Layer<Retention, never, OutboxAdmin> =>
  Layer.scoped(Retention, makeWith(options, { scheduled: false }))
