/**
 * Has a node report how far it is, through the port `NodeReports`.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { layerConfig as makeLayerConfig, type LayerConfig } from "../internal/layerConfig.js"
import { AppliedEvents } from "./AppliedEvents.js"
import { Applier } from "./Applier.js"
import type { ApplierStatus } from "./ApplierStatus.js"
import * as Reporting from "./internal/reporting.js"
import type { Labels } from "./NodeReport.js"
import { NodeReports } from "./NodeReports.js"
import { Source } from "./Source.js"

/**
 * Who the node is, and how often it reports.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The node's name in its fleet: 1 to 64 letters, digits, `_`, `-` and single dots. No other process has it; two
   * appliers of one database have names of their own.
   */
  readonly node: string
  /** What sort of node it is, for people. Default `node`. */
  readonly kind?: string | undefined
  /** What nodes are chosen by. Default: none. */
  readonly labels?: Labels | undefined
  /** The version of the program. Default: that of this package. */
  readonly version?: string | undefined
  /**
   * A report comes this often at least, from 1 second to 8 hours. After three times this without one the node is silent.
   * Default 10 seconds.
   */
  readonly every?: Duration.DurationInput | undefined
  /** A report comes this often at most, however much is applied. Default 1 second, which is the least. */
  readonly atMostEvery?: Duration.DurationInput | undefined
}

/** How long a report may take. The next one waits for it. */
const patience = Duration.seconds(5)

/** What the stop of a node waits for its last report. */
const farewell = Duration.seconds(1)

/** What is worth a report before the next is due. */
const isSame = (one: ApplierStatus, other: ApplierStatus): boolean =>
  one.state === other.state &&
  one.feed === other.feed &&
  one.position === other.position &&
  one.newest === other.newest &&
  one.setAside === other.setAside &&
  one.lastError?.message === other.lastError?.message

const clamp = (duration: Duration.DurationInput, min: Duration.DurationInput, max: Duration.DurationInput) =>
  Duration.clamp(duration, { minimum: min, maximum: max })

/**
 * Reports when something changes, at most once a second, and every ten seconds if nothing does. Registers when it starts,
 * and again when it is told that its registration counts no more.
 *
 * It watches the applier's status and nothing waits for it: reports that cannot be delivered are logged once and cost the
 * applier nothing. What changes while a report is on its way is in the next one. With reports to nowhere, or a source
 * `nop`, it does nothing.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<never, never, Applier | AppliedEvents | NodeReports | Source> =>
  Layer.scopedDiscard(
    Effect.gen(function* () {
      const applied = yield* AppliedEvents
      const applier = yield* Applier
      const reports = yield* NodeReports
      const source = yield* Source
      if (reports.inert || source.inert) return
      const every = clamp(options.every ?? "10 seconds", "1 second", "8 hours")
      const atMostEvery = clamp(options.atMostEvery ?? "1 second", "1 second", every)
      const reporter = Reporting.make(
        { applied, reports, source },
        {
          node: options.node,
          kind: options.kind ?? "node",
          labels: options.labels ?? {},
          version: options.version ?? Reporting.ownVersion,
          silentAfterMillis: Duration.toMillis(every) * 3
        }
      )
      // Also what comes and goes between two reports says how long the node has lagged.
      const watched = Stream.tap(applier.changes, (status) =>
        Effect.map(Clock.currentTimeMillis, (now) => reporter.watch(status, now))
      )
      const due = watched.pipe(
        Stream.changesWith(isSame),
        Stream.as(undefined),
        Stream.merge(Stream.repeatEffectWithSchedule(Effect.void, Schedule.spaced(every))),
        Stream.buffer({ capacity: 1, strategy: "sliding" })
      )
      const report = Effect.flatMap(applier.status, (status) =>
        reporter.report(status).pipe(Effect.disconnect, Effect.timeoutOption(patience), reporter.told)
      )
      // The first report can say where the node is, unless its database or the feed does not answer.
      const isKnown = ({ feed, state }: ApplierStatus) => feed !== undefined || state !== "idle"
      const known = Stream.runHead(Stream.filter(applier.changes, isKnown)).pipe(Effect.timeoutOption(atMostEvery))
      yield* Effect.addFinalizer(() =>
        Effect.flatMap(applier.status, (status) => reporter.report({ ...status, state: "stopping" })).pipe(
          Effect.interruptible,
          Effect.disconnect,
          Effect.timeoutOption(farewell),
          Effect.interruptible,
          Effect.catchAllCause(() => Effect.void)
        )
      )
      yield* Stream.runForEach(due, () => Effect.zipLeft(report, Effect.sleep(atMostEvery))).pipe(
        (reporting) => Effect.zipRight(known, reporting),
        Effect.interruptible,
        Effect.annotateLogs({ package: "controlpublish", module: "NodeReporting", node: options.node }),
        Effect.forkScoped
      )
    })
  )

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<Options, never, never, Applier | AppliedEvents | NodeReports | Source> =
  makeLayerConfig(layer)
