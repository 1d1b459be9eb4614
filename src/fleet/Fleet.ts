/**
 * Answers whether a change has arrived: which nodes of a fleet have applied an event, and what holds the others.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { EventNotFound, OutboxAdmin } from "../OutboxAdmin.js"
import type { OutboxError } from "../OutboxStore.js"
import {
  Laggard,
  Why,
  type FleetSummary,
  type NodePage,
  type Rollout,
  type Selection,
  type What
} from "./FleetViews.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "../internal/layerConfig.js"
import * as Explaining from "./internal/explaining.js"
import { NodeRegistry, type NodeQuery } from "./NodeRegistry.js"
import type { ReportsUnavailable } from "./NodeReports.js"
import { Source } from "./Source.js"

/**
 * Which nodes have to have applied it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Target extends Selection {
  /** The part of the chosen nodes that suffices, above 0 and at most 1. Default 1: all of them. */
  readonly fraction?: number | undefined
  /**
   * The feed that a control version belongs to. Default: the one that the `Source` reads now; without a source the chosen
   * nodes have to agree on one.
   */
  readonly feed?: string | undefined
}

/**
 * Not enough nodes have applied it in time. The message says how many, which, and why.
 *
 * @since 0.1.0
 * @category errors
 */
export class NotApplied extends Schema.TaggedError<NotApplied>("controlpublish/NotApplied")("NotApplied", {
  message: Schema.String,
  chosen: Schema.Number,
  applied: Schema.Number,
  needed: Schema.Number,
  others: Schema.Array(Schema.Struct({ why: Why, nodes: Schema.Number })),
  /** The first of the others by name, at most 20. */
  laggards: Schema.Array(Laggard)
}) {}

/**
 * The target is invalid.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidTarget extends Schema.TaggedError<InvalidTarget>("controlpublish/InvalidTarget")("InvalidTarget", {
  message: Schema.String
}) {}

/**
 * Answers for a fleet.
 *
 * "Applied" is what a node says of itself: it has committed the event, and everything before it in its feed, in its own
 * database. docs/arrived.md says what an answer is worth.
 *
 * @since 0.1.0
 * @category models
 */
export class Fleet extends Context.Tag("controlpublish/Fleet")<
  Fleet,
  {
    /** The fleet, or a part of it, as a whole. */
    readonly summary: (selection?: Selection) => Effect.Effect<FleetSummary, ReportsUnavailable>
    /** A page of nodes, by name. */
    readonly nodes: (query: NodeQuery) => Effect.Effect<NodePage, ReportsUnavailable>
    /** How far it has come now, with at most `limit` (default 20) laggards after a name. */
    readonly rollout: (
      what: What,
      target?: Target & { readonly limit?: number | undefined; readonly after?: string | undefined }
    ) => Effect.Effect<Rollout, InvalidTarget | EventNotFound | OutboxError | ReportsUnavailable>
    /**
     * Returns when the chosen nodes have applied it. Fails with `NotApplied` after the timeout (default 30 seconds), and
     * at once if the target is invalid or the outbox has no such event. A choice of no node is never applied.
     */
    readonly awaitApplied: (
      what: What,
      options?: Target & { readonly timeout?: Duration.DurationInput | undefined }
    ) => Effect.Effect<Rollout, NotApplied | InvalidTarget | EventNotFound>
    /** Forgets a node that is gone for good. Tells whether it was known. */
    readonly forget: (node: string) => Effect.Effect<boolean, ReportsUnavailable>
  }
>() {}

/**
 * How often a fleet is looked at.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The time between two looks of `awaitApplied`. Default 250 milliseconds. */
  readonly poll?: Duration.DurationInput | undefined
}

/** For how long the identity of the feed is taken for the same. */
const feedTtl = Duration.seconds(2)

const laggardsShown = 20

const checkTarget = (what: What, { fraction = 1 }: Target): Effect.Effect<void, InvalidTarget> => {
  if (typeof what === "number" && !(Number.isSafeInteger(what) && what > 0)) {
    return new InvalidTarget({ message: `The control version ${what} is invalid: it is an integer above 0` })
  }
  return fraction > 0 && fraction <= 1
    ? Effect.void
    : new InvalidTarget({ message: `The fraction ${fraction} is invalid: it is above 0 and at most 1` })
}

/** Where the event is: its version, or what it waits for. */
interface Found {
  readonly version: number | undefined
  readonly event?: NonNullable<Rollout["event"]>
}

