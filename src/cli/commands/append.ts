/**
 * `controlpublish append`: appends one event from flags, or many from NDJSON.
 *
 * @since 0.1.0
 */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Stream from "effect/Stream"
import { createReadStream } from "node:fs"
import { stat } from "node:fs/promises"
import * as Outbox from "../../Outbox.js"
import * as Postgres from "../../postgres/Postgres.js"
import * as AppendLines from "../internal/appendLines.js"
import { failure, usage, type CliError } from "../internal/CliError.js"
import * as Database from "../internal/database.js"
import * as EventFlags from "../internal/eventFlags.js"
import * as Progress from "../internal/progress.js"
import { count, messageOf, quote } from "../internal/text.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as SettingFlags from "../SettingFlags.js"

const defaultTransactionSize = 1_000

const largestTransaction = 100_000

/** The argument that stands for stdin. */
const stdin = "-"

interface Source {
  readonly name: string
  /** Unknown if it is not a regular file. */
  readonly size: number | undefined
  readonly bytes: Stream.Stream<Uint8Array, CliError>
}

const cannotRead = (name: string) => (cause: unknown) => failure(`Cannot read ${name}: ${messageOf(cause)}`, cause)

const open = (file: string): Effect.Effect<Source, CliError> => {
  if (file === stdin) {
    const name = "stdin"
    return Effect.succeed({
      name,
      size: undefined,
      bytes: NodeStream.fromReadable(() => process.stdin, cannotRead(name))
    })
  }
  return Effect.gen(function* () {
    const info = yield* Effect.tryPromise({ try: () => stat(file), catch: cannotRead(quote(file)) })
    if (info.isDirectory()) return yield* failure(`Cannot read ${quote(file)}: it is a directory`)
    return {
      name: file,
      size: info.isFile() ? info.size : undefined,
      bytes: NodeStream.fromReadable(
        () => createReadStream(file, { highWaterMark: 256 * 1024 }),
        cannotRead(quote(file))
      )
    }
  })
}

const outbox = (database: DatabaseSettings.Database) =>
  Outbox.layer.pipe(
    Layer.provide(Postgres.layer(database)),
    Layer.provide(Database.checked(database)),
    Layer.provide(Database.layer(database))
  )

const appendOne = (flags: EventFlags.Flags, orderingKey: string | undefined) =>
  Effect.gen(function* () {
    const database = yield* DatabaseSettings.database
    const event = yield* EventFlags.toEvent(flags)
    const id = yield* Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      return yield* outbox.withTransaction(outbox.append(event, orderingKey === undefined ? {} : { orderingKey }))
    }).pipe(
      Effect.catchTags({
        OutboxError: (error) => Database.explain(database, error),
        InvalidEvent: (error) => failure(error.message, error),
        DuplicateEventId: (error) => failure(error.message, error),
        NotInTransaction: (defect) => Effect.die(defect)
      }),
      Effect.provide(outbox(database))
    )
    yield* Console.log(id)
  })

const appendMany = (file: string, transactionSize: number, orderingKey: string | undefined) =>
  Effect.gen(function* () {
    const database = yield* DatabaseSettings.database
    const source = yield* open(file)
    let state = "Appended: nothing."
    const { events, transactions } = yield* Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const progress = yield* Progress.make(source.size)
      return yield* AppendLines.run({
        outbox,
        source: source.name,
        bytes: source.bytes,
        transactionSize,
        orderingKey,
        explain: (error) => Database.explain(database, error),
        onProgress: (bytes, events) => progress.advance(bytes, count(events, "event")),
        onInterrupt: (progress) => {
          state = progress
        }
      })
    }).pipe(
      Effect.scoped,
      Effect.provide(outbox(database)),
      Effect.onInterrupt(() => Console.error(`controlpublish: interrupted. ${state}`))
    )
    yield* Console.log(`Appended ${count(events, "event")} in ${count(transactions, "transaction")}.`)
  })

const parseTransactionSize = (given: Option.Option<string>): Effect.Effect<number, CliError> => {
  const text = Option.getOrElse(given, () => String(defaultTransactionSize))
  const size = /^\d+$/.test(text) ? Number(text) : 0
  return size >= 1 && size <= largestTransaction
    ? Effect.succeed(size)
    : Effect.fail(usage(`--transaction-size: got ${quote(text)}, valid is an integer from 1 to ${largestTransaction}`))
}

/**
 * Appends events to the outbox, each set in one transaction.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = Command.make(
  "append",
  {
    settings: SettingFlags.make(DatabaseSettings.group),
    ...EventFlags.flags,
    orderingKey: Options.text("ordering-key").pipe(
      Options.withDescription(
        "The ordering key of the event, or of all events of the file (default: the tenant of each)"
      ),
      Options.optional
    ),
    transactionSize: Options.text("transaction-size").pipe(
      Options.withDescription(
        `The number of events of a file in one transaction, fewer if they are large (default: ${defaultTransactionSize})`
      ),
      Options.optional
    ),
    file: Args.text({ name: "file" }).pipe(
      Args.withDescription("Events as NDJSON, one per line; - for stdin"),
      Args.optional
    )
  },
  ({ file, orderingKey, settings, transactionSize, ...flags }) =>
    Effect.gen(function* () {
      const key = Option.getOrUndefined(orderingKey)
      const given = EventFlags.given(flags)
      if (Option.isNone(file)) {
        if (Option.isSome(transactionSize)) return yield* usage("--transaction-size requires a file of events")
        return yield* given.includes("--type")
          ? appendOne(flags, key)
          : usage(
              "append needs an event (--type tenant.created …), or a file of events (append events.ndjson, append -)"
            )
      }
      // @effect/cli takes a flag without its value for the file.
      if (file.value !== stdin && file.value.startsWith("-")) {
        return yield* usage(`${quote(file.value)} is not a flag of append, or lacks its value`)
      }
      if (given.length > 0) return yield* usage(`${given.join(", ")} and a file of events exclude each other`)
      return yield* appendMany(file.value, yield* parseTransactionSize(transactionSize), key)
    }).pipe(SettingFlags.provide(settings))
).pipe(
  Command.withDescription(
    "Append events to the outbox in their own transaction: one event from flags, or many from a file."
  )
)
