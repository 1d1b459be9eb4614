/**
 * Creates and upgrades the tables of a node in SQLite, with a table of their own to remember it
 * (`controlpublish_fleet_migrations`).
 *
 * @since 0.1.0
 */
import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { AppliedEventsError } from "../fleet/AppliedEvents.js"
import { toError } from "./internal/failure.js"
import { initial } from "./internal/initial.js"

const migrations = { "0001_initial": initial }

/**
 * Runs the migrations that are missing. Other tables of the database stay as they are.
 *
 * @since 0.1.0
 * @category constructors
 */
export const run: Effect.Effect<void, AppliedEventsError, SqlClient.SqlClient> = Effect.gen(function* () {
  const client = yield* SqlClient.SqlClient
  const sql = client.withoutTransforms()
  const failed = toError("migrate")
  yield* Migrator.make({})({
    table: "controlpublish_fleet_migrations",
    loader: Migrator.fromRecord(
      Object.fromEntries(
        Object.entries(migrations).map(([name, statements]) => [
          name,
          Effect.forEach(statements, (statement) => sql.unsafe(statement), { discard: true })
        ])
      )
    )
  }).pipe(
    // A migration that fails is a defect to @effect/sql.
    Effect.catchAllCause((cause) => (Cause.isInterruptedOnly(cause) ? Effect.interrupt : failed(Cause.squash(cause))))
  )
})

/**
 * Migrates when the layer is built.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<never, AppliedEventsError, SqlClient.SqlClient> = Layer.effectDiscard(run)
