/**
 * What the pump and the applier share: one pass at a time, back-off after a failed pass, pause, drain, and a stop that
 * waits for the work in flight.
 *
 * docs/decisions/worker.md says what each call does in each state.
 */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Lifecycle } from "./workerStatus.js"

export interface Worker<R> {
  /** Whether no work may begin now: the worker is paused or stops. */
  readonly isHalted: () => boolean
  /** Waits for an effect that precedes work, and abandons it once no work may begin. */
  readonly unlessHalted: <A, E>(wait: Effect.Effect<A, E>) => Effect.Effect<Option.Option<A>, E>
  /**
   * Runs work that a pause and a stop wait for. It outlives the calling fiber and does not see its context, such as a
   * transaction.
   */
  readonly inFlight: <A, E>(work: Effect.Effect<A, E, R>) => Effect.Effect<Exit.Exit<A, E>>
  /** Returns when no work is in flight. */
  readonly settled: Effect.Effect<void>
  /** Runs a pass while no other one runs. */
  readonly onePass: <A, E, R1>(pass: Effect.Effect<A, E, R1>) => Effect.Effect<A, E, R1>
  /** Ends an endless pass when no work may begin, and when a drain waits for its turn. */
  readonly endless: <E, R1>(pass: Effect.Effect<unknown, E, R1>) => Effect.Effect<void, E, R1>
  /** Records that work succeeded: the next failure restarts the back-off. */
  readonly succeeded: Effect.Effect<void>
  /** Whether the last work failed. */
  readonly isFailing: () => boolean
  /** Runs the passes of a drain before the worker's own, or returns `nothing` at once if no work may begin. */
  readonly drain: <A, E, R1>(passes: Effect.Effect<A, E, R1>, nothing: A) => Effect.Effect<A, E, R1>
  /** Begins no work from now on. Returns when none is in flight, or when the pause ends. */
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Repeats a step until the scope closes, and runs the other effects beside it. */
  readonly start: <E>(
    step: Effect.Effect<unknown, E, R>,
    beside?: ReadonlyArray<Effect.Effect<unknown, never, R>>
  ) => Effect.Effect<void, never, R>
}

interface Options {
  /** Is told why a pass failed. */
  readonly failed: (cause: Cause.Cause<unknown>) => Effect.Effect<void>
  readonly become: (lifecycle: Lifecycle | "running") => Effect.Effect<void>
  /** Records that the worker does nothing. */
  readonly rest: Effect.Effect<void>
  /** When a failed pass is retried. After the schedule ends, every 30 seconds. */
  readonly retry: Schedule.Schedule<unknown>
  readonly drainTimeout: Duration.DurationInput
}

/** The first of two waits, also for a caller that cannot be interrupted. */
const first = <A, E, A1>(one: Effect.Effect<A, E>, other: Effect.Effect<A1>): Effect.Effect<A | A1, E> =>
  Effect.raceFirst(Effect.interruptible(one), Effect.interruptible(other))

/**
 * Makes a worker in the scope. When the scope closes, it begins no work, waits at most the drain timeout for the work
 * in flight, and interrupts the rest.
 */
