/** Appends events from NDJSON, a number of them per transaction. */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import * as ControlEvent from "../../ControlEvent.js"
import type { Outbox } from "../../Outbox.js"
import type { OutboxError } from "../../OutboxStore.js"
import { failure, type CliError } from "./CliError.js"
import * as ExactJson from "./exactJson.js"
import * as Ndjson from "./ndjson.js"
import { count, quote } from "./text.js"

/** The longest line, in bytes. */
export const maxLineBytes = 1024 * 1024

/** A transaction ends when its lines have this many bytes, however few they are: memory stays bounded. */
export const maxTransactionBytes = 16 * 1024 * 1024

export interface Options {
  readonly outbox: Outbox["Type"]
  /** The name of the input in errors. */
  readonly source: string
  readonly bytes: Stream.Stream<Uint8Array, CliError>
  /** Events per transaction. */
  readonly transactionSize: number
  readonly orderingKey: string | undefined
  readonly explain: (error: OutboxError) => CliError
  /** Called after each transaction, with the bytes since the last one and the events appended so far. */
  readonly onProgress: (bytes: number, events: number) => void
  /** Called on an interruption, with what was appended and what was not. */
  readonly onInterrupt: (progress: string) => void
}

export interface Summary {
  readonly events: number
  readonly transactions: number
}

const isObject = (value: unknown): value is object =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const reasonOf = ({ field, reason }: ControlEvent.InvalidEvent): string =>
  `${field === "" ? "the event" : field} ${reason}`

const parse = (text: string): Effect.Effect<ControlEvent.ControlEvent, ControlEvent.InvalidEvent> =>
  Effect.flatMap(ControlEvent.parse(text), (value) =>
    // An object is completed; the contract reports what is wrong with anything else.
    isObject(value) ? ControlEvent.make(value as ControlEvent.Input) : ControlEvent.validateUnpublished(value)
  )

/**
 * Fails with the line that cannot be appended, the lines appended before, and the lines not appended: always whole
 * transactions.
 */
export const run = (options: Options): Effect.Effect<Summary, CliError> =>
  Effect.suspend(() => {
    const { outbox, source, transactionSize } = options
    const splitter = Ndjson.make(maxLineBytes)
    let events = 0
    let transactions = 0
    // The last line of a committed transaction.
    let committed = 0
    // The last line of a transaction whose COMMIT was sent.
    let committing: number | undefined

    // The transaction that is being collected: its events, the lines they are from, the last line read and the size of
    // all lines.
    let batch: Array<ControlEvent.ControlEvent> = []
    let lineOf = new Map<string, number>()
    let last = 0
    let size = 0

    const progress = (): string => {
      const before = events === 0 ? "nothing" : `${count(events, "event")}, lines 1 to ${committed}`
      const unconfirmed =
        committing === undefined
          ? ""
          : `Unknown, because the database did not answer: lines ${committed + 1} to ${committing}. `
      return `Appended: ${before}. ${unconfirmed}Not appended: line ${(committing ?? committed) + 1} and all after it.`
    }

    const stop = (message: string, cause?: unknown) => failure(`${source}${message}. ${progress()}`, cause)
    const stopAt = (line: number, reason: string, cause?: unknown) => stop(`, line ${line}: ${reason}`, cause)

    // No interruption between the commit and the note of it.
    const commit = Effect.uninterruptibleMask((restore) =>
      restore(
        outbox.appendAll(batch, options.orderingKey === undefined ? {} : { orderingKey: options.orderingKey })
      ).pipe(
        Effect.tap(() => Effect.sync(() => (committing = last))),
        outbox.withTransaction,
        Effect.tap(() =>
          Effect.sync(() => {
            events += batch.length
            transactions++
            committed = last
            committing = undefined
            batch = []
            lineOf = new Map()
            options.onProgress(size, events)
            size = 0
          })
        )
      )
    ).pipe(
      Effect.catchTags({
        DuplicateEventId: (error) =>
          stopAt(
            lineOf.get(error.eventId) ?? last,
            `the outbox already has the event_id ${quote(error.eventId)}`,
            error
          ),
        InvalidEvent: (error) => stopAt(lineOf.get(error.eventId ?? "") ?? last, reasonOf(error), error),
        OutboxError: (error) => stop(`: ${options.explain(error).message}`, error)
      }),
      // It runs in a transaction.
      Effect.catchTag("NotInTransaction", (defect) => Effect.die(defect))
    )

    const take = ({ bytes, number, text }: Ndjson.Line): Effect.Effect<void, CliError> =>
      Effect.gen(function* () {
        last = number
        size += bytes
        if (Either.isLeft(text)) return yield* stopAt(number, `the line ${text.left}`)
        if (text.right.trim() === "") return
        const event = yield* Effect.mapError(parse(text.right), (error) => stopAt(number, reasonOf(error), error))
        const changed = ExactJson.whyChanged(text.right)
        if (changed !== undefined) return yield* stopAt(number, `the event ${changed}`)
        const earlier = lineOf.get(event.event_id)
        if (earlier !== undefined) {
          return yield* stopAt(number, `the event_id ${quote(event.event_id)} is that of line ${earlier}`)
        }
        lineOf.set(event.event_id, number)
        batch.push(event)
        if (batch.length >= transactionSize || size >= maxTransactionBytes) yield* commit
      })

    const takeAll = (lines: ReadonlyArray<Ndjson.Line>) => Effect.forEach(lines, take, { discard: true })

    // The next chunk is read when the lines of the last one are done.
    return options.bytes.pipe(
      Stream.mapError((error) => stop(`: ${error.message}`, error)),
      Stream.runForEach((chunk) => takeAll(splitter.push(chunk))),
      Effect.zipRight(Effect.suspend(() => takeAll(splitter.end()))),
      Effect.zipRight(Effect.suspend(() => (batch.length > 0 ? commit : Effect.void))),
      Effect.map(() => ({ events, transactions })),
      Effect.onInterrupt(() => Effect.sync(() => options.onInterrupt(progress())))
    )
  })
