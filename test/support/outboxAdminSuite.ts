import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Fiber, Layer, Option, Schedule, Stream, Struct, TestClock, type Array as Arr } from "effect"
import {
  ControlEvent,
  ControlVersion,
  Outbox,
  OutboxAdmin,
  OutboxStore,
  Pump,
  PumpConfig,
  type PumpStatus,
  Sink,
  type WakeUp
} from "../../src/index.js"
import { MemorySink } from "../../src/testing/index.js"

/** What has to be given for the suite: an empty outbox, and the way to operate it. */
export type AdminLayer = Layer.Layer<OutboxStore.OutboxStore | WakeUp.WakeUp | OutboxAdmin.OutboxAdmin>

const by = { actor: "ann@desk", reason: "the ticket" }

const event = (id: string, tenant = "t1", type = "tenant.created") => ({ event_id: id, type, tenant_id: tenant })

const append = (...events: ReadonlyArray<ReturnType<typeof event>>) =>
  Effect.flatMap(Outbox.Outbox, (outbox) => outbox.withTransaction(outbox.appendAll(events)))

const drain = Effect.flatMap(Pump.Pump, (pump) => pump.drain)

const published = Effect.flatMap(MemorySink.MemorySink, ({ feed }) =>
  Effect.map(feed, (entries) => entries.map((entry) => String(entry.eventId)))
)

/** All pages of a filter, a few events at a time. */
const eventsOf = (filter: OutboxAdmin.EventFilter, limit = 2) =>
  Effect.gen(function* () {
    const admin = yield* OutboxAdmin.OutboxAdmin
    const ids: Array<string> = []
    let cursor: string | undefined
    do {
      const page: OutboxAdmin.EventPage = yield* admin.events(filter, { limit, cursor })
      assert.isAtMost(page.events.length, limit)
      ids.push(...page.events.map(({ eventId }) => eventId))
      cursor = page.next
    } while (cursor !== undefined)
    return ids
  })

const entries = Effect.flatMap(OutboxAdmin.OutboxAdmin, (admin) =>
  Effect.map(admin.audit({ limit: 100 }), ({ entries }) => entries)
)

const claimAll = Effect.gen(function* () {
  const store = yield* OutboxStore.OutboxStore
  const { lanes } = yield* store.probe({ now: 0, afterParked: "pass" })
  const claim = yield* store.claim({
    lanes: lanes as Arr.NonEmptyReadonlyArray<number>,
    now: 0,
    limit: 100,
    maxBytes: 100_000,
    holdFor: 10_000,
    afterParked: "pass"
  })
  return claim._tag === "Claim" ? claim : yield* Effect.dieMessage(claim._tag)
})