export const make = <R = never>({
  become,
  drainTimeout,
  failed,
  rest,
  retry
}: Options): Effect.Effect<Worker<R>, never, R | Scope.Scope> =>
  Effect.gen(function* () {
    // Each is open while its name holds, so that a late waiter does not miss it.
    const running = yield* Effect.makeLatch(true)
    const halted = yield* Effect.makeLatch(false)
    const drained = yield* Effect.makeLatch(true)
    const draining = yield* Effect.makeLatch(false)
    const onePass = yield* Effect.makeSemaphore(1)
    const retries = yield* Schedule.driver(Schedule.andThen(retry, Schedule.spaced("30 seconds")))
    let fibers: ReadonlyArray<Fiber.RuntimeFiber<unknown>> = []
    let paused = false
    let stopping = false
    let drains = 0
    let failing = false

    yield* Effect.addFinalizer(() => become("stopped"))
    const work = yield* FiberSet.make()
    const run = yield* FiberSet.runtime(work)<R>()
    const settled = FiberSet.awaitEmpty(work)
    yield* Effect.addFinalizer(() =>
      Effect.gen(function* () {
        stopping = true
        halted.unsafeOpen()
        yield* become("stopping")
        yield* Effect.zip(Fiber.interruptAll(fibers), settled, { concurrent: true })
      }).pipe(Effect.interruptible, Effect.timeoutOption(drainTimeout))
    )

    const isHalted = () => paused || stopping
    const succeeded = Effect.sync(() => {
      failing = false
    })
    const failure = (cause: Cause.Cause<unknown>) =>
      Effect.gen(function* () {
        if (!failing) yield* retries.reset
        failing = true
        yield* failed(cause)
      })

    /** A pause, a stop and a drain end a back-off. A drain that failed was an attempt like any other. */
    const backOff = (cause: Cause.Cause<unknown>): Effect.Effect<void> =>
      Effect.gen(function* () {
        yield* first(Effect.ignore(retries.next(cause)), Effect.raceFirst(halted.await, draining.await))
        if (drains === 0) return
        yield* drained.await
        if (failing && !paused) yield* backOff(cause)
      })

    const pausedAndSettled: Effect.Effect<void> = Effect.suspend(() => {
      if (!paused) return Effect.void
      return Effect.flatMap(FiberSet.size(work), (size) =>
        size > 0 ? Effect.zipRight(first(settled, running.await), pausedAndSettled) : become("paused")
      )
    })

    return {
      isHalted,
      unlessHalted: (wait) => first(Effect.asSome(wait), Effect.as(halted.await, Option.none())),
      inFlight: (effect) => Effect.suspend(() => Fiber.await(run(Effect.interruptible(effect)))),
      settled,
      onePass: onePass.withPermits(1),
      endless: (pass) => Effect.raceFirst(pass, Effect.raceFirst(halted.await, draining.await)),
      succeeded,
      isFailing: () => failing,
      drain: (passes, nothing) =>
        Effect.acquireUseRelease(
          Effect.sync(() => {
            drains++
            drained.unsafeClose()
            draining.unsafeOpen()
          }),
          () =>
            Effect.suspend(() => (isHalted() ? Effect.succeed(nothing) : passes)).pipe(
              Effect.zipLeft(Effect.suspend(() => (isHalted() ? Effect.void : succeeded))),
              Effect.tapErrorCause((cause) => (Cause.isInterruptedOnly(cause) ? Effect.void : failure(cause)))
            ),
          () =>
            Effect.suspend(() => {
              if (--drains > 0) return Effect.void
              draining.unsafeClose()
              // The worker's own passes set what it does next. A worker that is only drained does nothing next.
              return Effect.zipRight(failing ? Effect.void : rest, drained.open)
            })
        ),
      pause: Effect.suspend(() => {
        paused = true
        running.unsafeClose()
        halted.unsafeOpen()
        return pausedAndSettled
      }),
      resume: Effect.suspend(() => {
        if (!paused) return Effect.void
        paused = false
        if (!stopping) halted.unsafeClose()
        return Effect.zipRight(become("running"), running.open)
      }),
      start: (step, beside = []) =>
        Effect.gen(function* () {
          const loop = Effect.suspend(() => (paused ? running.await : Effect.zipRight(drained.await, step))).pipe(
            Effect.sandbox,
            Effect.catchAll((cause) => Effect.zipRight(failure(cause), backOff(cause))),
            Effect.forever
          )
          // Not in the scope, which would wait for them without a deadline: the finalizer sees to them.
          fibers = yield* Effect.forEach([loop, ...beside], (effect) => Effect.forkDaemon(Effect.interruptible(effect)))
        })
    }
  })
