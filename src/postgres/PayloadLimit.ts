/**
 * The largest payload that an outbox accepts.
 *
 * @since 0.1.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Bounds from "../internal/bounds.js"
import * as Guarded from "./internal/guarded.js"
import { begin, describe } from "./internal/migrator.js"
import * as Names from "./internal/names.js"
import { withTransaction } from "./internal/transaction.js"

/**
 * The default limit in bytes of UTF-8.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultBytes: number = Bounds.payloadBytes

/**
 * The highest valid limit in bytes of UTF-8.
 *
 * @since 0.1.0
 * @category constants
 */
export const largestBytes: number = Bounds.largestPayloadBytes

/**
 * The limit was not set: it is invalid, the outbox is missing, or another role owns it.
 *
 * @since 0.1.0
 * @category errors
 */
export class PayloadLimitFailed extends Schema.TaggedError<PayloadLimitFailed>("controlpublish/PayloadLimitFailed")(
  "PayloadLimitFailed",
  {
    schema: Schema.String,
    message: Schema.String,
    cause: Schema.optionalWith(Schema.Defect, { exact: true })
  }
) {}

/**
 * Sets the largest payload in bytes of UTF-8, from 1 to `largestBytes`. Requires the owner of the outbox. Later appends
 * of larger payloads fail. Pending rows with larger payloads are parked.
 *
 * @since 0.1.0
 * @category constructors
 */
export const set = (
  bytes: number,
  { schema = "public" }: { readonly schema?: string | undefined } = {}
): Effect.Effect<void, PayloadLimitFailed, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    if (!Number.isInteger(bytes) || bytes < 1 || bytes > largestBytes) {
      const message = `Could not set the largest payload: got ${bytes} bytes, valid is an integer from 1 to ${largestBytes}`
      return yield* new PayloadLimitFailed({ schema, message })
    }
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    const failed = (cause: unknown) =>
      new PayloadLimitFailed({ schema, message: `Could not set the largest payload: ${describe(cause)}`, cause })
    yield* sql.unsafe(Guarded.setMaxPayloadBytes(Names.make(schema), bytes)).pipe(
      Effect.mapError(failed),
      withTransaction(sql, () => failed, begin)
    )
  })

/**
 * The SQL that `set` executes.
 *
 * @since 0.1.0
 * @category constructors
 */
export const print = (bytes: number, { schema = "public" }: { readonly schema?: string | undefined } = {}): string =>
  Guarded.setMaxPayloadBytes(Names.make(schema), bytes)
