/**
 * The store of the artifacts to which events refer.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { checksumOf, referenceOf } from "./internal/checksum.js"

/**
 * Stores artifacts by their contents: the same bytes have the same reference, wherever and however often they are put.
 * Its methods are those of an object store: put, get, list, remove.
 *
 * @since 0.1.0
 * @category models
 */
export class ArtifactStore extends Context.Tag("controlpublish/ArtifactStore")<
  ArtifactStore,
  {
    /** Stores bytes durably. Bytes that are already there stay, and count as new again for `list`. */
    readonly put: (bytes: Uint8Array) => Effect.Effect<Reference, ArtifactError>
    /** Returns the bytes after it has verified their checksum. */
    readonly get: (reference: Reference) => Effect.Effect<Uint8Array, ArtifactError>
    /** Lists every artifact, in no order. */
    readonly list: Stream.Stream<Artifact, ArtifactError>
    /**
     * Removes an artifact that was not put after the instant, in milliseconds since the epoch. Returns whether it
     * removed one. A concurrent `put` of the same bytes wins.
     */
    readonly remove: (artifactRef: string, notPutAfter: number) => Effect.Effect<boolean, ArtifactError>
  }
>() {}

/**
 * An event's reference to its artifact.
 *
 * @since 0.1.0
 * @category models
 */
export interface Reference {
  readonly artifact_ref: string
  /** `sha256:` and 64 hexadecimal digits. */
  readonly checksum: string
}

/**
 * A stored artifact.
 *
 * @since 0.1.0
 * @category models
 */
export interface Artifact {
  readonly artifactRef: string
  /** When it was last put, in milliseconds since the epoch. */
  readonly putAt: number
}

/**
 * An artifact cannot be read or stored.
 *
 * - `missing`: the store has no such artifact.
 * - `corrupt`: its bytes have another checksum.
 * - `invalid`: the reference is not valid in this store.
 * - `unavailable`: the store cannot be read or written now.
 *
 * @since 0.1.0
 * @category errors
 */
export class ArtifactError extends Schema.TaggedError<ArtifactError>("controlpublish/ArtifactError")("ArtifactError", {
  /** The reference, `""` if there is none yet. */
  artifactRef: Schema.String,
  reason: Schema.Literal("missing", "corrupt", "invalid", "unavailable"),
  message: Schema.String,
  cause: Schema.optionalWith(Schema.Defect, { exact: true })
}) {}

/**
 * Verifies bytes against a checksum. Fails with `corrupt`. For implementations of stores.
 *
 * @since 0.1.0
 * @category constructors
 */
export const verify = (
  bytes: Uint8Array,
  { artifact_ref, checksum }: Reference
): Effect.Effect<Uint8Array, ArtifactError> => {
  const found = checksumOf(bytes)
  return found === checksum.toLowerCase()
    ? Effect.succeed(bytes)
    : new ArtifactError({
        artifactRef: artifact_ref,
        reason: "corrupt",
        message: `The artifact ${JSON.stringify(artifact_ref)} is corrupt: its ${bytes.length} bytes have the checksum ${found}, the event says ${checksum}`
      })
}

/**
 * Provides an empty store in memory.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory: Layer.Layer<ArtifactStore> = Layer.sync(ArtifactStore, () => {
  const artifacts = new Map<string, { readonly bytes: Uint8Array; readonly putAt: number }>()
  return {
    put: (bytes) =>
      Effect.map(Clock.currentTimeMillis, (putAt) => {
        const reference = referenceOf(bytes)
        artifacts.set(reference.artifact_ref, { bytes: bytes.slice(), putAt })
        return reference
      }),
    get: (reference) =>
      Effect.suspend(() => {
        const found = artifacts.get(reference.artifact_ref)
        return found === undefined ? missing(reference.artifact_ref) : verify(found.bytes.slice(), reference)
      }),
    list: Stream.suspend(() =>
      Stream.fromIterable(Array.from(artifacts, ([artifactRef, { putAt }]) => ({ artifactRef, putAt })))
    ),
    remove: (artifactRef, notPutAfter) =>
      Effect.sync(() => {
        const found = artifacts.get(artifactRef)
        return found !== undefined && found.putAt <= notPutAfter && artifacts.delete(artifactRef)
      })
  }
})

/**
 * Provides a store without artifacts, for nodes whose events have none.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNone: Layer.Layer<ArtifactStore> = Layer.sync(ArtifactStore, () => {
  const none = (artifactRef: string) =>
    new ArtifactError({
      artifactRef,
      reason: "unavailable",
      message: `This node has no artifact store${artifactRef === "" ? "" : `, and an event refers to ${JSON.stringify(artifactRef)}`}`
    })
  return {
    put: () => none(""),
    get: ({ artifact_ref }) => none(artifact_ref),
    list: Stream.empty,
    remove: () => Effect.succeed(false)
  }
})

/**
 * The error of a missing artifact. For implementations of stores.
 *
 * @since 0.1.0
 * @category constructors
 */
export const missing = (artifactRef: string): ArtifactError =>
  new ArtifactError({
    artifactRef,
    reason: "missing",
    message: `The artifact ${JSON.stringify(artifactRef)} is not in the store`
  })
