import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"

/** How long an interrupted append waits for its running statement, in milliseconds. */
const grace = 2_000

/**
 * How long the work after that may take, in milliseconds. A connection that does not answer by then does not commit
 * either.
 */
const last = 1_000

/** Real time: a database does not run on a test clock. */
const clock = Clock.make()

const within =
  (milliseconds: number) =>
  <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<Option.Option<A>, E> =>
    Effect.withClock(Effect.timeoutOption(Effect.interruptible(effect), milliseconds), clock)

/** Whether the work was interrupted and must not start another statement. */
export interface Signal {
  readonly isStopped: () => boolean
}

/**
 * Makes interrupted work in a transaction all or nothing, without failing the transaction.
 *
 * The driver cancels the statement of an interrupted fiber. Either the server then fails the transaction, or the
 * cancellation comes too late and the statement takes effect. Here the running statement gets time to end, and the work
 * is undone. A statement that takes longer, such as one that waits for a lock, is canceled, and the transaction
 * reliably fails.
 */
export const make =
  <Done, E2>(options: {
    readonly undo: (done: Done) => Effect.Effect<unknown, E2>
    /** Fails the transaction. */
    readonly fail: Effect.Effect<void>
  }) =>
  <E>(work: (signal: Signal) => Effect.Effect<Done, E>): Effect.Effect<Done, E> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        let stopped = false
        const settle = (fiber: Fiber.Fiber<Done, E>) =>
          Effect.flatMap(within(grace)(Fiber.await(fiber)), (ended) => {
            if (Option.isNone(ended)) {
              return Effect.zipRight(Fiber.interrupt(fiber), Effect.asVoid(within(last)(options.fail)))
            }
            // Failed work has no effect, or has failed the transaction.
            return Exit.isSuccess(ended.value)
              ? Effect.catchAll(options.undo(ended.value.value), () => options.fail)
              : Effect.void
          })
        // Not as children: an interruption reaches a fiber's children at once, and a second one reaches those of its
        // finalizer.
        return Effect.flatMap(Effect.forkDaemon(Effect.interruptible(work({ isStopped: () => stopped }))), (fiber) =>
          Effect.onInterrupt(restore(Fiber.join(fiber)), () =>
            Effect.suspend(() => {
              stopped = true
              return Effect.flatMap(Effect.forkDaemon(settle(fiber)), Fiber.await)
            })
          )
        )
      })
    )
