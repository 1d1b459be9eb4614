import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"

/** Milliseconds that an interrupted append has for the statement that is running. */
const grace = 2_000

/** Milliseconds for what is done after that. A connection that does not answer by then does not commit either. */
const last = 1_000

/** Of real time: a database does not run on a test's clock. */
const clock = Clock.make()

const within =
  (milliseconds: number) =>
  <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<Option.Option<A>, E> =>
    Effect.withClock(Effect.timeoutOption(Effect.interruptible(effect), milliseconds), clock)

/** Whether work was interrupted, and should begin no further statement. */
export interface Signal {
  readonly isStopped: () => boolean
}

/**
 * Makes work in a transaction all or nothing when it is interrupted, without failing the transaction. The driver cancels
 * the statement of an interrupted fiber, and the server then fails the transaction; or the cancellation comes too late,
 * and the statement has its effect. Here the running statement has time to end, and what the work did is undone. A
 * statement that takes longer, as it waits for a lock, is canceled, and the transaction fails for certain.
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
            // Work that failed has left nothing, or has failed the transaction.
            return Exit.isSuccess(ended.value)
              ? Effect.catchAll(options.undo(ended.value.value), () => options.fail)
              : Effect.void
          })
        // Not children: an interruption reaches a fiber's children at once, and a second one those of its finalizer.
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
