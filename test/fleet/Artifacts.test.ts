import { PgClient } from "@effect/sql-pg"
import { SqlClient } from "@effect/sql"
import { assert, describe, it, layer } from "@effect/vitest"
import { Chunk, Clock, Effect, Exit, Layer, Stream, TestClock } from "effect"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { Outbox } from "../../src/index.js"
import { FileArtifactStore } from "../../src/file/index.js"
import { Artifacts, ArtifactStore } from "../../src/fleet/index.js"
import { PostgresArtifacts } from "../../src/postgres/index.js"
import { MemoryOutboxStore } from "../../src/testing/index.js"
import { layerClient, layerOutbox } from "../support/postgres.js"

const bytes = (text: string) => new TextEncoder().encode(text)
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)
const list = Effect.flatMap(ArtifactStore.ArtifactStore, (store) =>
  Effect.map(Stream.runCollect(store.list), (found) =>
    Chunk.toReadonlyArray(found)
      .map(({ artifactRef }) => artifactRef)
      .sort()
  )
)

const temporary = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "artifacts-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
)

/** What every store does. */
const laws = (name: string, store: Layer.Layer<ArtifactStore.ArtifactStore>, more?: () => void) => {
  describe(name, () => {
    const test = (name: string, run: Effect.Effect<void, unknown, ArtifactStore.ArtifactStore>) => {
      it.effect(name, () => Effect.provide(run, store))
    }

    test(
      "gives back what was put, under the same reference however often it is put",
      Effect.gen(function* () {
        const store = yield* ArtifactStore.ArtifactStore
        const first = yield* store.put(bytes("rows"))
        assert.deepStrictEqual(yield* store.put(bytes("rows")), first)
        assert.match(first.checksum, /^sha256:[0-9a-f]{64}$/)
        assert.strictEqual(text(yield* store.get(first)), "rows")
        const other = yield* store.put(bytes(""))
        assert.notDeepEqual(other, first)
        assert.strictEqual((yield* store.get(other)).length, 0)
        assert.deepStrictEqual(yield* list, [first.artifact_ref, other.artifact_ref].sort())
      })
    )

    test(
      "keeps one artifact of many that are put at once with the same bytes",
      Effect.gen(function* () {
        const store = yield* ArtifactStore.ArtifactStore
        const puts = Array.from({ length: 20 }, () => store.put(bytes("same")))
        const [first] = yield* Effect.all(puts, { concurrency: "unbounded" })
        assert.strictEqual(text(yield* store.get(first!)), "same")
        assert.deepStrictEqual(yield* list, [first!.artifact_ref])
      })
    )

    test(
      "fails where there is none, and where its checksum is another",
      Effect.gen(function* () {
        const store = yield* ArtifactStore.ArtifactStore
        const reference = yield* store.put(bytes("rows"))
        const missing = yield* Effect.flip(
          store.get({ ...reference, artifact_ref: `${reference.artifact_ref.slice(0, -1)}x` })
        )
        assert.deepInclude({ ...missing }, { _tag: "ArtifactError", reason: "missing" })
        const corrupt = yield* Effect.flip(store.get({ ...reference, checksum: `sha256:${"0".repeat(64)}` }))
        assert.deepInclude({ ...corrupt }, { reason: "corrupt", artifactRef: reference.artifact_ref })
        assert.include(corrupt.message, reference.checksum)
        const upper = `sha256:${reference.checksum.slice(7).toUpperCase()}`
        assert.strictEqual(text(yield* store.get({ ...reference, checksum: upper })), "rows")
      })
    )

    test(
      "removes what was not put since, and nothing else",
      Effect.gen(function* () {
        const store = yield* ArtifactStore.ArtifactStore
        const { artifact_ref } = yield* store.put(bytes("rows"))
        const then = yield* Clock.currentTimeMillis
        assert.isFalse(yield* store.remove(artifact_ref, then - 1_000))
        yield* TestClock.adjust("1 hour")
        yield* store.put(bytes("rows"))
        assert.isFalse(yield* store.remove(artifact_ref, then + 1_000))
        assert.isTrue(yield* store.remove(artifact_ref, then + 3_600_000))
        assert.isFalse(yield* store.remove(artifact_ref, Infinity))
        assert.deepStrictEqual(yield* list, [])
      })
    )

    more?.()
  })
}

