import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Mailbox from "effect/Mailbox"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Worker } from "../../internal/worker.js"
import type { Cursor } from "../AppliedEvents.js"
import type { ApplyReport } from "../ApplierStatus.js"
import { beyond, SourceError, type FeedEvent, type Position, type Source } from "../Source.js"
import * as Applying from "./applying.js"
import * as Report from "./applyReport.js"
import type { ApplierError, Halt } from "./halt.js"

/** What an applier is made of. */
export interface Parts<R> extends Applying.Parts<R> {
  readonly worker: Worker<R>
  /** Events in one transaction at most. */
  readonly largest: number
}

/** Annotates log lines with their origin. */
export const annotate = (source: Source["Type"]) =>
  Effect.annotateLogs({ package: "controlpublish", module: "Applier", source: source.name })

const replaced = (source: string, { feed, position }: Cursor, found: string) =>
  new SourceError({
    source,
    reason: "replaced",
    message: `This node has applied up to control version ${position} of the feed ${feed}, and this feed ${found === "" ? "has no identity: a copy needs the identity of its original. Copy it too, or start" : `is ${found}: its versions begin again. Start`} from a snapshot, or from 0 if the feed holds everything`
  })

/**
 * How many events the next transaction takes: twice as many if that stays below 200 ms, half as many if it did not. So
 * slow handlers get a transaction for each event and hold their locks no longer.
 */
const sizeAfter = (took: number, size: number, largest: number): number => {
  if (took > 200) return Math.max(size >> 1, 1)
  return took <= 100 ? Math.min(size * 2, largest) : size
}

/** Where a pass begins and ends. */
const lookAt = <R>({ applied, source, status, worker }: Parts<R>, until: (newest: Position) => Position) =>
  Effect.gen(function* () {
    const cursor = yield* applied.cursor
    // Known also while the feed is unreachable, or is another one.
    yield* status.update(() => ({ feed: cursor.feed, position: cursor.position }))
    const feed = yield* source.look
    if (cursor.feed !== "" && cursor.feed !== feed.identity) {
      return yield* replaced(source.name, cursor, feed.identity)
    }
    if (feed.newest < cursor.position) return yield* beyond(source.name, cursor.position, feed.newest)
    // Once: from now on, a feed that takes the place of this one is noticed.
    if (cursor.feed === "" && feed.identity !== "" && cursor.position > 0) yield* applied.adopt(feed.identity)
    yield* status.update(() => ({ feed: feed.identity, newest: feed.newest }))
    if (cursor.position === feed.newest) yield* status.enter("idle")
    else yield* status.arrived(feed.newest, worker.isFailing())
    return { position: cursor.position, last: until(feed.newest), identity: feed.identity }
  })

/** Applies the events that arrive. A transaction takes those that have arrived, as long as it is quick. */
const applyArriving = <R>(
  parts: Parts<R>,
  arriving: Mailbox.ReadonlyMailbox<FeedEvent, SourceError>,
  feed: string
): Effect.Effect<ApplyReport, Halt | ApplierError> =>
  Effect.gen(function* () {
    const { largest, source, worker } = parts
    let report = Report.nothing
    let size = 1
    for (let ended = false; !ended && !worker.isHalted();) {
      const taken = yield* worker.unlessHalted(arriving.takeAll)
      if (Option.isNone(taken)) break
      const [arrived, isLast] = taken.value
      let rest = Chunk.toReadonlyArray(arrived)
      if (rest.length > 0) yield* parts.status.arrived(rest[rest.length - 1]!.version, worker.isFailing())
      while (rest.length > 0 && !worker.isHalted()) {
        const from = yield* Clock.currentTimeMillis
        const work = Applying.applySome(parts, rest.slice(0, size), feed).pipe(annotate(source))
        const outcomes = yield* Effect.flatten(worker.inFlight(work))
        report = Report.add(report, outcomes)
        rest = rest.slice(outcomes.length)
        size = sizeAfter((yield* Clock.currentTimeMillis) - from, size, largest)
      }
      ended = isLast
    }
    return report
  })

/** Applies the events after the cursor, up to a version or endlessly. */
export const pass = <R>(
  parts: Parts<R>,
  until: (newest: Position) => Position
): Effect.Effect<ApplyReport, Halt | ApplierError> =>
  Effect.gen(function* () {
    // Events of an interrupted pass: their cursor is not there yet.
    yield* parts.worker.settled
    if (parts.worker.isHalted()) return Report.nothing
    const { identity, last, position } = yield* lookAt(parts, until)
    if (position >= last) return Report.nothing
    // Read on while events are applied, so that those that arrive meanwhile can share a transaction.
    const arriving = yield* parts.source.events(position, identity).pipe(
      Stream.takeUntil(({ version }) => version >= last),
      Mailbox.fromStream({ capacity: parts.largest })
    )
    return yield* applyArriving(parts, arriving, identity)
  }).pipe(Effect.scoped, parts.worker.onePass)

/** Applies everything that is in the feed now. */
export const drain = <R>(parts: Parts<R>): Effect.Effect<ApplyReport, Halt | ApplierError> =>
  pass(parts, (newest) => newest).pipe(
    // The pass reads in its own fiber, which an uninterruptible caller could not end.
    Effect.interruptible
  )
