import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Metric, MetricState, Option, TestClock, Tracer } from "effect"
import { OutboxStore, Outbox, Pump, PumpConfig, PumpMetrics, Sink, type ControlEvent } from "../src/index.js"
import { MemoryOutboxStore, MemorySink } from "../src/testing/index.js"
import { layerPump } from "./support/pump.js"

const Test = Layer.merge(Outbox.layer, layerPump()).pipe(Layer.provideMerge(MemoryOutboxStore.layer))

const append = (...events: ReadonlyArray<ControlEvent.Input>) =>
  Effect.flatMap(Outbox.Outbox, (outbox) => outbox.withTransaction(outbox.appendAll(events)))

const count = (metric: Metric.Metric.Counter<number>) => Effect.map(Metric.value(metric), (state) => state.count)

/** How much a counter grows. The registry is the process's, and other tests count in it, too. */
const growth = <A, E, R>(metric: Metric.Metric.Counter<number>, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const before = yield* count(metric)
    yield* effect
    return (yield* count(metric)) - before
  })

const observed = <A, E, R>(
  metric: Metric.Metric.Histogram<number>,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<{ readonly count: number; readonly sum: number }, E, R> =>
  Effect.gen(function* () {
    const before = yield* Metric.value(metric)
    yield* effect
    const after = yield* Metric.value(metric)
    return { count: after.count - before.count, sum: after.sum - before.sum }
  })

/** The gauges and counters of a name, by the value of a label. */
const byLabel = (name: string, label: string) =>
  Effect.map(Metric.snapshot, (pairs) => {
    const found: Record<string, number> = {}
    for (const { metricKey, metricState } of pairs) {
      const value = metricKey.tags.find(({ key }) => key === label)?.value
      if (metricKey.name === name && value !== undefined) {
        if (MetricState.isGaugeState(metricState)) found[value] = Number(metricState.value)
        if (MetricState.isCounterState(metricState)) found[value] = Number(metricState.count)
      }
    }
    return found
  })

const stateNow = Effect.map(byLabel("controlpublish_pump_state", "state"), (states) =>
  Object.entries(states).flatMap(([state, value]) => (value === 1 ? [state] : []))
)

describe("PumpMetrics", () => {
  it.scoped("counts what was published, failed and parked, and the sizes of batches", () =>
    Effect.gen(function* () {
      const sink = yield* MemorySink.MemorySink
      yield* sink.failEvent("fails", { times: 1 })
      yield* sink.rejectEvent("rejected")
      yield* TestClock.adjust("1 second")
      const work = Effect.zipRight(
        append(
          { type: "a", event_id: "fine", tenant_id: "t1" },
          { type: "a", event_id: "fails", tenant_id: "t2" },
          { type: "a", event_id: "rejected", tenant_id: "t3" }
        ),
        TestClock.adjust("10 millis")
      )
      const grown: Record<string, number> = {}
      let sizes = { count: 0, sum: 0 }
      const counters = { published: PumpMetrics.published, failed: PumpMetrics.failed, parked: PumpMetrics.parked }
      let measured: Effect.Effect<unknown, unknown, Outbox.Outbox> = Effect.map(
        observed(PumpMetrics.batchSize, work),
        (found) => {
          sizes = found
        }
      )
      for (const [name, counter] of Object.entries(counters)) {
        measured = Effect.map(growth(counter, measured), (value) => {
          grown[name] = value
        })
      }
      yield* measured
      assert.deepStrictEqual(grown, { published: 1, failed: 1, parked: 1 })
      assert.strictEqual(sizes.sum, 3)
      assert.strictEqual(yield* growth(PumpMetrics.published, TestClock.adjust("2 seconds")), 1)
    }).pipe(Effect.provide(Test))
  )

  it.scoped("measures in seconds how long the sink took", () =>
    Effect.gen(function* () {
      const slow = Layer.succeed(Sink.Sink, {
        name: "slow",
        inert: false,
        publish: (batch) =>
          Effect.delay(
            Effect.succeed(batch.events.map((_, index) => Sink.published((index + 1) as never))),
            "1500 millis"
          )
      })
      const layer = Layer.merge(Outbox.layer, Pump.layer).pipe(
        Layer.provide([slow, PumpConfig.layerDefaults]),
        Layer.provideMerge(MemoryOutboxStore.layer)
      )
      yield* Effect.gen(function* () {
        yield* TestClock.adjust("1 second")
        const took = yield* observed(
          PumpMetrics.publishDuration,
          Effect.zipRight(append({ type: "a" }), TestClock.adjust("5 seconds"))
        )
        assert.deepStrictEqual(took, { count: 1, sum: 1.5 })
      }).pipe(Effect.provide(layer))
    })
  )

  it.scoped("sets the state of the pump, and counts which part failed a pass", () =>
    Effect.gen(function* () {
      const sink = yield* MemorySink.MemorySink
      const store = yield* MemoryOutboxStore.MemoryOutboxStore
      const pump = yield* Pump.Pump
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* stateNow, ["idle"])
      yield* sink.setAvailable(false)
      yield* append({ type: "a" })
      const failed = yield* growth(PumpMetrics.failures.sink, TestClock.adjust("50 millis"))
      assert.isAbove(failed, 0)
      assert.deepStrictEqual(yield* stateNow, ["unavailable"])
      yield* sink.setAvailable(true)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* stateNow, ["idle"])
      yield* store.breakWith(new OutboxStore.OutboxError({ message: "gone", retryable: true }))
      assert.isAbove(yield* growth(PumpMetrics.failures.database, TestClock.adjust("2 seconds")), 0)
      yield* store.breakWith(undefined)
      yield* TestClock.adjust("1 minute")
      yield* pump.pause
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* stateNow, ["paused"])
    }).pipe(Effect.provide(Test))
  )

  it.scoped("distinguishes a wake-up, a poll and a due retry", () =>
    Effect.gen(function* () {
      const sink = yield* MemorySink.MemorySink
      yield* TestClock.adjust("1 second")
      const { notify, poll, retry } = PumpMetrics.wakeUps
      assert.strictEqual(yield* growth(notify, Effect.zipRight(append({ type: "a" }), TestClock.adjust("1 millis"))), 1)
      yield* sink.failEvent("once", { times: 1 })
      yield* append({ type: "a", event_id: "once" })
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* growth(retry, TestClock.adjust("3 seconds")), 1)
      assert.strictEqual(yield* growth(poll, TestClock.adjust("10 seconds")), 0, "it found nothing to do")
    }).pipe(Effect.provide(Test))
  )

  it.effect("sets the backlog", () =>
    Effect.gen(function* () {
      const exactly = (value: number) => ({ value, exact: true })
      yield* PumpMetrics.setBacklog(
        { pending: { value: 10_000, exact: false }, waiting: exactly(2), parked: exactly(3), oldestPendingAt: 5_000 },
        7_500
      )
      yield* PumpMetrics.setHealthy({ database: true, sink: false, pump: true })
      const gauges = new Map(
        (yield* Metric.snapshot).map(({ metricKey, metricState }) => [
          metricKey.name,
          MetricState.isGaugeState(metricState) ? metricState.value : undefined
        ])
      )
      assert.strictEqual(gauges.get("controlpublish_backlog_pending"), 10_000)
      assert.strictEqual(gauges.get("controlpublish_backlog_waiting"), 2)
      assert.strictEqual(gauges.get("controlpublish_backlog_parked"), 3)
      assert.strictEqual(gauges.get("controlpublish_oldest_pending_age_seconds"), 2.5)
      assert.deepStrictEqual(yield* byLabel("controlpublish_healthy", "part"), { database: 1, sink: 0, pump: 1 })
    })
  )
})

