/**
 * Refresh mode, for nodes that share the producers' database: they have nothing to apply, and refresh what they cache.
 *
 * @since 0.1.0
 */
import type * as Chunk from "effect/Chunk"
import type * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Mailbox from "effect/Mailbox"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ControlEvent } from "../ControlEvent.js"
import type { ControlVersion } from "../ControlVersion.js"
import { layerConfig as makeLayerConfig } from "../internal/layerConfig.js"
import * as Worker from "../internal/worker.js"
import { Applier, defaultRetry } from "./Applier.js"
import type { AppliedEventsError, Cursor } from "./AppliedEvents.js"
import type { ApplyReport } from "./ApplierStatus.js"
import { HandlerFailed } from "./Handlers.js"
import { annotate } from "./internal/applierPass.js"
import * as Status from "./internal/applierStatus.js"
import { decode } from "./internal/applying.js"
import * as Report from "./internal/applyReport.js"
import { Halt, type ApplierError } from "./internal/halt.js"
import { makeInert } from "./internal/inert.js"
import { Source, type FeedEvent, type Position } from "./Source.js"

/**
 * Keeps the position of a node in refresh mode, outside the database that it shares with the producers.
 *
 * @since 0.1.0
 * @category models
 */
export class RefreshPosition extends Context.Tag("controlpublish/RefreshPosition")<
  RefreshPosition,
  {
    /** `undefined` if there is none yet. */
    readonly read: Effect.Effect<Cursor | undefined, AppliedEventsError>
    readonly write: (cursor: Cursor) => Effect.Effect<void, AppliedEventsError>
  }
>() {}

/**
 * Keeps the position in memory: the node refreshes once when it starts, and continues from there.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerPositionMemory: Layer.Layer<RefreshPosition> = Layer.sync(RefreshPosition, () => {
  let cursor: Cursor | undefined
  return {
    read: Effect.sync(() => cursor),
    write: (next) =>
      Effect.sync(() => {
        cursor = next
      })
  }
})

/**
 * What a refresh is for.
 *
 * @since 0.1.0
 * @category models
 */
export interface Changed {
  /** The events since the last refresh, in the order of the feed. */
  readonly events: ReadonlyArray<ControlEvent & { readonly control_version: ControlVersion }>
  /**
   * Whether `events` holds all of them. If not, refresh everything: the node has no position in this feed, the feed no
   * longer holds the next events, or an event is invalid.
   */
  readonly isComplete: boolean
}

/**
 * How a node refreshes, retries and stops.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Most events of one refresh. Default 4,096. */
  readonly batchSize?: number | undefined
  /** When a failed refresh is retried, see `Applier.Options`. */
  readonly retry?: Schedule.Schedule<unknown> | undefined
  /** How long a stop waits for a refresh in flight. Default 15 seconds. */
  readonly drainTimeout?: Duration.DurationInput | undefined
}

type RefreshWith<R> = (changed: Changed) => Effect.Effect<unknown, unknown, R>

const failed = (cause: unknown) =>
  new HandlerFailed({
    type: "refresh",
    message: `The refresh failed: ${cause instanceof Error && cause.message !== "" ? cause.message : String(cause)}`,
    cause
  })

interface Parts<R> {
  readonly source: Source["Type"]
  readonly position: RefreshPosition["Type"]
  readonly refresh: RefreshWith<R>
  readonly status: Status.Status
  readonly worker: Worker.Worker<R>
  readonly batchSize: number
}

/** Refreshes once, then keeps the position, then acknowledges: what is lost in between is refreshed again. */
const refreshFor = <R>(parts: Parts<R>, arrived: ReadonlyArray<FeedEvent>, cursor: Cursor, isComplete: boolean) => {
  const { position, refresh, source, status, worker } = parts
  const work = Effect.gen(function* () {
    const events = arrived.flatMap((event) => Option.toArray(Either.getRight(decode(event))))
    const changed = { events, isComplete: isComplete && events.length === arrived.length }
    yield* Effect.suspend(() => refresh(changed)).pipe(
      Effect.catchAllDefect((defect) => Effect.fail(failed(defect))),
      Effect.mapError((error) => (error instanceof HandlerFailed ? error : failed(error)))
    )
    yield* position.write(cursor)
    yield* worker.succeeded
    yield* status.settled(
      cursor.position,
      arrived.map(() => "applied" as const)
    )
    const last = arrived[arrived.length - 1]
    if (last !== undefined) yield* source.acknowledge(last.version)
  })
  return Effect.flatten(worker.inFlight(annotate(source)(work)))
}

/** Whether the feed holds everything after the position. */
const holds = (feed: { readonly identity: string; readonly newest: Position; readonly oldest: Position }, at: Cursor) =>
  at.feed === feed.identity && at.position <= feed.newest && at.position + 1 >= feed.oldest