laws("ArtifactStore in memory", ArtifactStore.layerMemory)

const inDirectory = Layer.unwrapScoped(Effect.map(temporary, (directory) => FileArtifactStore.layer({ directory })))

laws("ArtifactStore in files", inDirectory, () => {
  const test = (
    name: string,
    run: (directory: string, store: ArtifactStore.ArtifactStore["Type"]) => Effect.Effect<void, unknown>
  ) =>
    it.scoped(name, () =>
      Effect.gen(function* () {
        const directory = Path.join(yield* temporary, "artifacts")
        yield* run(directory, yield* FileArtifactStore.make({ directory }))
      })
    )

  const checksum = `sha256:${"0".repeat(64)}`

  test("refuses references that lead out of its directory", (directory, store) =>
    Effect.gen(function* () {
      const { artifact_ref } = yield* store.put(bytes("rows"))
      yield* Effect.promise(async () => {
        await Fs.writeFile(Path.join(directory, "..", "secret"), "secret")
        await Fs.symlink(Path.join(directory, "..", "secret"), Path.join(directory, "link"))
        await Fs.symlink(Path.join(directory, ".."), Path.join(directory, "up"))
      })
      const refused = [
        "../secret",
        "a/../../secret",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a//b",
        "a\\..\\b",
        "\0",
        "link",
        "up/secret",
        ".tmp-1",
        "sha256"
      ]
      for (const artifact_ref of refused) {
        const error = yield* Effect.flip(store.get({ artifact_ref, checksum }))
        assert.strictEqual(error.reason, "invalid", JSON.stringify(artifact_ref))
      }
      assert.strictEqual((yield* Effect.flip(store.remove("../secret", Infinity))).reason, "invalid")
      assert.strictEqual(
        yield* Effect.promise(() => Fs.readFile(Path.join(directory, "..", "secret"), "utf8")),
        "secret"
      )
      assert.include(artifact_ref, "sha256/")
    }))

  test("reads what was brought there by other means, and does not sweep it", (directory, store) =>
    Effect.gen(function* () {
      const { checksum } = yield* store.put(bytes("rows"))
      yield* Effect.promise(() => Fs.mkdir(Path.join(directory, "tenants/t1"), { recursive: true }))
      yield* Effect.promise(() => Fs.writeFile(Path.join(directory, "tenants/t1/v3.json"), "rows"))
      assert.strictEqual(text(yield* store.get({ artifact_ref: "tenants/t1/v3.json", checksum })), "rows")
      const found = yield* Stream.runCollect(store.list)
      assert.strictEqual(found.length, 1)
    }))

  test("tells of damage, and mends it when the artifact is put again", (directory, store) =>
    Effect.gen(function* () {
      const reference = yield* store.put(bytes("rows"))
      yield* Effect.promise(() => Fs.truncate(Path.join(directory, reference.artifact_ref), 2))
      assert.strictEqual((yield* Effect.flip(store.get(reference))).reason, "corrupt")
      yield* store.put(bytes("rows"))
      assert.strictEqual(text(yield* store.get(reference)), "rows")
    }))

  test("keeps nothing where the disk does not take it, and can be used after that", (directory, store) =>
    Effect.gen(function* () {
      yield* Effect.promise(() => Fs.writeFile(directory, "a file in its place"))
      const error = yield* Effect.flip(store.put(bytes("rows")))
      assert.strictEqual(error.reason, "unavailable")
      assert.include(error.message, directory)
      yield* Effect.promise(() => Fs.rm(directory))
      const reference = yield* store.put(bytes("rows"))
      assert.strictEqual(text(yield* store.get(reference)), "rows")
      const names = yield* Effect.promise(() => Fs.readdir(directory))
      assert.deepStrictEqual(names, ["sha256"])
    }))

  test("keeps what is put at the very moment that a sweep removes it", (_, store) =>
    Effect.gen(function* () {
      for (let n = 0; n < 60; n++) {
        const reference = yield* store.put(bytes(`rows ${n}`))
        const then = yield* Clock.currentTimeMillis
        yield* TestClock.adjust("1 hour")
        const remove = store.remove(reference.artifact_ref, then)
        // Each a little later than the last time, from before the put to after it.
        const pause = Effect.promise(() => new Promise((resolve) => setTimeout(resolve, (n % 10) / 5)))
        yield* Effect.all([store.put(bytes(`rows ${n}`)), Effect.zipRight(pause, remove)], { concurrency: 2 })
        assert.strictEqual(text(yield* store.get(reference)), `rows ${n}`)
      }
    }))

  test("brings back what a sweep that died had taken away, but for what was put since", (directory, store) =>
    Effect.gen(function* () {
      const names = Effect.promise(() => Fs.readdir(directory))
      /** A sweep dies between the two steps of a removal. */
      const take = ({ artifact_ref }: ArtifactStore.Reference) =>
        Effect.promise(() =>
          Fs.rename(
            Path.join(directory, artifact_ref),
            Path.join(directory, `.tmp-taken-${artifact_ref.replaceAll("/", "-")}-1`)
          )
        )
      const lost = yield* store.put(bytes("lost"))
      const again = yield* store.put(bytes("again"))
      yield* take(lost)
      yield* take(again)
      yield* TestClock.adjust("1 hour")
      const putAt = yield* Clock.currentTimeMillis
      yield* store.put(bytes("again"))
      const listed = Array.from(yield* Stream.runCollect(store.list))
      assert.sameDeepMembers(listed, [
        { artifactRef: lost.artifact_ref, putAt: putAt - 3_600_000 },
        { artifactRef: again.artifact_ref, putAt }
      ])
      assert.strictEqual(text(yield* store.get(lost)), "lost")
      assert.deepStrictEqual(yield* names, ["sha256"])
    }))

  test("removes what processes that died have left unfinished", (directory, store) =>
    Effect.gen(function* () {
      yield* Effect.promise(async () => {
        await Fs.mkdir(directory)
        for (const name of [".tmp-old", ".tmp-young"]) await Fs.writeFile(Path.join(directory, name), "unfini")
        await Fs.utimes(Path.join(directory, ".tmp-old"), 0, 0)
        await Fs.utimes(Path.join(directory, ".tmp-young"), 25 * 3_600, 25 * 3_600)
      })
      yield* TestClock.adjust("26 hours")
      yield* store.put(bytes("rows"))
      assert.deepStrictEqual(yield* Effect.promise(() => Fs.readdir(directory)), [".tmp-young", "sha256"])
    }))
})

