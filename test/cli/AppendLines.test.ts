import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Stream } from "effect"
import type { Outbox } from "../../src/index.js"
import { ControlEvent, OutboxStore } from "../../src/index.js"
import * as AppendLines from "../../src/cli/internal/appendLines.js"
import { failure, type CliError } from "../../src/cli/internal/CliError.js"

type Service = Outbox.Outbox["Type"]

/** An outbox that remembers its transactions, with other behaviour in places. */
const fake = (
  other: {
    readonly append?: Effect.Effect<void, OutboxStore.OutboxError>
    readonly commit?: Effect.Effect<void, OutboxStore.OutboxError>
  } = {}
) => {
  const transactions: Array<ReadonlyArray<string>> = []
  let open: ReadonlyArray<string> = []
  const service: Service = {
    append: () => Effect.die("append is for single events"),
    appendAll: (events) =>
      Effect.gen(function* () {
        yield* other.append ?? Effect.void
        const made = yield* ControlEvent.makeAll(events)
        const known = new Set(transactions.flat())
        const duplicate = made.find((event) => known.has(event.event_id))
        if (duplicate !== undefined) {
          return yield* new OutboxStore.DuplicateEventId({ eventId: duplicate.event_id })
        }
        open = made.map((event) => event.event_id)
        return made.map((event) => event.event_id)
      }),
    transaction: () => Effect.die("transaction is for a change and its events"),
    withTransaction: (effect) =>
      Effect.tap(effect, () =>
        Effect.zipRight(
          other.commit ?? Effect.void,
          Effect.sync(() => void transactions.push(open))
        )
      ),
    parked: () => Effect.succeed([]),
    redrive: () => Effect.succeed([])
  }
  return { service, transactions }
}

const lost = new OutboxStore.OutboxError({ message: "the connection was lost", retryable: true })

const event = (id: number, more: object = {}) => JSON.stringify({ event_id: `e${id}`, type: "test", ...more })

const events = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => `${event(from + index)}\n`).join("")

const run = (
  outbox: Service,
  bytes: Stream.Stream<Uint8Array, CliError> | string,
  options: Partial<AppendLines.Options> = {}
) =>
  AppendLines.run({
    outbox,
    source: "events.ndjson",
    bytes: typeof bytes === "string" ? Stream.make(new TextEncoder().encode(bytes)) : bytes,
    transactionSize: 10,
    orderingKey: undefined,
    explain: (error) => failure(error.message, error),
    onProgress: () => {},
    onInterrupt: () => {},
    ...options
  })

const messageOf = <A>(self: Effect.Effect<A, CliError>) => Effect.map(Effect.flip(self), ({ message }) => message)

