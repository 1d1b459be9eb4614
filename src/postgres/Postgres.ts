/**
 * The outbox and its wake-up in PostgreSQL, as one layer.
 *
 * @since 1.0.0
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { OutboxStore } from "../OutboxStore.js"
import { WakeUp } from "../WakeUp.js"
import * as Names from "./internal/names.js"
import * as PostgresOutboxStore from "./PostgresOutboxStore.js"
import * as PostgresWakeUp from "./PostgresWakeUp.js"

/**
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /** The PostgreSQL schema that holds the outbox. Default `public`. */
  readonly schema?: string | undefined
}

/**
 * The store and the wake-up for the database of the `PgClient`. The tables have to be there: see `Migrations`.
 *
 * Appends join the transactions of that client. The pump's work runs on connections of its own, opened when they are
 * needed with the same settings. LISTEN and the session lock of the wake-up do not pass a pooler in transaction mode:
 * behind one, provide `WakeUp.layerNone` over this layer.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<OutboxStore | WakeUp, never, PgClient.PgClient> =>
  Layer.scopedContext(
    Effect.gen(function* () {
      const names = Names.make(options.schema ?? "public")
      const store = yield* PostgresOutboxStore.make(names)
      const wakeUp = yield* PostgresWakeUp.make(names)
      return Context.make(OutboxStore, store).pipe(Context.add(WakeUp, wakeUp))
    })
  )
