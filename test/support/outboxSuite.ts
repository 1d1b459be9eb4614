import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Exit, Layer, Schedule, TestClock, type Array as Arr } from "effect"
import { ControlVersion, Outbox, OutboxStore, Pump, PumpConfig, type Lane, type WakeUp } from "../../src/index.js"
import { MemorySink } from "../../src/testing/index.js"

/** What a store has to give for the suite: itself, empty, and a way to insert a row that `Outbox` would refuse. */
export type StoreLayer = Layer.Layer<OutboxStore.OutboxStore | WakeUp.WakeUp | InsertRaw>

export class InsertRaw extends Effect.Tag("test/InsertRaw")<
  InsertRaw,
  { readonly insert: (row: { readonly eventId: string; readonly payload: string }) => Effect.Effect<void> }
>() {}

class Boom {
  readonly _tag = "Boom"
}

const event = (id: string, tenant = "t1") => ({ event_id: id, type: "tenant.created", tenant_id: tenant })

const published = Effect.flatMap(MemorySink.MemorySink, ({ feed }) =>
  Effect.map(feed, (entries) => entries.map((entry) => entry.eventId as string))
)

/** The laws of the outbox and its pump, for every store. */
export const outboxSuite = (name: string, makeStore: () => StoreLayer) => {
  const withStore =
    (config: Parameters<typeof PumpConfig.layer>[0] = {}) =>
    <A, E>(
      test: Effect.Effect<A, E, Outbox.Outbox | Pump.Pump | MemorySink.MemorySink | OutboxStore.OutboxStore | InsertRaw>
    ) =>
      Effect.provide(
        test,
        Layer.mergeAll(Outbox.layer, Pump.layerManual).pipe(
          Layer.provideMerge(MemorySink.layer),
          Layer.provideMerge(makeStore()),
          Layer.provide(Layer.orDie(PumpConfig.layer(config)))
        )
      )

  describe(name, () => {
    it.effect("publishes a committed event, and returns its id", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const id = yield* outbox.withTransaction(
          outbox.append({ type: "tenant.created", tenant_id: "t1", plan: "gold" })
        )
        const report = yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
        assert.deepStrictEqual(report, { batches: 1, published: 1, failed: 0, parked: 0 })
        const [entry] = yield* Effect.flatMap(MemorySink.MemorySink, ({ feed }) => feed)
        assert.strictEqual(entry!.eventId, id)
        assert.deepInclude(JSON.parse(entry!.payload), { event_id: id, tenant_id: "t1", plan: "gold" })
      }).pipe(withStore())
    )

    it.effect("appends nothing outside a transaction", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        assert.strictEqual((yield* Effect.flip(outbox.append(event("e1"))))._tag, "NotInTransaction")
        assert.strictEqual((yield* Effect.flip(outbox.appendAll([event("e1")])))._tag, "NotInTransaction")
        yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
        assert.deepStrictEqual(yield* published, [])
      }).pipe(withStore())
    )

    it.effect("leaves nothing of a transaction that fails, dies or is interrupted", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        for (const [how, end] of Object.entries({
          fails: Effect.fail(new Boom()),
          dies: Effect.die("boom"),
          interrupts: Effect.interrupt
        })) {
          const exit = yield* outbox.withTransaction(Effect.zipRight(outbox.append(event(how)), end)).pipe(Effect.exit)
          assert.isTrue(Exit.isFailure(exit))
        }
        yield* outbox.withTransaction(outbox.append(event("last")))
        yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
        assert.deepStrictEqual(yield* published, ["last"])
      }).pipe(withStore())
    )

    it.effect("leaves nothing of a rolled-back savepoint, and keeps what is around it", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        yield* outbox.withTransaction(
          Effect.gen(function* () {
            yield* outbox.append(event("before"))
            yield* outbox
              .withTransaction(
                Effect.gen(function* () {
                  yield* outbox.append(event("inside"))
                  yield* outbox.withTransaction(outbox.append(event("deeper")))
                  return yield* Effect.fail(new Boom())
                })
              )
              .pipe(Effect.ignore)
            yield* outbox.withTransaction(outbox.append(event("kept")))
            yield* outbox.append(event("after"))
          })
        )
        // The ids of what was rolled back are free again.
        yield* outbox.withTransaction(outbox.append(event("inside")))
        yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
        assert.deepStrictEqual(yield* published, ["before", "kept", "after", "inside"])
      }).pipe(withStore())
    )

    it.effect("rejects a duplicate id, appends nothing of that call, and the transaction continues", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        yield* outbox.withTransaction(outbox.append(event("e1")))
        yield* outbox.withTransaction(
          Effect.gen(function* () {
            const single = yield* Effect.flip(outbox.append(event("e1")))
            assert.deepInclude({ ...single }, { _tag: "DuplicateEventId", eventId: "e1" })
            yield* outbox.append(event("e2"))
            const stored = yield* Effect.flip(outbox.appendAll([event("e3"), event("e1"), event("e4")]))
            assert.deepInclude({ ...stored }, { _tag: "DuplicateEventId", eventId: "e1" })
            const twice = yield* Effect.flip(outbox.appendAll([event("e5"), event("e6"), event("e5")]))
            assert.deepInclude({ ...twice }, { _tag: "DuplicateEventId", eventId: "e5" })
            yield* outbox.append(event("e7"))
          })
        )
        yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
        assert.deepStrictEqual(yield* published, ["e1", "e2", "e7"])
      }).pipe(withStore())
    )

    it.effect("rejects an invalid event by its field, and appends nothing of that call", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        yield* outbox.withTransaction(
          Effect.gen(function* () {
            const invalid = yield* Effect.flip(outbox.appendAll([event("e1"), { ...event("e2"), artifact_ref: "x" }]))
            assert.deepInclude({ ...invalid }, { _tag: "InvalidEvent", eventId: "e2", field: "checksum" })
            const key = yield* Effect.flip(outbox.append(event("e3"), { orderingKey: "a\u0000" }))
            assert.deepInclude({ ...key }, { _tag: "InvalidEvent", eventId: "e3", field: "orderingKey" })
            const version = yield* Effect.flip(outbox.append({ ...event("e4"), control_version: 4 }))
            assert.deepInclude({ ...version }, { _tag: "InvalidEvent", eventId: "e4", field: "control_version" })
          })
        )
        yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
        assert.deepStrictEqual(yield* published, [])
      }).pipe(withStore())
    )

    it.effect("keeps the order of appendAll, even beyond one batch, and returns the ids in order", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const ids = yield* outbox.withTransaction(
          outbox.appendAll(Array.from({ length: 10_000 }, (_, n) => ({ type: "n", tenant_id: `t${n % 7}`, n })))
        )
        yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
        const entries = yield* Effect.flatMap(MemorySink.MemorySink, ({ feed }) => feed)
        assert.deepStrictEqual(new Set(entries.map((entry) => entry.eventId)), new Set(ids))
        const positions = new Map(ids.map((id, index) => [id, index]))
        for (let tenant = 0; tenant < 7; tenant++) {
          const order = entries
            .filter((entry) => entry.event.tenant_id === `t${tenant}`)
            .map((entry) => positions.get(entry.eventId)!)
          assert.deepStrictEqual(
            order,
            ids.map((_, index) => index).filter((index) => index % 7 === tenant)
          )
        }
      }).pipe(withStore())
    )

    it.effect("accepts an empty appendAll, inside and outside a transaction", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        assert.deepStrictEqual(yield* outbox.withTransaction(outbox.appendAll([])), [])
      }).pipe(withStore())
    )

    it.effect("orders by the tenant unless told otherwise", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        yield* outbox.withTransaction(
          Effect.gen(function* () {
            yield* outbox.append(event("tenant"))
            yield* outbox.append({ event_id: "none", type: "x" })
            yield* outbox.append(event("given"), { orderingKey: "k" })
            yield* outbox.appendAll([event("told")], { orderingKey: (event) => `of ${event.type}` })
          })
        )
        yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
        const entries = yield* Effect.flatMap(MemorySink.MemorySink, ({ feed }) => feed)
        assert.deepStrictEqual(Object.fromEntries(entries.map((entry) => [entry.eventId, String(entry.orderingKey)])), {
          tenant: "t1",
          none: "",
          given: "k",
          told: "of tenant.created"
        })
      }).pipe(withStore())
    )

    it.effect("parks an invalid event with the reason, and later events pass it", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const { insert } = yield* InsertRaw
        yield* insert({ eventId: "no-object", payload: `"text"` })
        yield* insert({ eventId: "invalid", payload: `{"event_id":"invalid","type":""}` })
        yield* insert({ eventId: "other-id", payload: `{"event_id":"another","type":"x"}` })
        yield* insert({ eventId: "versioned", payload: `{"event_id":"versioned","type":"x","control_version":9}` })
        yield* insert({ eventId: "good", payload: `{"event_id":"good","type":"x"}` })
        const report = yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
        assert.deepInclude({ ...report }, { published: 1, parked: 4 })
        assert.deepStrictEqual(yield* published, ["good"])
        const parked = yield* outbox.parked()
        assert.deepStrictEqual(
          parked.map(({ error, eventId }) => [eventId, error]),
          [
            ["no-object", "Invalid control event: the event must be a JSON object"],
            ["invalid", `Invalid control event "invalid": type must not be empty`],
            ["other-id", "Invalid control event: event_id in the payload differs from the row's"],
            [
              "versioned",
              `Invalid control event "versioned": control_version is assigned by the sink and must be absent`
            ]
          ]
        )
      }).pipe(withStore())
    )

    it.effect("keeps a failed event's key waiting for its retry, while others pass", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const pump = yield* Pump.Pump
        const sink = yield* MemorySink.MemorySink
        yield* outbox.withTransaction(
          outbox.appendAll([event("a1", "a"), event("b1", "b"), event("a2", "a"), event("b2", "b")])
        )
        yield* sink.failEvent("a1", { times: 2 })
        const first = yield* pump.drain
        assert.deepInclude({ ...first }, { published: 2, failed: 1 })
        yield* outbox.withTransaction(outbox.append(event("a3", "a")))
        assert.deepInclude({ ...(yield* pump.drain) }, { published: 0, failed: 0 })
        const store = yield* OutboxStore.OutboxStore
        assert.deepStrictEqual((yield* store.backlog({ limit: 100 })).waiting, { value: 1, exact: true })
        yield* TestClock.adjust("1 second")
        assert.deepInclude({ ...(yield* pump.drain) }, { published: 0, failed: 1 })
        yield* TestClock.adjust("1 second")
        assert.deepInclude({ ...(yield* pump.drain) }, { published: 0, failed: 0 })
        yield* TestClock.adjust("1 second")
        assert.deepInclude({ ...(yield* pump.drain) }, { published: 3, failed: 0 })
        assert.deepStrictEqual(yield* published, ["b1", "b2", "a1", "a2", "a3"])
      }).pipe(withStore({ eventRetry: Schedule.exponential("1 second") }))
    )

    it.effect("parks an event whose retry schedule has ended", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const pump = yield* Pump.Pump
        const sink = yield* MemorySink.MemorySink
        yield* outbox.withTransaction(outbox.appendAll([event("a1"), event("a2")]))
        yield* sink.failEvent("a1")
        for (let attempt = 1; attempt <= 3; attempt++) {
          yield* pump.drain
          yield* TestClock.adjust("1 minute")
        }
        assert.deepStrictEqual(yield* published, ["a2"])
        const [parked] = yield* outbox.parked()
        assert.deepInclude({ ...parked }, { eventId: "a1", attemptCount: 3 })
        assert.match(parked!.error, /^Attempts exhausted: /)
      }).pipe(withStore({ eventRetry: Schedule.intersect(Schedule.recurs(2), Schedule.spaced("1 second")) }))
    )

    it.effect("parks a rejected event, which stops nobody but itself, and redrives it", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const pump = yield* Pump.Pump
        const sink = yield* MemorySink.MemorySink
        yield* outbox.withTransaction(outbox.appendAll([event("a1"), event("a2"), event("a3")]))
        yield* sink.rejectEvent("a2", { times: 1 })
        assert.deepInclude({ ...(yield* pump.drain) }, { published: 2, parked: 1 })
        assert.deepStrictEqual(yield* published, ["a1", "a3"])
        const [parked] = yield* outbox.parked()
        assert.deepInclude({ ...parked }, { eventId: "a2", orderingKey: "t1", type: "tenant.created", attemptCount: 1 })
        assert.isNotEmpty(parked?.error)
        assert.deepStrictEqual(yield* outbox.redrive(["a1", "a2", "unknown"]), ["a2"] as never)
        assert.deepStrictEqual(yield* outbox.parked(), [])
        assert.deepInclude({ ...(yield* pump.drain) }, { published: 1 })
        assert.deepStrictEqual(yield* published, ["a1", "a3", "a2"])
      }).pipe(withStore())
    )

    it.effect("keeps a parked event's key waiting if configured, until it is redriven", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const pump = yield* Pump.Pump
        const sink = yield* MemorySink.MemorySink
        const { insert } = yield* InsertRaw
        yield* outbox.withTransaction(
          outbox.appendAll([event("a1", "a"), event("a2", "a"), event("b1", "b"), event("a3", "a")])
        )
        yield* sink.rejectEvent("a2", { times: 1 })
        assert.deepInclude({ ...(yield* pump.drain) }, { published: 2, parked: 1 })
        assert.deepStrictEqual(new Set(yield* published), new Set(["a1", "b1"]))
        yield* outbox.redrive(["a2"])
        yield* pump.drain
        assert.deepStrictEqual((yield* published).slice(2), ["a2", "a3"])
        // A row that never reaches the sink holds its key up just so.
        yield* insert({ eventId: "broken", payload: "{}" })
        yield* insert({ eventId: "behind", payload: `{"event_id":"behind","type":"x"}` })
        assert.deepInclude({ ...(yield* pump.drain) }, { published: 0, parked: 1 })
        assert.deepInclude({ ...(yield* pump.drain) }, { published: 0, parked: 0 })
      }).pipe(withStore({ afterParked: "wait" }))
    )

    it.effect("rejects texts and payloads beyond the bounds, and appends nothing of that call", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const appended = (input: object, options?: Outbox.AppendOptions) =>
          Effect.flip(outbox.withTransaction(outbox.append({ ...event("e1"), ...input }, options)))
        for (const field of ["type", "tenant_id", "stack_id"]) {
          assert.strictEqual(
            (yield* appended({ [field]: "é".repeat(513) }, { orderingKey: "k" })).message,
            `Invalid control event "e1": ${field} must have at most 1024 bytes`
          )
        }
        assert.match((yield* appended({}, { orderingKey: "k".repeat(1025) })).message, /orderingKey must have at most/)
        const large = yield* appended({ text: "x".repeat(8 * 1024 * 1024) })
        assert.deepInclude({ ...large }, { _tag: "OutboxError", retryable: false })
        assert.match(large.message, /the payload has 83\d+ bytes, the maximum is 8388608/)
        yield* outbox.withTransaction(outbox.append({ ...event("e1"), type: "é".repeat(512) }))
        yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
        assert.deepStrictEqual(yield* published, ["e1"])
      }).pipe(withStore())
    )

    it.effect("takes no more than a batch's events and bytes at a time", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const store = yield* OutboxStore.OutboxStore
        const options = { now: 0, limit: 3, maxBytes: 1_000_000, holdFor: 1000, afterParked: "pass" } as const
        const big = { ...event("big"), text: "x".repeat(2_000_000) }
        yield* outbox.withTransaction(
          outbox.appendAll([event("e1"), event("e2"), event("e3"), event("e4"), big, event("e5")])
        )
        const probe = yield* store.probe({ now: 0, afterParked: "pass" })
        assert.strictEqual(probe.lanes.length, 1)
        const taken: Array<ReadonlyArray<string>> = []
        for (let batch = 0; batch < 4; batch++) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const claim = yield* store.claim({ ...options, lanes: [probe.lanes[0]!] })
              if (claim._tag !== "Claim") return taken.push([claim._tag])
              taken.push(claim.rows.map((row) => row.eventId))
              return yield* claim.settle({
                now: 0,
                published: claim.rows.map((row) => ({ id: row.id, version: ControlVersion.make(1) })),
                failed: [],
                parked: []
              })
            })
          )
        }
        assert.deepStrictEqual(taken, [["e1", "e2", "e3"], ["e4", "big"], ["e5"], ["LanesEmpty"]])
      }).pipe(withStore())
    )

    it.effect("leaves a lane to its holder, and the rows of an unsettled claim unchanged", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const store = yield* OutboxStore.OutboxStore
        yield* outbox.withTransaction(outbox.append(event("e1")))
        const [lane] = (yield* store.probe({ now: 0, afterParked: "pass" })).lanes
        const claim = Effect.map(
          store.claim({ lanes: [lane!], now: 0, limit: 1, maxBytes: 1, holdFor: 1000, afterParked: "pass" }),
          (result) => result._tag
        )
        yield* Effect.scoped(
          Effect.gen(function* () {
            assert.strictEqual(yield* claim, "Claim")
            assert.strictEqual(yield* Effect.scoped(claim), "LanesHeld")
          })
        )
        assert.strictEqual(yield* Effect.scoped(claim), "Claim")
      }).pipe(withStore())
    )

    it.effect("takes the free ones of several lanes, in the order of the ids", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const store = yield* OutboxStore.OutboxStore
        const tenants = Array.from({ length: 8 }, (_, n) => `tenant ${n}`)
        const ids = tenants.map((tenant) => `of ${tenant}`)
        yield* outbox.withTransaction(
          outbox.appendAll(tenants.map((tenant) => ({ event_id: `of ${tenant}`, type: "x", tenant_id: tenant })))
        )
        const { crowded, lanes } = yield* store.probe({ now: 0, afterParked: "pass" })
        assert.isAbove(lanes.length, 1)
        assert.strictEqual(crowded.size, 0)
        const claim = (lanes: Arr.NonEmptyReadonlyArray<Lane.Lane>) =>
          Effect.map(
            store.claim({ lanes, now: 0, limit: 100, maxBytes: 10_000, holdFor: 1000, afterParked: "pass" }),
            (result) => (result._tag === "Claim" ? result.rows.map((row) => row.eventId) : [result._tag])
          )
        const all = lanes as Arr.NonEmptyReadonlyArray<Lane.Lane>
        yield* Effect.scoped(
          Effect.gen(function* () {
            const held = yield* claim([lanes[0]!])
            const others = yield* claim(all)
            assert.sameMembers([...held, ...others], ids)
            assert.deepStrictEqual(
              others,
              ids.filter((id) => others.includes(id))
            )
          })
        )
        assert.deepStrictEqual(yield* Effect.scoped(claim(all)), ids)
      }).pipe(withStore())
    )

    it.effect("reads on in lanes that it holds, while it records what was before", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const store = yield* OutboxStore.OutboxStore
        yield* outbox.withTransaction(outbox.appendAll(["e1", "e2", "e3", "e4", "e5"].map((id) => event(id))))
        const options = { now: 0, limit: 2, maxBytes: 10_000, afterParked: "pass" } as const
        const [lane] = (yield* store.probe(options)).lanes
        const claim = store.claim({ ...options, lanes: [lane!], holdFor: 1000 })
        const ids = (rows: ReadonlyArray<OutboxStore.ClaimedRow>) => rows.map((row) => row.eventId)
        const published = (rows: ReadonlyArray<OutboxStore.ClaimedRow>, from: number) =>
          rows.map(({ id }, index) => ({ id, version: ControlVersion.make(from + index) }))
        yield* Effect.scoped(
          Effect.gen(function* () {
            const held = yield* claim
            if (held._tag !== "Claim") return assert.fail(held._tag)
            const next = yield* held.following(options)
            assert.deepStrictEqual(
              [ids(held.rows), ids(next)],
              [
                ["e1", "e2"],
                ["e3", "e4"]
              ]
            )
            yield* held.record({ now: 0, published: published(held.rows, 1) })
            assert.strictEqual((yield* Effect.scoped(claim))._tag, "LanesHeld")
            const last = yield* held.following(options)
            assert.deepStrictEqual(ids(last), ["e5"])
            assert.deepStrictEqual(yield* held.following(options), [])
            // The rows of a claim that ends without a write-back stay as they are, those that it recorded do not.
            yield* held.record({ now: 0, published: published(next, 3) })
          })
        )
        const rest = yield* Effect.scoped(Effect.map(claim, (held) => (held._tag === "Claim" ? ids(held.rows) : [])))
        assert.deepStrictEqual(rest, ["e5"])
      }).pipe(withStore())
    )

    it.effect("does not read on past a row that was skipped, or came back", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const store = yield* OutboxStore.OutboxStore
        const options = { now: 0, limit: 1, maxBytes: 10_000, afterParked: "pass" } as const
        yield* outbox.withTransaction(outbox.appendAll(Array.from({ length: 400 }, (_, n) => event(`e${n}`, `t${n}`))))
        const { lanes } = yield* store.probe(options)
        /** Settles the first row of a lane, and tells what follows the second one. */
        const after = (lane: Lane.Lane, end: "failed" | "parked") =>
          Effect.gen(function* () {
            const claim = store.claim({ ...options, lanes: [lane], holdFor: 1000 })
            const first = yield* Effect.scoped(
              Effect.gen(function* () {
                const held = yield* claim
                if (held._tag !== "Claim") return assert.fail(held._tag)
                const [{ eventId, id }] = held.rows
                const failed = end === "failed" ? [{ id, error: "no", nextAttemptAt: 1000 }] : []
                const parked = end === "parked" ? [{ id, error: "no" }] : []
                yield* held.settle({ now: 0, published: [], failed, parked })
                return eventId
              })
            )
            const held = yield* claim
            if (held._tag !== "Claim") return assert.fail(held._tag)
            return { first, following: held.following }
          })
        const waiting = yield* after(lanes[0]!, "failed")
        assert.deepStrictEqual(yield* waiting.following(options), [])
        assert.deepStrictEqual(yield* waiting.following({ ...options, now: 2000 }), [])
        const parked = yield* after(lanes[1]!, "parked")
        assert.strictEqual((yield* parked.following(options)).length, 1)
        yield* store.redrive([parked.first])
        assert.deepStrictEqual(yield* parked.following(options), [])
      }).pipe(Effect.scoped, withStore())
    )

    it.effect("knows which lanes are crowded", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const store = yield* OutboxStore.OutboxStore
        const append = (from: number, to: number) =>
          outbox.withTransaction(outbox.appendAll(Array.from({ length: to - from }, (_, n) => event(`e${from + n}`))))
        const crowded = Effect.map(store.probe({ now: 0, afterParked: "pass" }), ({ crowded }) => crowded.size)
        yield* append(1, OutboxStore.crowd)
        assert.strictEqual(yield* crowded, 0)
        yield* append(OutboxStore.crowd, OutboxStore.crowd + 1)
        assert.strictEqual(yield* crowded, 1)
      }).pipe(withStore())
    )

    it.effect("counts its backlog up to the limit", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const store = yield* OutboxStore.OutboxStore
        yield* TestClock.setTime(10_000)
        yield* outbox.withTransaction(outbox.appendAll([event("e1"), event("e2"), event("e3")]))
        const exact = yield* store.backlog({ limit: 10 })
        assert.deepStrictEqual(exact, {
          pending: { value: 3, exact: true },
          waiting: { value: 0, exact: true },
          parked: { value: 0, exact: true },
          oldestPendingAt: 10_000
        })
        assert.deepStrictEqual((yield* store.backlog({ limit: 2 })).pending, { value: 2, exact: false })
        yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
        assert.deepStrictEqual((yield* store.backlog({ limit: 10 })).oldestPendingAt, undefined)
      }).pipe(withStore())
    )

    it.effect("does not let the caller's transaction reach the sink", () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const pump = yield* Pump.Pump
        yield* outbox.withTransaction(outbox.append(event("e1")))
        const exit = yield* outbox
          .withTransaction(Effect.zipRight(pump.drain, Effect.fail(new Boom())))
          .pipe(Effect.either)
        assert.isTrue(Either.isLeft(exit))
        assert.deepStrictEqual(yield* published, ["e1"])
        assert.deepInclude({ ...(yield* pump.drain) }, { published: 0 })
      }).pipe(withStore())
    )
  })
}