describe("AppendLines", () => {
  it.effect("appends in transactions of the size given", () =>
    Effect.gen(function* () {
      const { service, transactions } = fake()
      assert.deepStrictEqual(yield* run(service, events(1, 25)), { events: 25, transactions: 3 })
      assert.deepStrictEqual(
        transactions.map((ids) => [ids.length, ids[0], ids.at(-1)]),
        [
          [10, "e1", "e10"],
          [10, "e11", "e20"],
          [5, "e21", "e25"]
        ]
      )
      assert.deepStrictEqual(yield* run(fake().service, "\n \r\n"), { events: 0, transactions: 0 })
    })
  )

  it.effect("ends a transaction early when its lines are large", () =>
    Effect.gen(function* () {
      const { service, transactions } = fake()
      const large = (id: number) => `${event(id, { text: "x".repeat(900 * 1024) })}\n`
      const bytes = Stream.map(Stream.range(1, 40), (id) => new TextEncoder().encode(large(id)))
      yield* run(service, bytes, { transactionSize: 1_000 })
      assert.deepStrictEqual(
        transactions.map((ids) => ids.length),
        [19, 19, 2]
      )
    })
  )

  it.effect("says which line is bad and why, and what was appended before", () =>
    Effect.gen(function* () {
      const message = (bad: string) => messageOf(run(fake().service, `${events(1, 12)}\n${bad}\n${events(20, 50)}`))
      const bad = {
        nonsense: "the event must be JSON",
        "[]": "the event must be a JSON object",
        null: "the event must be a JSON object",
        '{"type":""}': "type must not be empty",
        '{"type":"a","event_id":1}': "event_id has the wrong type",
        '{"type":"a","version":-1}': "version must be an integer from 0 to 2^53 - 1",
        '{"type":"a","control_version":1}': "control_version is assigned by the sink and must be absent",
        [event(11)]: 'the event_id "e11" is that of line 11',
        [event(2)]: 'the outbox already has the event_id "e2"'
      }
      for (const [line, reason] of Object.entries(bad)) {
        assert.strictEqual(
          yield* message(line),
          `events.ndjson, line 14: ${reason}. Appended: 10 events, lines 1 to 10. Not appended: line 11 and all after it.`
        )
      }
    })
  )

  it.effect("counts lines, not events, where lines are blank", () =>
    Effect.gen(function* () {
      const blank = events(1, 20).replaceAll("\n", "\r\n\r\n")
      assert.strictEqual(
        yield* messageOf(run(fake().service, `${blank}?`)),
        "events.ndjson, line 41: the event must be JSON. Appended: 20 events, lines 1 to 39. Not appended: line 40 and all after it."
      )
    })
  )

  it.effect("appends nothing of a transaction whose last line is bad", () =>
    Effect.gen(function* () {
      const { service, transactions } = fake()
      assert.strictEqual(
        yield* messageOf(run(service, `${events(1, 9)}?`)),
        "events.ndjson, line 10: the event must be JSON. Appended: nothing. Not appended: line 1 and all after it."
      )
      assert.deepStrictEqual(transactions, [])
    })
  )

  it.effect("says so when the database fails", () =>
    Effect.gen(function* () {
      let batches = 0
      const third = Effect.suspend(() => (++batches === 3 ? lost : Effect.void))
      assert.strictEqual(
        yield* messageOf(run(fake({ append: third }).service, events(1, 40))),
        "events.ndjson: the connection was lost. Appended: 20 events, lines 1 to 20. Not appended: line 21 and all after it."
      )
      batches = 0
      assert.strictEqual(
        yield* messageOf(run(fake({ commit: third }).service, events(1, 40))),
        "events.ndjson: the connection was lost. Appended: 20 events, lines 1 to 20. Unknown, because the database did not answer: lines 21 to 30. Not appended: line 31 and all after it."
      )
    })
  )

  it.effect("says so when the source fails", () =>
    Effect.gen(function* () {
      const bytes = Stream.concat(
        Stream.make(new TextEncoder().encode(events(1, 15))),
        Stream.fail(failure("Cannot read it: EIO"))
      )
      assert.strictEqual(
        yield* messageOf(run(fake().service, bytes)),
        "events.ndjson: Cannot read it: EIO. Appended: 10 events, lines 1 to 10. Not appended: line 11 and all after it."
      )
    })
  )

  it.effect("reads on only when what it has read is appended", () =>
    Effect.gen(function* () {
      const gate = yield* Effect.makeSemaphore(0)
      let read = 0
      const bytes = Stream.map(Stream.rechunk(Stream.range(1, 100), 1), (id) => {
        read++
        return new TextEncoder().encode(`${event(id)}\n`)
      })
      const fiber = yield* Effect.fork(run(fake({ append: gate.take(1) }).service, bytes))
      yield* Effect.yieldNow().pipe(Effect.repeatN(1_000))
      assert.strictEqual(read, 10)
      yield* gate.release(1)
      yield* Effect.yieldNow().pipe(Effect.repeatN(1_000))
      assert.strictEqual(read, 20)
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect("finishes a commit that is interrupted, and says what was appended", () =>
    Effect.gen(function* () {
      const committing = yield* Deferred.make<void>()
      const answer = yield* Effect.makeLatch(false)
      const { service, transactions } = fake({
        commit: Effect.zipRight(Deferred.succeed(committing, undefined), answer.await)
      })
      let progress = ""
      const fiber = yield* Effect.fork(
        run(service, events(1, 40), {
          onInterrupt: (state) => {
            progress = state
          }
        })
      )
      yield* Deferred.await(committing)
      const exit = yield* Effect.fork(Fiber.interrupt(fiber))
      yield* Effect.yieldNow()
      yield* answer.open
      assert.isTrue(Exit.isInterrupted(yield* Fiber.join(exit)))
      assert.strictEqual(transactions.length, 1)
      assert.strictEqual(progress, "Appended: 10 events, lines 1 to 10. Not appended: line 11 and all after it.")
    })
  )

  it.effect("hands the ordering key on, and tells of its progress", () =>
    Effect.gen(function* () {
      const { service } = fake()
      const keys: Array<unknown> = []
      const seen: Array<readonly [number, number]> = []
      const text = events(1, 15)
      yield* run(
        {
          ...service,
          appendAll: (events, options) => (keys.push(options?.orderingKey), service.appendAll(events, options))
        },
        text,
        { orderingKey: "k", onProgress: (...progress) => seen.push(progress) }
      )
      assert.deepStrictEqual(keys, ["k", "k"])
      const first = text.indexOf(event(11))
      assert.deepStrictEqual(seen, [
        [first, 10],
        [text.length - first, 15]
      ])
    })
  )
})