/** Collects what is there: one event at least, and `batchSize` at most. */
const collect = <R>(
  { batchSize, source, status, worker }: Parts<R>,
  take: Effect.Effect<readonly [Chunk.Chunk<FeedEvent>, boolean], ApplierError>,
  rest: ReadonlyArray<FeedEvent>
) =>
  Effect.gen(function* () {
    const events = rest.slice()
    let newest: Position | undefined
    for (;;) {
      const last = events[events.length - 1]
      if (last !== undefined && newest === undefined) newest = (yield* source.look).newest
      if (last !== undefined && (events.length >= batchSize || last.version >= (newest ?? 0))) break
      const taken = yield* worker.unlessHalted(take)
      if (Option.isNone(taken)) return undefined
      events.push(...taken.value[0])
      // A drain reads up to the version that was newest, and no further.
      if (taken.value[1]) break
    }
    if (events.length > 0) yield* status.arrived(events[events.length - 1]!.version, worker.isFailing())
    return { batch: events.slice(0, batchSize), rest: events.slice(batchSize) }
  })

const pass = <R>(parts: Parts<R>, until: (newest: Position) => Position) =>
  Effect.gen(function* () {
    const { batchSize, position, source, status, worker } = parts
    yield* worker.settled
    if (worker.isHalted()) return Report.nothing
    const feed = yield* source.look
    const known = yield* position.read
    const isHeld = known !== undefined && holds(feed, known)
    // The position is read before the refresh: what is committed later comes after it.
    let cursor: Cursor = isHeld ? known : { feed: feed.identity, position: feed.newest }
    if (!isHeld) yield* refreshFor(parts, [], cursor, false)
    yield* status.update(() => ({ position: cursor.position, newest: feed.newest }))
    const last = until(feed.newest)
    let applied = 0
    if (cursor.position >= last) return Report.nothing
    if (cursor.position === feed.newest) yield* status.enter("idle")
    const arriving = yield* source.events(cursor.position, feed.identity).pipe(
      Stream.takeUntil(({ version }) => version >= last),
      Mailbox.fromStream({ capacity: batchSize })
    )
    let rest: ReadonlyArray<FeedEvent> = []
    while (cursor.position < last && !worker.isHalted()) {
      const collected = yield* collect(parts, arriving.takeAll, rest)
      const newest = collected?.batch[collected.batch.length - 1]
      if (collected === undefined || newest === undefined) break
      cursor = { feed: feed.identity, position: newest.version }
      yield* refreshFor(parts, collected.batch, cursor, true)
      applied += collected.batch.length
      rest = collected.rest
    }
    return { ...Report.nothing, applied } satisfies ApplyReport
  }).pipe(Effect.scoped, parts.worker.onePass)

const makeWith = <R>(
  refresh: RefreshWith<R>,
  options: Options,
  scheduled: boolean
): Effect.Effect<Applier["Type"], never, Source | RefreshPosition | R | Scope.Scope> =>
  Effect.gen(function* () {
    const source = yield* Source
    if (source.inert) return yield* makeInert(source)
    const position = yield* RefreshPosition
    const { batchSize = 4_096, drainTimeout = "15 seconds", retry = defaultRetry } = options
    const status = yield* Status.make(source)
    const worker = yield* Worker.make<R>({
      become: status.become,
      failed: status.failed,
      rest: status.enter("idle"),
      drainTimeout,
      retry
    })
    const parts = { source, position, refresh, status, worker, batchSize: Math.max(Math.trunc(batchSize), 1) }
    if (scheduled) yield* worker.start(worker.endless(pass(parts, () => Infinity))).pipe(annotate(source))
    return {
      drain: worker.drain(Effect.interruptible(pass(parts, (newest) => newest)), Report.nothing).pipe(
        Effect.mapError((error) => (error instanceof Halt ? error.error : error)),
        annotate(source)
      ),
      pause: worker.pause,
      resume: worker.resume,
      status: status.get,
      changes: status.changes
    }
  })

/**
 * Provides an applier that runs one refresh for all events that have arrived. It keeps the position and acknowledges
 * the events only after the refresh succeeded; a refresh that fails is retried. A node without a position in the feed
 * refreshes everything once and continues from there, so it never needs a snapshot.
 *
 * @example
 * import { Refresh } from "controlpublish/fleet"
 * import { FileRefreshPosition, FileSource } from "controlpublish/file"
 * import { Effect, Layer } from "effect"
 *
 * const cache = new Map<string, unknown>()
 *
 * export const Node = Refresh.layer(() => Effect.sync(() => cache.clear())).pipe(
 *   Layer.provide([FileSource.layer({ directory: "feed" }), FileRefreshPosition.layer({ file: "node/position.json" })])
 * )
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = <R>(
  refresh: RefreshWith<R>,
  options: Options = {}
): Layer.Layer<Applier, never, Source | RefreshPosition | R> => Layer.scoped(Applier, makeWith(refresh, options, true))

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = <R>(
  refresh: RefreshWith<R>,
  config: Config.Config.Wrap<Options>
): Layer.Layer<Applier, ConfigError, Source | RefreshPosition | R> =>
  makeLayerConfig((options: Options) => layer(refresh, options))(config)

/**
 * Provides an applier that refreshes only when `drain` runs. For tests, and for programs that refresh on demand.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerManual = <R>(
  refresh: RefreshWith<R>,
  options: Options = {}
): Layer.Layer<Applier, never, Source | RefreshPosition | R> => Layer.scoped(Applier, makeWith(refresh, options, false))
