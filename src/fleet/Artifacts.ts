/**
 * Artifacts and the events that refer to them, for producers.
 *
 * @since 0.1.0
 */
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type * as ControlEvent from "../ControlEvent.js"
import type { EventId } from "../EventId.js"
import { Outbox, type AppendError, type AppendOptions } from "../Outbox.js"
import type { OutboxError } from "../OutboxStore.js"
import { ArtifactStore, type Artifact, type ArtifactError, type Reference } from "./ArtifactStore.js"

/**
 * An artifact, its change and its event.
 *
 * @since 0.1.0
 * @category models
 */
export interface CommitOptions<A, E, R> extends AppendOptions {
  readonly artifact: Uint8Array
  /** Changes the database, in the transaction. */
  readonly change: (reference: Reference) => Effect.Effect<A, E, R>
  /** The event of the change. `artifact_ref` and `checksum` are added. */
  readonly event: (changed: A) => ControlEvent.Input
}

/**
 * The result of a commit.
 *
 * @since 0.1.0
 * @category models
 */
export interface Committed<A> {
  readonly changed: A
  readonly eventId: EventId
  readonly reference: Reference
}

/**
 * Stores an artifact, then commits a change together with the event that refers to the artifact. So no event precedes
 * its artifact, and no transaction is open while the artifact is stored. A failed transaction leaves the artifact for
 * {@link sweep}. Call it outside a transaction.
 *
 * @example
 * import { SqlClient } from "@effect/sql"
 * import { Artifacts } from "controlpublish/fleet"
 * import { Effect } from "effect"
 *
 * export const publishPlan = (id: string, bytes: Uint8Array) =>
 *   Artifacts.commit({
 *     artifact: bytes,
 *     change: ({ artifact_ref }) =>
 *       Effect.flatMap(SqlClient.SqlClient, (sql) => sql`UPDATE tenants SET plan = ${artifact_ref} WHERE id = ${id}`),
 *     event: () => ({ type: "plan.changed", tenant_id: id })
 *   })
 *
 * @since 0.1.0
 * @category constructors
 */
export const commit = <A, E, R>(
  options: CommitOptions<A, E, R>
): Effect.Effect<Committed<A>, E | AppendError | OutboxError | ArtifactError, R | Outbox | ArtifactStore> =>
  Effect.gen(function* () {
    const outbox = yield* Outbox
    const store = yield* ArtifactStore
    const reference = yield* store.put(options.artifact)
    return yield* outbox.withTransaction(
      Effect.gen(function* () {
        const changed = yield* options.change(reference)
        const { orderingKey } = options
        const eventId = yield* outbox.append({ ...options.event(changed), ...reference }, { orderingKey })
        return { changed, eventId, reference }
      })
    )
  }).pipe(Effect.withSpan("Artifacts.commit"))

/**
 * Which artifacts a sweep removes.
 *
 * @since 0.1.0
 * @category models
 */
export interface SweepOptions<E, R> {
  /** Returns those of the references that are in use, see `PostgresArtifacts.inOutbox`. */
  readonly inUse: (artifactRefs: ReadonlyArray<string>) => Effect.Effect<Iterable<string>, E, R>
  /**
   * How long an artifact stays after it was last put, since its transaction may still be open. It must be longer than
   * any transaction. Default 1 day.
   */
  readonly grace?: Duration.DurationInput | undefined
  /** Removes nothing and returns what would be removed. Default `false`. */
  readonly dryRun?: boolean | undefined
}

/** Artifacts that are asked for at a time. */
const sweepSize = 1_000

/**
 * Removes the artifacts that failed transactions have left, to which nothing refers, and returns them. An artifact that
 * is put again meanwhile stays.
 *
 * @since 0.1.0
 * @category constructors
 */
export const sweep = <E, R>(
  options: SweepOptions<E, R>
): Effect.Effect<ReadonlyArray<Artifact>, E | ArtifactError, R | ArtifactStore> =>
  Effect.gen(function* () {
    const store = yield* ArtifactStore
    const notPutAfter = (yield* Clock.currentTimeMillis) - Duration.toMillis(options.grace ?? "1 day")
    const swept = yield* store.list.pipe(
      Stream.filter(({ putAt }) => putAt <= notPutAfter),
      Stream.grouped(sweepSize),
      Stream.mapEffect((old) =>
        Effect.gen(function* () {
          const refs = Array.from(old, ({ artifactRef }) => artifactRef)
          const used = new Set(yield* options.inUse(refs))
          const unused = Array.from(old).filter(({ artifactRef }) => !used.has(artifactRef))
          if (options.dryRun === true) return unused
          return yield* Effect.filter(unused, ({ artifactRef }) => store.remove(artifactRef, notPutAfter))
        })
      ),
      Stream.runCollect
    )
    return Chunk.toReadonlyArray(swept).flat()
  }).pipe(Effect.withSpan("Artifacts.sweep"))
