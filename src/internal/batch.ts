import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FiberRef from "effect/FiberRef"
import * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import * as ControlEvent from "../ControlEvent.js"
import * as ControlVersion from "../ControlVersion.js"
import type { OrderingKey } from "../OrderingKey.js"
import { maxErrorLength, OutboxError, type AfterParked, type ClaimedRow, type Settlement } from "../OutboxStore.js"
import type { PumpConfig } from "../PumpConfig.js"
import * as PumpMetrics from "../PumpMetrics.js"
import * as Sink from "../Sink.js"
import * as EventRetry from "./eventRetry.js"
import { withPublishSpan } from "./publishSpan.js"
import { truncate } from "./text.js"

type SinkService = Sink.Sink["Type"]
type Config = PumpConfig["Type"]

interface OutboundRow {
  readonly row: ClaimedRow
  readonly outbound: Sink.OutboundEvent
}

interface InvalidRow {
  readonly row: ClaimedRow
  readonly reason: string
}

const decodeRow = (row: ClaimedRow): Either.Either<Sink.OutboundEvent, string> => {
  if (row.refused !== undefined) return Either.left(`Invalid control event: ${row.refused}`)
  const decoded = Either.flatMap(ControlEvent.parse(row.payload), ControlEvent.validateUnpublished)
  if (Either.isLeft(decoded)) return Either.left(decoded.left.message)
  const event = decoded.right
  if (event.event_id !== row.eventId) {
    return Either.left("Invalid control event: event_id in the payload differs from the row's")
  }
  return Either.right({
    eventId: event.event_id,
    orderingKey: row.orderingKey as OrderingKey,
    event,
    payload: row.payload,
    traceparent: row.traceparent,
    createdAt: row.createdAt,
    attemptCount: row.attemptCount
  })
}

/** Splits rows into those that can be published and those that never can. */
const decodeRows = (
  rows: ReadonlyArray<ClaimedRow>,
  afterParked: AfterParked
): { readonly valid: ReadonlyArray<OutboundRow>; readonly invalid: ReadonlyArray<InvalidRow> } => {
  const valid: Array<OutboundRow> = []
  const invalid: Array<InvalidRow> = []
  const waiting = new Set<string>()
  for (const row of rows) {
    if (waiting.has(row.orderingKey)) continue
    const decoded = decodeRow(row)
    if (Either.isRight(decoded)) valid.push({ row, outbound: decoded.right })
    else {
      invalid.push({ row, reason: decoded.left })
      if (afterParked === "wait") waiting.add(row.orderingKey)
    }
  }
  return { valid, invalid }
}

const brokenContract = (sink: SinkService, message: string) =>
  new Sink.SinkUnavailable({ sink: sink.name, reason: "defect", message })

/** Fails if the sink broke its contract in a way that would be written to the store. */
const checkOutcomes = (sink: SinkService, batch: Sink.Batch, outcomes: ReadonlyArray<Sink.Outcome>) => {
  if (outcomes.length !== batch.events.length) {
    return Effect.fail(
      brokenContract(sink, `The sink answered ${outcomes.length} outcomes for ${batch.events.length} events`)
    )
  }
  if (outcomes.some((outcome) => outcome._tag === "Published" && !ControlVersion.is(outcome.version))) {
    return Effect.fail(brokenContract(sink, "The sink answered a version that is not a positive integer"))
  }
  return outcomes.every((outcome) => outcome._tag === "NotAttempted")
    ? Effect.fail(brokenContract(sink, "The sink attempted none of the events"))
    : Effect.succeed(outcomes)
}

/** A batch, and when its publish is abandoned. */
interface TimedBatch extends Sink.Batch {
  /** Later than the deadline, so that a slow sink can still say what it did. */
  readonly givenUpAt: number
}

const timeout = (sink: SinkService) =>
  new Sink.SinkUnavailable({
    sink: sink.name,
    reason: "timeout",
    message: "The sink did not answer within the publish timeout"
  })

const publishOnce = (sink: SinkService, batch: TimedBatch) =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    if (now >= batch.deadline) return yield* timeout(sink)
    return yield* sink.publish(batch).pipe(
      // A sink that cannot be interrupted is left running: it has promised to send nothing more.
      Effect.disconnect,
      Effect.timeoutFail({ duration: Duration.millis(batch.givenUpAt - now), onTimeout: () => timeout(sink) })
    )
  }).pipe(Effect.flatMap((outcomes) => checkOutcomes(sink, batch, outcomes)))

/**
 * Publishes a batch in which some event makes the sink die, one event at a time, so that only that event is charged.
 */
