/**
 * The outbox and its wake-up in PostgreSQL, as one layer.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import { OutboxStore } from "../OutboxStore.js"
import { WakeUp } from "../WakeUp.js"
import * as Migrator from "./internal/migrator.js"
import * as Names from "./internal/names.js"
import * as Migrations from "./Migrations.js"
import * as PostgresOutboxStore from "./PostgresOutboxStore.js"
import * as PostgresWakeUp from "./PostgresWakeUp.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "../internal/layerConfig.js"

/**
 * Where the outbox is, and how to listen for its wake-ups.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The PostgreSQL schema of the outbox. Default `public`. */
  readonly schema?: string | undefined
  /**
   * A URL for the connection that listens for appends, if the `PgClient` connects through a pooler. Default: the URL of
   * the `PgClient`.
   */
  readonly directUrl?: Redacted.Redacted | undefined
}

/**
 * Provides the store and the wake-up for the database of the `PgClient`.
 *
 * Fails with `SchemaMismatch` if the tables are missing or have another version: provide `Migrations.layer`, or run
 * `controlpublish migrate` first. Fails with `SequenceBehind` if appends would break the order, as after a restore
 * without the sequence. If the database does not answer at the start, the layer logs it and skips the check.
 *
 * Appends join the transactions of that client. The pump has its own connections with the same settings, opened on
 * demand. If the listening connection leads through a pooler, it logs one warning, keeps no session state, and the pump
 * polls. Set `directUrl` to keep the wake-up there.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: Options = {}
): Layer.Layer<OutboxStore | WakeUp, Migrations.SchemaMismatch | Migrations.SequenceBehind, PgClient.PgClient> =>
  Layer.scopedContext(
    Effect.gen(function* () {
      const { schema = "public" } = options
      const names = Names.make(schema)
      const check = Effect.provideService(Migrations.check({ schema }), SqlClient.SqlClient, yield* PgClient.PgClient)
      yield* Migrator.atStart(schema, "--grant-append ROLE", check)
      const store = yield* PostgresOutboxStore.make(names)
      const wakeUp = yield* PostgresWakeUp.make(names, options.directUrl)
      return Context.make(OutboxStore, store).pipe(Context.add(WakeUp, wakeUp))
    })
  )

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @example
 * import { Postgres } from "controlpublish/postgres"
 * import { Config } from "effect"
 *
 * export const Store = Postgres.layerConfig({ schema: Config.string("OUTBOX_SCHEMA").pipe(Config.withDefault("public")) })
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<
  Options,
  OutboxStore | WakeUp,
  Migrations.SchemaMismatch | Migrations.SequenceBehind,
  PgClient.PgClient
> = makeLayerConfig(layer)
