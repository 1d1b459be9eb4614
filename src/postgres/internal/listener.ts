import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Pg from "pg"
import type { OutboxError } from "../../OutboxStore.js"
import { quote, type Names } from "./names.js"
import { connectionOptions, queries, toOutboxError, type Session } from "./session.js"

/** A connection that listens. Its statements run one after another, whoever asks for them. */
export interface Listener extends Pick<Session, "query" | "script"> {
  readonly isLost: () => boolean
  /** Runs a statement without waiting for it. */
  readonly send: (text: string) => Effect.Effect<void>
}

/** Milliseconds until a listening connection that does not answer is given up. */
const silence = 5_000

/**
 * Opens a connection that listens, for the length of the scope. `onLost` is called once when it breaks. The client of
 * @effect/sql-pg is of no use here: its stream goes silent when the connection is lost.
 */
export const listen = (
  config: PgClientConfig,
  names: Names,
  handlers: { readonly onNotification: (payload: string) => void; readonly onLost: () => void }
): Effect.Effect<Listener, OutboxError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: async () => {
        const client = new Pg.Client({ ...connectionOptions(config), query_timeout: silence })
        let lost = false
        const onLost = () => {
          if (lost) return
          lost = true
          void client.end().catch(() => {})
          handlers.onLost()
        }
        client.on("error", onLost)
        client.on("end", onLost)
        client.on("notification", ({ payload }) => handlers.onNotification(payload ?? ""))
        await client.connect()
        await client.query(`LISTEN ${quote(names.channel)}`)
        return { client, isLost: () => lost, onLost }
      },
      catch: toOutboxError("listen for appends")
    }),
    ({ client }) =>
      Effect.promise(() => client.end().catch(() => {})).pipe(
        Effect.interruptible,
        Effect.timeoutOption(Duration.seconds(1))
      )
  ).pipe(
    Effect.flatMap(({ client, isLost, onLost }) =>
      Effect.gen(function* () {
        const scope = yield* Effect.scope
        const mutex = yield* Effect.makeSemaphore(1)
        const { query, script } = queries(client, onLost)
        // Bounded by the timeouts: an interruption would cost the connection.
        const oneByOne = <A, E>(effect: Effect.Effect<A, E>) => mutex.withPermits(1)(Effect.uninterruptible(effect))
        return {
          isLost,
          query: (text, values) => oneByOne(query(text, values)),
          script: (text) => oneByOne(script(text)),
          send: (text) => Effect.asVoid(Effect.forkIn(Effect.ignore(oneByOne(query(text))), scope))
        } satisfies Listener
      })
    )
  )