const event = () => ({ type: "plan.changed", tenant_id: "t1" })

describe("Artifacts", () => {
  const memory = Layer.mergeAll(ArtifactStore.layerMemory, Layer.provideMerge(Outbox.layer, MemoryOutboxStore.layer))

  const rows = Effect.flatMap(MemoryOutboxStore.MemoryOutboxStore, ({ rows }) => rows)

  it.effect("are there before the transaction opens, and the event refers to them", () =>
    Effect.gen(function* () {
      const store = yield* ArtifactStore.ArtifactStore
      const order: Array<string> = []
      const { changed, eventId, reference } = yield* Artifacts.commit({
        artifact: bytes("rows"),
        change: (reference) =>
          Effect.map(store.get(reference), (found) => {
            order.push(`change with ${text(found)}`)
            return 7
          }),
        event: (changed) => {
          order.push(`event of ${changed}`)
          return event()
        },
        orderingKey: "k"
      })
      assert.deepStrictEqual(order, ["change with rows", "event of 7"])
      assert.strictEqual(changed, 7)
      const [row] = yield* rows
      assert.deepInclude(row, { eventId, orderingKey: "k" })
      assert.deepInclude(JSON.parse(row!.payload), reference)
    }).pipe(Effect.provide(memory))
  )

  it.effect("stay after a failed transaction, until a sweep after the grace period", () =>
    Effect.gen(function* () {
      const commit = (artifact: string, change: Effect.Effect<void, string>) =>
        Artifacts.commit({ artifact: bytes(artifact), change: () => change, event })
      const inUse = () =>
        Effect.map(rows, (rows) =>
          rows.map(({ payload }) => (JSON.parse(payload) as { artifact_ref: string }).artifact_ref)
        )
      const { reference } = yield* commit("kept", Effect.void)
      assert.strictEqual(yield* Effect.flip(commit("left", Effect.fail("no"))), "no")
      assert.lengthOf(yield* rows, 1)
      assert.lengthOf(yield* list, 2)
      yield* TestClock.adjust("23 hours")
      assert.deepStrictEqual(yield* Artifacts.sweep({ inUse }), [], "its transaction may be open")
      yield* TestClock.adjust("2 hours")
      assert.lengthOf(yield* Artifacts.sweep({ inUse, dryRun: true }), 1)
      assert.lengthOf(yield* list, 2)
      assert.lengthOf(yield* Artifacts.sweep({ inUse }), 1)
      assert.deepStrictEqual(yield* list, [reference.artifact_ref])
    }).pipe(Effect.provide(memory))
  )

  it.effect("stay if they are put again during a sweep", () =>
    Effect.gen(function* () {
      const store = yield* ArtifactStore.ArtifactStore
      const { artifact_ref } = yield* store.put(bytes("rows"))
      yield* TestClock.adjust("2 days")
      const inUse = () => Effect.as(store.put(bytes("rows")), [])
      assert.deepStrictEqual(yield* Artifacts.sweep({ inUse }), [])
      assert.deepStrictEqual(yield* list, [artifact_ref])
    }).pipe(Effect.provide(inDirectory))
  )

  it.effect("stay if nobody can tell whether they are in use", () =>
    Effect.gen(function* () {
      const store = yield* ArtifactStore.ArtifactStore
      yield* store.put(bytes("rows"))
      yield* TestClock.adjust("2 days")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Artifacts.sweep({ inUse: () => Effect.fail("no database") }))))
      assert.lengthOf(yield* list, 1)
    }).pipe(Effect.provide(ArtifactStore.layerMemory))
  )

  const postgres = Layer.mergeAll(
    ArtifactStore.layerMemory,
    Layer.provideMerge(Outbox.layer, layerOutbox("public"))
  ).pipe(Layer.provideMerge(layerClient))

  layer(postgres, { excludeTestServices: true, timeout: 300_000 })("with PostgreSQL", (it) => {
    it.effect("commit with the change, and are found in the outbox, even in rows that SQL inserted", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* PgClient.PgClient
        yield* sql`CREATE TABLE plans (tenant text)`
        const commit = (artifact: string, tenant: string) =>
          Artifacts.commit({
            artifact: bytes(artifact),
            change: () =>
              Effect.zipRight(
                sql`INSERT INTO plans VALUES (${tenant})`,
                tenant === "" ? Effect.fail("no tenant") : Effect.void
              ),
            event
          })
        const { reference } = yield* commit("kept", "t1")
        yield* Effect.flip(commit("left", ""))
        assert.deepStrictEqual(yield* sql`SELECT tenant FROM plans`, [{ tenant: "t1" }])
        const payload = JSON.stringify({
          event_id: "by-hand",
          type: "x",
          artifact_ref: "by/hand",
          checksum: reference.checksum
        })
        yield* sql`INSERT INTO control_events_outbox (event_id, event_type, payload_json) VALUES ('by-hand', 'x', ${payload}::json)`
        const found = yield* PostgresArtifacts.inOutbox()([reference.artifact_ref, "by/hand", "by/nobody"])
        assert.sameMembers([...found], [reference.artifact_ref, "by/hand"])
        yield* Effect.sleep("5 millis")
        const swept = yield* Artifacts.sweep({ inUse: PostgresArtifacts.inOutbox(), grace: "1 millis" })
        assert.lengthOf(swept, 1)
        assert.deepStrictEqual(yield* list, [reference.artifact_ref])
      })
    )
  })
})