/** The laws of the port for those who operate an outbox. */
export const outboxAdminSuite = (name: string, makeLayer: () => AdminLayer) => {
  const withAdmin =
    (config: Parameters<typeof PumpConfig.layer>[0] = {}) =>
    <A, E>(
      test: Effect.Effect<
        A,
        E,
        Outbox.Outbox | Pump.Pump | MemorySink.MemorySink | OutboxStore.OutboxStore | OutboxAdmin.OutboxAdmin
      >
    ) =>
      Effect.provide(
        test,
        Layer.mergeAll(Outbox.layer, Pump.layerManual).pipe(
          Layer.provideMerge(MemorySink.layer),
          Layer.provideMerge(makeLayer()),
          Layer.provide(Layer.orDie(PumpConfig.layer({ eventRetry: Schedule.spaced("1 minute"), ...config })))
        )
      )

  /** One of each state, from the oldest: parked, published, waiting, pending. */
  const oneOfEach = Effect.gen(function* () {
    const sink = yield* MemorySink.MemorySink
    yield* TestClock.setTime(1_000_000)
    yield* append(event("parked", "a"), event("published", "b", "key.changed"), event("waiting", "c"))
    yield* sink.rejectEvent("parked")
    yield* sink.failEvent("waiting")
    yield* drain
    yield* TestClock.adjust("10 seconds")
    yield* append(event("pending", "dora"))
  })

  describe(name, () => {
    it.effect("returns the identity of the outbox", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        const identity = yield* admin.identity()
        assert.isTrue(Object.values(identity).every((value) => value !== ""))
        assert.deepStrictEqual(yield* admin.identity(), identity)
      }).pipe(withAdmin())
    )

    it.effect("lists the pumps as they said last, and forgets those that leave", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        assert.deepStrictEqual(yield* admin.pumps(), [])
        const report = (id: string, startedAt: number): PumpStatus.PumpReport => ({
          id,
          host: "node-7",
          pid: 4711,
          version: "1",
          startedAt,
          state: "idle",
          since: 5,
          sink: "file",
          published: 0
        })
        yield* admin.attend(report("p2", 20))
        yield* admin.attend(report("p1", 10))
        const troubled: PumpStatus.PumpReport = {
          ...report("p2", 20),
          state: "unavailable",
          rate: 0.5,
          lastPublishedAt: 7,
          trouble: { of: "sink", message: 'refused "it"\n\u2028', since: 6 }
        }
        yield* admin.attend(troubled)
        const pumps = yield* admin.pumps()
        assert.deepStrictEqual(
          pumps.map((pump) => Struct.omit(pump, "seenAt")),
          [
            { ...report("p1", 10), lost: false },
            { ...troubled, lost: false }
          ]
        )
        yield* admin.leave("p1")
        yield* admin.leave("unknown")
        assert.deepStrictEqual(
          (yield* admin.pumps()).map(({ id }) => id),
          ["p2"]
        )
      }).pipe(withAdmin())
    )

    it.effect("describes an empty outbox", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        const none = { value: 0, exact: true }
        assert.deepStrictEqual(yield* admin.overview({ limit: 10 }), {
          pending: none,
          waiting: none,
          parked: none,
          drawn: 0,
          lanes: []
        })
        assert.deepStrictEqual(yield* admin.events({}, { limit: 10 }), { events: [] })
        assert.deepStrictEqual(yield* admin.audit({ limit: 10 }), { entries: [] })
        assert.deepStrictEqual(yield* admin.event("e1"), Option.none())
        assert.strictEqual(yield* admin.redrive({}, by), 0)
        assert.deepStrictEqual(yield* entries, [])
      }).pipe(withAdmin())
    )

    it.effect("counts the backlog in total and by lane, with the heads", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        yield* oneOfEach
        const overview = yield* admin.overview({ limit: 1_000 })
        const one = { value: 1, exact: true }
        assert.deepInclude(overview, {
          pending: { value: 2, exact: true },
          waiting: one,
          parked: one,
          oldestPendingAt: 1_000_000,
          drawn: 4
        })
        const heads = overview.lanes.flatMap(({ head }) => (head === undefined ? [] : [head]))
        assert.sameDeepMembers(heads, [
          {
            eventId: "waiting",
            type: "tenant.created",
            orderingKey: "c",
            createdAt: 1_000_000,
            attemptCount: 1,
            nextAttemptAt: 1_060_000,
            lastError: heads.find(({ eventId }) => eventId === "waiting")!.lastError!
          },
          { eventId: "pending", type: "tenant.created", orderingKey: "dora", createdAt: 1_010_000, attemptCount: 0 }
        ])
        const sum = (counts: ReadonlyArray<{ readonly value: number }>) =>
          counts.reduce((sum, { value }) => sum + value, 0)
        assert.strictEqual(sum(overview.lanes.map(({ pending }) => pending)), 2)
        assert.strictEqual(sum(overview.lanes.map(({ parked }) => parked)), 1)
      }).pipe(withAdmin())
    )

    it.effect("counts up to the limit, in a lane up to a 64th of it", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        yield* append(...Array.from({ length: 200 }, (_, n) => event(`e${n}`)))
        const { lanes, pending } = yield* admin.overview({ limit: 128 })
        assert.deepStrictEqual(pending, { value: 128, exact: false })
        assert.deepStrictEqual(
          lanes.map(({ pending }) => pending),
          [{ value: 2, exact: false }]
        )
        assert.deepStrictEqual((yield* admin.overview({ limit: 201 })).pending, { value: 200, exact: true })
      }).pipe(withAdmin())
    )

    it.effect("pages through the events that match a filter, newest first", () =>
      Effect.gen(function* () {
        yield* oneOfEach
        yield* append(event("newest", "a"))
        const all = ["newest", "pending", "waiting", "published", "parked"]
        for (const limit of [1, 2, 5, 6]) assert.deepStrictEqual(yield* eventsOf({}, limit), all)
        const cases: ReadonlyArray<readonly [OutboxAdmin.EventFilter, ReadonlyArray<string>]> = [
          [{ state: "pending" }, ["newest", "pending", "waiting"]],
          [{ state: "waiting" }, ["waiting"]],
          [{ state: "parked" }, ["parked"]],
          [{ state: "published" }, ["published"]],
          [{ type: "key.changed" }, ["published"]],
          [{ tenantId: "a" }, ["newest", "parked"]],
          [{ orderingKey: "a" }, ["newest", "parked"]],
          [{ orderingKey: "a", state: "parked" }, ["parked"]],
          [{ orderingKey: "c", state: "pending" }, ["waiting"]],
          [{ orderingKey: "" }, []],
          [{ tenantId: "a", type: "key.changed" }, []],
          [{ eventId: "pending" }, ["pending"]],
          [{ eventId: "pending", state: "parked" }, []],
          [{ eventId: "none" }, []],
          [{ since: 1_010_000 }, ["newest", "pending"]],
          [{ until: 1_010_000 }, ["waiting", "published", "parked"]],
          [{ since: 1_000_000, until: 1_000_001, state: "waiting" }, ["waiting"]]
        ]
        for (const [filter, ids] of cases) {
          assert.deepStrictEqual(yield* eventsOf(filter, 1), ids, JSON.stringify(filter))
          assert.deepStrictEqual(yield* eventsOf(filter, 100), ids, JSON.stringify(filter))
        }
      }).pipe(withAdmin())
    )

    it.effect("keeps its place while events come and go", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        yield* append(event("e1"), event("e2"), event("e3"), event("e4"))
        const { events, next } = yield* admin.events({ state: "pending" }, { limit: 2 })
        assert.deepStrictEqual(
          events.map(({ eventId }) => eventId),
          ["e4", "e3"]
        )
        yield* append(event("e5"))
        yield* admin.discard("e3", by)
        const rest = yield* admin.events({ state: "pending" }, { limit: 2, cursor: next })
        assert.deepStrictEqual(
          rest.events.map(({ eventId }) => eventId),
          ["e2", "e1"]
        )
      }).pipe(withAdmin())
    )

    it.effect("rejects an invalid cursor", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        for (const cursor of ["", "x", "-1", "0", "1;", "1".repeat(19)]) {
          const ofEvents = yield* Effect.flip(admin.events({}, { limit: 1, cursor }))
          const ofAudit = yield* Effect.flip(admin.audit({ limit: 1, cursor }))
          assert.deepStrictEqual([ofEvents._tag, ofAudit._tag], ["InvalidCursor", "InvalidCursor"])
        }
      }).pipe(withAdmin())
    )

    it.effect("shows an event with its exact payload and its failed attempts, newest first", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        const outbox = yield* Outbox.Outbox
        const sink = yield* MemorySink.MemorySink
        yield* TestClock.setTime(1_000_000)
        yield* outbox.withTransaction(outbox.append({ ...event("e1"), b: 1, a: "<i>ü</i>" }))
        yield* sink.failEvent("e1", { times: 1 })
        yield* drain
        yield* TestClock.adjust("1 minute")
        yield* sink.rejectEvent("e1", { times: 1 })
        yield* drain
        const { failedAttempts, payload, ...summary } = Option.getOrThrow(yield* admin.event("e1"))
        const written = `{"event_id":"e1","type":"tenant.created","tenant_id":"t1","b":1,"a":"<i>ü</i>","created_at":"1970-01-01T00:16:40.000Z"}`
        assert.strictEqual(payload, written)
        assert.deepInclude(summary, { payloadBytes: Buffer.byteLength(written) })
        assert.deepStrictEqual(
          failedAttempts.map(({ at, nextAttemptAt }) => [at, nextAttemptAt]),
          [
            [1_060_000, undefined],
            [1_000_000, 1_060_000]
          ]
        )
        assert.deepInclude(summary, {
          state: "parked",
          attemptCount: 2,
          createdAt: 1_000_000,
          lastAttemptAt: 1_060_000,
          parkedAt: 1_060_000,
          lastError: failedAttempts[0]!.error
        })
        assert.notStrictEqual(failedAttempts[0]!.error, failedAttempts[1]!.error)
        const page = yield* admin.events({}, { limit: 1 })
        assert.deepStrictEqual(page.events, [Struct.omit(summary, "traceparent", "payloadBytes")])
      }).pipe(withAdmin())
    )

    it.effect("shows the beginning of a large payload, and returns all of it in pieces", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        const outbox = yield* Outbox.Outbox
        const text = "ü😀".repeat(400_000)
        yield* outbox.withTransaction(outbox.append({ ...event("e1"), text }))
        const { payload, payloadBytes, payloadCut } = Option.getOrThrow(yield* admin.event("e1"))
        assert.isTrue(payloadCut)
        assert.isAtMost(payload.length, 2 * 256 * 1024)
        const { bytes, pieces } = yield* admin.payload("e1")
        const whole = yield* Stream.mkString(Stream.decodeText(pieces))
        assert.deepStrictEqual([bytes, payloadBytes], [Buffer.byteLength(whole), bytes])
        assert.strictEqual((JSON.parse(whole) as { text: string }).text, text)
        assert.isTrue(whole.startsWith(payload))
        const missing = yield* Effect.flip(admin.payload("none"))
        assert.strictEqual(missing._tag, "EventNotFound")
      }).pipe(withAdmin())
    )

    it.effect("bounds the error that it keeps, of the event and of each attempt", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        const sink = yield* MemorySink.MemorySink
        yield* append(event("e1"), event("e2", "t2"))
        yield* sink.script(({ events }) =>
          Effect.succeed(
            events.map(({ eventId }) =>
              String(eventId) === "e1"
                ? new Sink.EventFailed({ eventId, message: "😀".repeat(300_000) })
                : new Sink.EventRejected({ eventId, message: "\u0000no".repeat(300_000) })
            )
          )
        )
        yield* drain
        for (const id of ["e1", "e2"]) {
          const { failedAttempts, lastError } = Option.getOrThrow(yield* admin.event(id))
          assert.strictEqual(Array.from(lastError!).length, 200)
          assert.deepStrictEqual(
            failedAttempts.map(({ error }) => error),
            [lastError!]
          )
        }
      }).pipe(withAdmin())
    )

    it.effect("keeps the last 20 failed attempts of an event", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        const sink = yield* MemorySink.MemorySink
        yield* append(event("e1"), event("e2", "t2"))
        yield* sink.failEvent("e1", { times: 25 })
        yield* sink.failEvent("e2", { times: 1 })
        for (let attempt = 0; attempt < 25; attempt++) {
          yield* drain
          yield* TestClock.adjust("1 minute")
        }
        const { attemptCount, failedAttempts } = Option.getOrThrow(yield* admin.event("e1"))
        assert.strictEqual(attemptCount, 25)
        assert.deepStrictEqual(
          failedAttempts.map(({ at }) => at / 60_000),
          Array.from({ length: 20 }, (_, n) => 24 - n)
        )
        assert.lengthOf(Option.getOrThrow(yield* admin.event("e2")).failedAttempts, 1)
      }).pipe(withAdmin())
    )

    it.effect("redrives the parked events of a filter, one, or all, and records who and why", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        const sink = yield* MemorySink.MemorySink
        yield* append(event("a1", "a"), event("a2", "a"), event("b1", "b"), event("c1", "c"), event("good", "d"))
        for (const id of ["a1", "a2", "b1", "c1"]) yield* sink.rejectEvent(id, { times: 1 })
        yield* drain
        assert.strictEqual(yield* admin.redrive({ state: "pending" }, by), 0)
        assert.strictEqual(yield* admin.redrive({ eventId: "good" }, by), 0)
        assert.strictEqual(yield* admin.redrive({ eventId: "c1" }, by), 1)
        assert.strictEqual(yield* admin.redrive({ tenantId: "a" }, by), 2)
        assert.deepStrictEqual(yield* eventsOf({ state: "parked" }), ["b1"])
        const a1 = Option.getOrThrow(yield* admin.event("a1"))
        assert.deepInclude(a1, { state: "pending", attemptCount: 0 })
        assert.lengthOf(a1.failedAttempts, 1)
        assert.strictEqual(yield* admin.redrive({}, by), 1)
        assert.strictEqual(yield* admin.redrive({}, by), 0)
        yield* drain
        assert.deepStrictEqual((yield* published).slice(1).toSorted(), ["a1", "a2", "b1", "c1"])
        const done = { action: "redrive", ...by, at: 0 }
        assert.deepStrictEqual(yield* entries, [
          { ...done, filter: {}, affected: 1 },
          { ...done, filter: { tenantId: "a" }, affected: 2 },
          { ...done, eventId: "c1", affected: 1 }
        ] as never)
      }).pipe(withAdmin())
    )

    it.effect("parks a pending event, waiting or not, and no other", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        yield* oneOfEach
        for (const id of ["pending", "waiting"]) yield* admin.park(id, by)
        const { lastError, nextAttemptAt, parkedAt, state } = Option.getOrThrow(yield* admin.event("waiting"))
        assert.deepStrictEqual(
          [state, parkedAt, nextAttemptAt, lastError],
          ["parked", 1_010_000, undefined, "Parked by an operator: the ticket"]
        )
        assert.deepInclude({ ...(yield* drain) }, { published: 0, failed: 0 })
        for (const id of ["published", "parked"]) {
          const refused = yield* Effect.flip(admin.park(id, by))
          assert.deepInclude({ ...refused }, { _tag: "WrongState", eventId: id, state: id } as never)
          assert.strictEqual(refused.message, `The event is ${id}: only one that is pending can be parked`)
        }
        assert.strictEqual((yield* Effect.flip(admin.park("none", by)))._tag, "EventNotFound")
        assert.deepStrictEqual(
          (yield* entries).map(({ action, actor, eventId, reason }) => [action, eventId, actor, reason]),
          [
            ["park", "waiting", by.actor, by.reason],
            ["park", "pending", by.actor, by.reason]
          ]
        )
      }).pipe(withAdmin())
    )

    it.effect("publishes a redriven event in its old place, even if it was parked long ago", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        yield* append(event("e1"), event("e2"))
        yield* admin.park("e1", by)
        yield* drain
        for (let n = 0; n < 3; n++) {
          yield* append(event(`later ${n}`))
          yield* drain
        }
        yield* append(event("last"))
        yield* admin.redrive({ eventId: "e1" }, by)
        yield* drain
        assert.deepStrictEqual(yield* published, ["e2", "later 0", "later 1", "later 2", "e1", "last"])
      }).pipe(withAdmin())
    )

    it.effect("discards an event whose publish had no answer, and leaves it in the feed", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        const sink = yield* MemorySink.MemorySink
        yield* append(event("e1"))
        yield* sink.script(MemorySink.loseAnswer)
        yield* Effect.exit(drain)
        assert.deepInclude({ ...Option.getOrThrow(yield* admin.event("e1")) }, { state: "pending" })
        yield* admin.discard("e1", by)
        assert.deepStrictEqual(yield* admin.event("e1"), Option.none())
        assert.deepStrictEqual(yield* published, ["e1"])
      }).pipe(withAdmin())
    )

    it.effect("discards an unpublished event for good, and what waited for it continues", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        yield* oneOfEach
        yield* append(event("behind parked", "a"), event("behind waiting", "c"))
        yield* drain
        assert.deepStrictEqual(yield* published, ["published", "pending"])
        for (const id of ["parked", "waiting"]) {
          yield* admin.discard(id, by)
          assert.deepStrictEqual(yield* admin.event(id), Option.none())
          assert.strictEqual((yield* Effect.flip(admin.discard(id, by)))._tag, "EventNotFound")
        }
        yield* drain
        assert.deepStrictEqual((yield* published).slice(2).toSorted(), ["behind parked", "behind waiting"])
        const refused = yield* Effect.flip(admin.discard("published", by))
        assert.deepInclude({ ...refused }, { _tag: "WrongState", state: "published" })
        assert.deepStrictEqual(
          (yield* entries).map(({ action, eventId }) => [action, eventId]),
          [
            ["discard", "waiting"],
            ["discard", "parked"]
          ]
        )
      }).pipe(withAdmin({ afterParked: "wait" }))
    )

    it.effect("waits for a publish that is in flight, and touches no event that it has published", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        yield* append(event("e1"), event("e2"))
        const parking = yield* Effect.scoped(
          Effect.gen(function* () {
            const claim = yield* claimAll
            const parking = yield* Effect.fork(
              Effect.all([Effect.either(admin.park("e1", by)), Effect.either(admin.discard("e2", by))], {
                concurrency: 2
              })
            )
            // Neither can have been done before: nothing says when they begin to wait.
            yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 200)))
            const states = [yield* admin.event("e1"), yield* admin.event("e2")].map(Option.getOrThrow)
            assert.deepStrictEqual(
              states.map(({ state }) => state),
              ["pending", "pending"]
            )
            yield* claim.settle({
              now: 0,
              published: [{ id: claim.rows[0].id, version: ControlVersion.make(1) }],
              failed: [],
              parked: []
            })
            return parking
          })
        )
        const [parked, discarded] = yield* Fiber.join(parking)
        assert.deepInclude(
          { ...(parked._tag === "Left" ? parked.left : {}) },
          { _tag: "WrongState", state: "published" }
        )
        assert.strictEqual(discarded._tag, "Right")
      }).pipe(withAdmin())
    )

    it.effect("prunes what was published too long ago, oldest first and a batch at a time", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        yield* oneOfEach
        yield* admin.discard("pending", by)
        yield* append(event("e1"), event("e2"), event("e3"))
        yield* drain
        yield* TestClock.adjust("1 hour")
        yield* append(event("e4"))
        yield* drain
        const prune = Effect.gen(function* () {
          let removed = 0
          for (;;) {
            const batch = yield* admin.prune({ _tag: "Age", age: "30 minutes" }, { limit: 2 })
            assert.isAtMost(batch.removed, 2)
            removed += batch.removed
            if (!batch.more) return removed
          }
        })
        assert.strictEqual(yield* prune, 4)
        assert.deepStrictEqual(yield* eventsOf({}), ["e4", "waiting", "parked"])
        assert.strictEqual(yield* prune, 0)
        yield* TestClock.adjust("29 minutes")
        assert.strictEqual(yield* prune, 0)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* prune, 1)
      }).pipe(withAdmin())
    )

    it.effect("prunes all but the newest published ones", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        yield* oneOfEach
        yield* append(...Array.from({ length: 10 }, (_, n) => event(`e${n}`)))
        yield* drain
        yield* append(event("newest"))
        const prune = Effect.gen(function* () {
          let removed = 0
          for (;;) {
            const batch = yield* admin.prune({ _tag: "Count", count: 3 }, { limit: 4 })
            removed += batch.removed
            if (!batch.more) return removed
          }
        })
        assert.strictEqual(yield* prune, 9)
        const kept = ["newest", "e9", "e8", "e7", "waiting", "parked"]
        assert.deepStrictEqual(yield* eventsOf({}), kept)
        assert.strictEqual(yield* prune, 0)
        yield* drain
        assert.strictEqual(yield* prune, 1)
        assert.deepStrictEqual(yield* eventsOf({}), ["newest", "e9", "e8", "waiting", "parked"])
      }).pipe(withAdmin())
    )

    it.effect("erases the payload of a published event and its errors, and names what still has it", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        const outbox = yield* Outbox.Outbox
        const sink = yield* MemorySink.MemorySink
        const checksum = `sha256:${"0".repeat(64)}`
        yield* outbox.withTransaction(
          outbox.append({
            ...event("e1", "t1", "stack.activated"),
            stack_id: "s1",
            version: 7,
            name: "Ada",
            artifact_ref: "a/1",
            checksum
          })
        )
        yield* sink.failEvent("e1", { times: 1 })
        yield* drain
        yield* TestClock.adjust("1 minute")
        yield* drain
        const erased = yield* admin.erase("e1", by)
        assert.deepInclude({ ...erased }, { eventId: "e1", controlVersion: 1, artifactRef: "a/1" })
        assert.match(erased.remains.join(), /The feed has the payload as control version 1.*The artifact a\/1.*Backups/)
        const { failedAttempts, lastError, payload, state } = Option.getOrThrow(yield* admin.event("e1"))
        assert.deepStrictEqual([failedAttempts, lastError, state], [[], undefined, "published"])
        assert.notInclude(payload, "Ada")
        assert.notInclude(payload, "artifact")
        const marker = Either.getOrThrow(ControlEvent.validateUnpublished(JSON.parse(payload)))
        assert.deepInclude({ ...marker } as Record<string, unknown>, {
          event_id: "e1",
          type: "stack.activated",
          tenant_id: "t1",
          stack_id: "s1",
          version: 7,
          erased: true
        })
        assert.strictEqual((yield* admin.erase("e1", by)).controlVersion, 1)
        assert.deepInclude((yield* entries)[0]!, { action: "erase", ...by, eventId: "e1", affected: 1 })
      }).pipe(withAdmin())
    )

    it.effect("erases no pending event, and a discarded one in the audit log", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        yield* oneOfEach
        for (const id of ["pending", "waiting", "parked"]) {
          const refused = yield* Effect.flip(admin.erase(id, by))
          assert.deepInclude({ ...refused }, { _tag: "WrongState", state: id } as never)
          assert.match(refused.message, /Discard this one first/)
        }
        assert.strictEqual((yield* Effect.flip(admin.erase("none", by)))._tag, "EventNotFound")
        yield* admin.discard("pending", by)
        const { controlVersion, remains } = yield* admin.erase("pending", by)
        assert.isUndefined(controlVersion)
        assert.notInclude(remains.join(), "feed")
        assert.deepStrictEqual(
          (yield* entries).map(({ action }) => action),
          ["erase", "discard"]
        )
      }).pipe(withAdmin())
    )

    it.effect("lists changes without reads and refusals if asked", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        for (const action of ["pause", "read", "refused", "resume", "read"] as const) {
          yield* admin.record(action, by, action === "read" ? { eventId: "e1" } : {})
        }
        const listed = (page: Parameters<typeof admin.audit>[0]) =>
          Effect.map(admin.audit(page), ({ entries, next }) => [entries.map(({ action }) => action), next] as const)
        assert.deepStrictEqual(yield* listed({ limit: 9 }), [["read", "resume", "refused", "read", "pause"], undefined])
        const [first, next] = yield* listed({ limit: 1, changesOnly: true })
        assert.deepStrictEqual(first, ["resume"])
        assert.deepStrictEqual(yield* listed({ limit: 1, changesOnly: true, cursor: next }), [["pause"], undefined])
        assert.deepInclude((yield* entries)[0]!, { action: "read", eventId: "e1" })
      }).pipe(withAdmin())
    )

    it.effect("pages through the audit log", () =>
      Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        for (const reason of ["1", "2", "3", "4", "5"]) {
          yield* TestClock.adjust("1 second")
          yield* admin.record("pause", { actor: "ann", reason })
        }
        const first = yield* admin.audit({ limit: 3 })
        const second = yield* admin.audit({ limit: 3, cursor: first.next })
        assert.deepStrictEqual(first.entries[0], { at: 5_000, action: "pause", actor: "ann", reason: "5" })
        assert.deepStrictEqual(
          [...first.entries, ...second.entries].map(({ reason }) => reason),
          ["5", "4", "3", "2", "1"]
        )
        assert.isUndefined(second.next)
      }).pipe(withAdmin())
    )
  })
}