const isolate = (sink: SinkService, batch: TimedBatch): Effect.Effect<Array<Sink.Outcome>, Sink.SinkUnavailable> =>
  Effect.gen(function* () {
    const outcomes: Array<Sink.Outcome> = batch.events.map(() => Sink.notAttempted)
    for (const key of Sink.byKey(batch.events)) {
      for (const [index, event] of key) {
        const exit = yield* Effect.exit(publishOnce(sink, { ...batch, events: [event] }))
        if (Exit.isFailure(exit) && !Cause.isDie(exit.cause)) {
          return outcomes.some((known) => known._tag !== "NotAttempted")
            ? outcomes
            : yield* Effect.failCause(exit.cause)
        }
        const outcome: Sink.Outcome = Exit.isSuccess(exit)
          ? exit.value[0]!
          : new Sink.EventFailed({
              eventId: event.eventId,
              message: `The sink died: ${Cause.pretty(exit.cause).split("\n", 1)[0]}`,
              cause: Cause.squash(exit.cause)
            })
        outcomes[index] = outcome
        if (outcome._tag !== "Published") break
      }
    }
    return outcomes
  })

const publish = (sink: SinkService, batch: TimedBatch) =>
  publishOnce(sink, batch).pipe(
    Effect.catchAllCause((cause) =>
      Cause.isDie(cause)
        ? Effect.logError("The sink died; its batch is published one event at a time", cause).pipe(
            Effect.zipRight(Metric.increment(PumpMetrics.sinkDefects)),
            Effect.zipRight(isolate(sink, batch))
          )
        : Effect.failCause(cause)
    )
  )

const park = (row: ClaimedRow, reason: string) =>
  Effect.as(
    Effect.logError("Parked a control event").pipe(
      Effect.annotateLogs({ event_id: row.eventId, ordering_key: row.orderingKey, reason })
    ),
    { id: row.id, error: truncate(reason, maxErrorLength) }
  )

const settlementOf = (
  config: Config,
  valid: ReadonlyArray<OutboundRow>,
  outcomes: ReadonlyArray<Sink.Outcome>,
  invalid: ReadonlyArray<InvalidRow>
): Effect.Effect<Settlement> =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const published: Array<Settlement["published"][number]> = []
    const failed: Array<Settlement["failed"][number]> = []
    const parked = yield* Effect.forEach(invalid, ({ reason, row }) => park(row, reason))
    // Asked once, so that it costs nothing per event if nobody reads debug lines.
    const inDetail = LogLevel.lessThanEqual(yield* FiberRef.get(FiberRef.currentMinimumLogLevel), LogLevel.Debug)
    for (const [index, { row }] of valid.entries()) {
      const outcome = outcomes[index]!
      switch (outcome._tag) {
        case "NotAttempted":
          break
        case "Published":
          published.push({ id: row.id, version: outcome.version })
          if (inDetail) {
            yield* Effect.logDebug(
              outcome.duplicate ? "The feed held a control event" : "Published a control event"
            ).pipe(
              Effect.annotateLogs({
                event_id: row.eventId,
                ordering_key: row.orderingKey,
                control_version: outcome.version
              })
            )
          }
          break
        case "EventRejected":
          parked.push(yield* park(row, outcome.message))
          break
        case "EventFailed": {
          const nextAttemptAt = yield* EventRetry.nextAttemptAt(config.eventRetry, outcome, row.attemptCount + 1, now)
          if (nextAttemptAt === undefined) {
            parked.push(yield* park(row, `Attempts exhausted: ${outcome.message}`))
          } else {
            yield* Effect.logWarning("A control event failed and will be retried", outcome).pipe(
              Effect.annotateLogs({ event_id: row.eventId, ordering_key: row.orderingKey })
            )
            failed.push({ id: row.id, error: truncate(outcome.message, maxErrorLength), nextAttemptAt })
          }
        }
      }
    }
    return { now, published, failed, parked }
  })

const late = () =>
  new OutboxError({
    message: "The claim took most of the publish timeout, so nothing was sent",
    retryable: true
  })

/** The fraction of the publish timeout in which a sink may start to send. */
const sending = 0.75

/**
 * Publishes rows that were claimed at an instant, and returns what to write about them.
 */
export const run = (
  sink: SinkService,
  config: Config,
  rows: ReadonlyArray<ClaimedRow>,
  claimedAt: number
): Effect.Effect<Settlement, Sink.SinkUnavailable | OutboxError> =>
  Effect.gen(function* () {
    const { invalid, valid } = decodeRows(rows, config.afterParked)
    const events = valid.map(({ outbound }) => outbound)
    if (!Arr.isNonEmptyReadonlyArray(events)) return yield* settlementOf(config, valid, [], invalid)
    const now = yield* Clock.currentTimeMillis
    const publishTimeout = Duration.toMillis(config.publishTimeout)
    // A clock that goes back must not prolong anything.
    const from = Math.min(claimedAt, now)
    const deadline = from + publishTimeout * sending
    // A holder that was frozen after its claim has lost its lane: whatever it sends now could overtake others.
    if (now >= deadline) return yield* late()
    const outcomes = yield* publish(sink, { events, deadline, givenUpAt: from + publishTimeout }).pipe(
      Metric.trackDurationWith(PumpMetrics.publishDuration, Duration.toSeconds),
      withPublishSpan(sink.name, events)
    )
    return yield* settlementOf(config, valid, outcomes, invalid)
  })