interface Recorded extends Tracer.Span {
  readonly ended: () => Exit.Exit<unknown, unknown> | undefined
}

/** A tracer that keeps its spans. */
const recorder = () => {
  const spans: Array<Recorded> = []
  let ids = 0
  const hex = (length: number) => (++ids).toString(16).padStart(length, "0")
  const tracer = Tracer.make({
    span: (name, parent, context, links, startTime, kind) => {
      const attributes = new Map<string, unknown>()
      let exit: Exit.Exit<unknown, unknown> | undefined
      const span: Recorded = {
        _tag: "Span",
        name,
        parent,
        context,
        links: [...links],
        kind,
        status: { _tag: "Started", startTime },
        spanId: hex(16),
        traceId: Option.match(parent, { onNone: () => hex(32), onSome: ({ traceId }) => traceId }),
        sampled: true,
        attributes,
        attribute: (key, value) => void attributes.set(key, value),
        event: () => {},
        addLinks: () => {},
        end: (_, result) => {
          exit = result
        },
        ended: () => exit
      }
      spans.push(span)
      return span
    },
    context: (execute) => execute()
  })
  return {
    layer: Layer.setTracer(tracer),
    named: (name: string) => spans.filter((span) => span.name === name)
  }
}

describe("the span of a publish", () => {
  const traced = <A, E>(
    use: (
      spans: (name: string) => ReadonlyArray<Recorded>
    ) => Effect.Effect<A, E, Outbox.Outbox | MemorySink.MemorySink>
  ) => {
    const { layer, named } = recorder()
    return Effect.provide(use(named), Layer.provideMerge(Test, layer))
  }

  it.scoped("belongs to the trace of the append, even of several events", () =>
    traced((spans) =>
      Effect.gen(function* () {
        yield* TestClock.adjust("1 second")
        yield* append({ type: "a", tenant_id: "secret" }, { type: "a", tenant_id: "secret" })
        yield* TestClock.adjust("10 millis")
        const [appended] = spans("Outbox.appendAll")
        const [published, ...others] = spans("Pump.publish")
        assert.isUndefined(others[0])
        assert.strictEqual(published!.traceId, appended!.traceId)
        assert.strictEqual(Option.getOrThrow(published!.parent).spanId, appended!.spanId)
        assert.strictEqual(published!.kind, "producer")
        assert.isTrue(Exit.isSuccess(published!.ended()!))
        assert.deepStrictEqual(Object.fromEntries(published!.attributes), {
          "controlpublish.sink": "memory",
          "messaging.operation.name": "publish",
          "messaging.batch.message_count": 2,
          "controlpublish.published": 2,
          "controlpublish.rejected": 0,
          "controlpublish.failed": 0,
          "controlpublish.not_attempted": 0
        })
      })
    )
  )

  it.scoped("has links to the appends of a batch, 128 at most, and a trace of its own", () =>
    traced((spans) =>
      Effect.gen(function* () {
        yield* TestClock.adjust("1 second")
        const outbox = yield* Outbox.Outbox
        yield* Effect.forEach(Array.from({ length: 130 }), () => outbox.append({ type: "a" }), { discard: true }).pipe(
          outbox.withTransaction
        )
        yield* TestClock.adjust("10 millis")
        const appends = spans("Outbox.append")
        const [published] = spans("Pump.publish")
        assert.strictEqual(published!.attributes.get("messaging.batch.message_count"), 130)
        assert.isTrue(Option.isNone(published!.parent))
        assert.deepStrictEqual(
          published!.links.map(({ span }) => [span.traceId, span.spanId]),
          appends.slice(0, 128).map(({ spanId, traceId }) => [traceId, spanId])
        )
      })
    )
  )

  it.scoped("ends with the failure of the sink", () =>
    traced((spans) =>
      Effect.gen(function* () {
        const sink = yield* MemorySink.MemorySink
        yield* sink.setAvailable(false)
        yield* append({ type: "a" })
        yield* TestClock.adjust("10 millis")
        const exit = spans("Pump.publish")[0]!.ended()!
        assert.isTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) instanceof Sink.SinkUnavailable)
      })
    )
  )

  it.scoped("ignores invalid traceparents and spans that are not recorded", () =>
    traced((spans) =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        yield* outbox.append({ type: "a" }).pipe(Effect.withTracerEnabled(false), outbox.withTransaction)
        yield* TestClock.adjust("10 millis")
        const sink = yield* MemorySink.MemorySink
        assert.isUndefined((yield* sink.calls)[0]!.events[0].traceparent)
        assert.isTrue(Option.isNone(spans("Pump.publish")[0]!.parent))
      })
    )
  )
})
