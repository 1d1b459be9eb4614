/** Finds the running service that a command means: the one that publishes from the command's database and schema. */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import type { OutboxIdentity } from "../../OutboxAdmin.js"
import { OutboxAdmin } from "../../OutboxAdmin.js"
import * as AdminSettings from "../../admin/AdminSettings.js"
import * as PostgresOutboxAdmin from "../../postgres/PostgresOutboxAdmin.js"
import type * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import { failure, type CliError } from "./CliError.js"
import * as Database from "./database.js"
import type * as PumpClient from "./pumpClient.js"
import * as Services from "./services.js"
import { quote } from "./text.js"

const named = ({ database, schema }: { readonly database: string; readonly schema: string }): string =>
  `${database}, schema ${quote(schema)}`

const identityOf = (database: DatabaseSettings.Database): Effect.Effect<OutboxIdentity, CliError> =>
  Effect.flatMap(OutboxAdmin, (admin) => admin.identity()).pipe(
    Effect.provide(PostgresOutboxAdmin.layer(database)),
    Effect.provide(Database.layer(database)),
    Effect.mapError((error) =>
      error._tag === "OutboxError"
        ? Database.explain(database, error)
        : error._tag === "CliError"
          ? error
          : failure(error.message, error)
    )
  )

const isSame = (one: OutboxIdentity, other: OutboxIdentity): boolean =>
  one.server === other.server && one.database === other.database && one.schema === other.schema

/** One database may have several URLs, so the service is asked for its outbox before it is rejected. */
const refuseAnother = (
  service: PumpClient.Service,
  database: DatabaseSettings.Database,
  identityOfOurs: Effect.Effect<OutboxIdentity, CliError>
) =>
  Effect.gen(function* () {
    const { identity } = yield* Effect.promise(() => import("./pumpClient.js"))
    const theirs = yield* identity(service)
    if (isSame(theirs, yield* identityOfOurs)) return
    const wanted = named({ database: Database.describe(database), schema: database.schema })
    return yield* failure(
      `the service at ${service.url} publishes from another outbox (database ${quote(theirs.database)}, schema ${quote(theirs.schema)}) than this command uses (${wanted}): nothing was changed`
    )
  })

/** Whoever gives an address alone is told which outbox is behind it, as nothing was given to compare it with. */
const sayNotCompared = (service: PumpClient.Service) =>
  Effect.gen(function* () {
    const { identity } = yield* Effect.promise(() => import("./pumpClient.js"))
    const { database, schema } = yield* identity(service)
    yield* Console.error(
      `controlpublish: the service at ${service.url} publishes from database ${quote(database)}, schema ${quote(schema)}; DATABASE_URL is not set, so this was compared with nothing`
    )
  })

/**
 * Returns the service to talk to. `ADMIN_URL` names it. Without it, the running services of this directory are tried,
 * then the default address. A service of another database or schema is rejected, unless only `ADMIN_URL` was given.
 */
export const find = (
  { token, url }: AdminSettings.Client,
  database: DatabaseSettings.Database
): Effect.Effect<PumpClient.Service, CliError> =>
  Effect.gen(function* () {
    const described = { database: Database.describe(database), schema: database.schema }
    const ours = yield* Effect.cached(identityOf(database))
    const services = yield* Services.running
    const isMeant = (service: Services.Service) =>
      service.database === described.database && service.schema === described.schema
    if (url !== undefined) {
      const known = services.some((service) => service.url === url && isMeant(service))
      if (!known && !Database.isEmbedded(database)) yield* refuseAnother({ url, token }, database, ours)
      if (!known && Database.isEmbedded(database)) yield* sayNotCompared({ url, token })
      return { url, token }
    }
    const meant = services.filter(isMeant)
    if (meant.length === 1) return { url: meant[0]!.url, token }
    if (meant.length > 1) {
      return yield* failure(
        `${meant.length} services of this directory publish from ${named(described)}: choose one with ADMIN_URL (--admin-url): ${meant.map((each) => `${each.url} (process ${each.pid})`).join(", ")}`
      )
    }
    if (!Database.isEmbedded(database)) {
      const candidates = [...services.map((each) => each.url), AdminSettings.defaultUrl]
      const answers = candidates.map((url) => Effect.as(refuseAnother({ url, token }, database, ours), { url, token }))
      const found = yield* Effect.either(Effect.firstSuccessOf(answers))
      // The service at the default address, if no database was given.
      if (found._tag === "Right") return found.right
      if (services.length === 0) return yield* found.left
    }
    const others = services.map((each) => `${each.url} (process ${each.pid}) publishes from ${named(each)}`)
    return yield* failure(
      `no service of this directory publishes from ${named(described)}${others.length === 0 ? "" : `; ${others.join("; ")}`}: start serve here, or name the service with ADMIN_URL (--admin-url)`
    )
  })
