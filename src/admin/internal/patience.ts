/** How long an answer may take. A write may have to wait for a publish in flight. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { OutboxError } from "../../OutboxStore.js"
import { Unavailable } from "../AdminApi.js"

const patience = { reading: Duration.seconds(5), writing: Duration.seconds(30) }

/** Fails with `Unavailable` if the database fails or does not answer in time. */
const within =
  (duration: Duration.Duration, late: string) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, Exclude<E, OutboxError> | Unavailable, R> =>
    effect.pipe(
      // Cancelling a query that hangs takes time.
      Effect.disconnect,
      Effect.timeoutFail({
        duration,
        onTimeout: () => new OutboxError({ message: late, retryable: true })
      }),
      Effect.catchIf(
        (error) => error instanceof OutboxError,
        ({ message }) => new Unavailable({ message })
      )
    )

export const reading = within(
  patience.reading,
  `The database did not answer within ${Duration.format(patience.reading)}`
)

export const writing = within(
  patience.writing,
  `The database did not answer within ${Duration.format(patience.writing)}: whether it was done, the audit tells`
)

/** For actions that commit in parts: finished parts stay. */
export const inParts = (rest: string) =>
  within(patience.writing, `Not all could be done within ${Duration.format(patience.writing)}: ${rest}`)