/**
 * Makes the service from a registry, the outbox and a source.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options = {}): Effect.Effect<Fleet["Type"], never, NodeRegistry | OutboxAdmin | Source> =>
  Effect.gen(function* () {
    const registry = yield* NodeRegistry
    const outbox = yield* OutboxAdmin
    const source = yield* Source
    const { poll = "250 millis" } = options

    // What a feed that does not answer is called, nobody knows: the look fails, and is not taken for an answer.
    const look = yield* Effect.cachedWithTTL(
      Effect.map(source.look, ({ identity }) => (identity === "" ? undefined : identity)),
      feedTtl
    )
    const feedNow = source.inert ? Effect.succeed(undefined) : look

    const find = (what: What): Effect.Effect<Found, EventNotFound | OutboxError> =>
      typeof what === "number"
        ? Effect.succeed({ version: what })
        : Effect.flatMap(
            outbox.event(what),
            Option.match({
              onNone: () => Effect.fail(new EventNotFound({ eventId: what })),
              onSome: ({ controlVersion, eventId, lastError, state }) =>
                Effect.succeed({
                  version: controlVersion,
                  event: { eventId, state, ...(lastError === undefined ? {} : { error: lastError }) }
                })
            })
          )

    const rolloutOf = (
      { event, version }: Found,
      target: Target,
      page: { readonly limit: number; readonly after?: string | undefined }
    ) =>
      Effect.gen(function* () {
        const about = event === undefined ? {} : { event }
        if (version === undefined) {
          return { at: yield* Clock.currentTimeMillis, ...about, needed: 1, done: false }
        }
        const feed = target.feed ?? (yield* feedNow)
        const progress = yield* registry.progress({ version, feed, selection: target, ...page })
        // What rounding adds to a fraction is no node.
        const needed = Math.max(1, Math.ceil((target.fraction ?? 1) * progress.chosen - 1e-9))
        return { at: progress.at, ...about, needed, done: progress.applied >= needed, progress }
      })

    return {
      summary: registry.summary,
      nodes: registry.nodes,
      forget: registry.forget,

      rollout: (what, target = {}) =>
        Effect.gen(function* () {
          yield* checkTarget(what, target)
          const { after, limit = laggardsShown } = target
          return yield* rolloutOf(yield* find(what), target, { after, limit })
        }).pipe(Effect.catchTag("SourceError", Explaining.toUnavailable)),

      awaitApplied: (what, options = {}) =>
        Effect.gen(function* () {
          yield* checkTarget(what, options)
          const timeout = Duration.decode(options.timeout ?? "30 seconds")
          let found: Found | undefined
          let last: Rollout | undefined
          let trouble: string | undefined
          const lookOnce = Effect.gen(function* () {
            found = found?.version === undefined ? yield* find(what) : found
            last = yield* rolloutOf(found, options, { limit: laggardsShown })
            trouble = undefined
            return last
          }).pipe(
            // What cannot be asked now can be asked later: there is time.
            Effect.catchTags({
              SourceError: ({ message }) => Effect.sync(() => void (trouble = message)),
              OutboxError: ({ message }) => Effect.sync(() => void (trouble = message)),
              ReportsUnavailable: ({ message }) => Effect.sync(() => void (trouble = message))
            })
          )
          const applied: Effect.Effect<Rollout, EventNotFound> = Effect.flatMap(lookOnce, (rollout) =>
            rollout?.done === true ? Effect.succeed(rollout) : Effect.zipRight(Effect.sleep(poll), applied)
          )
          return yield* Effect.timeoutFail(Effect.disconnect(applied), {
            duration: timeout,
            onTimeout: () =>
              new NotApplied({
                message: Explaining.notApplied(what, last, trouble, timeout),
                chosen: last?.progress?.chosen ?? 0,
                applied: last?.progress?.applied ?? 0,
                needed: last?.needed ?? 1,
                others: last?.progress?.others ?? [],
                laggards: last?.progress?.laggards ?? []
              })
          })
        })
    }
  })

/**
 * Answers from the reports in a `NodeRegistry`. The `Source` says which feed versions belong to: it is the one that the
 * nodes read, and nothing is read from it. With the source `nop` the nodes have to agree on a feed.
 *
 * @example
 * import { Fleet } from "controlpublish/fleet"
 * import { Effect } from "effect"
 *
 * // An admin handler that answers when the canaries have it.
 * export const activated = (eventId: string) =>
 *   Effect.flatMap(Fleet.Fleet, (fleet) =>
 *     fleet.awaitApplied(eventId, { labels: { ring: "canary" }, timeout: "10 seconds" })
 *   )
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<Fleet, never, NodeRegistry | OutboxAdmin | Source> =>
  Layer.effect(Fleet, make(options))

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<Options, Fleet, never, NodeRegistry | OutboxAdmin | Source> =
  makeLayerConfig(layer)
