/**
 * The status of a worker: its activity, and above that whether it is paused or stopping.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"

/** What hides the activity. A worker that stops is never paused again, and one that has stopped does nothing else. */
export type Lifecycle = "paused" | "stopping" | "stopped"

interface Stated {
  readonly state: string
  readonly since: number
}

/** What a worker does while it is neither paused nor stopping. */
export type Activity<S extends Stated> = Exclude<S["state"], Lifecycle>

export interface WorkerStatus<S extends Stated> {
  readonly get: Effect.Effect<S>
  readonly changes: Stream.Stream<S>
  /** What the worker does, whether or not a pause hides it. */
  readonly activity: () => Activity<S>
  /** Changes the activity, which is visible when nothing hides it. */
  readonly enter: (activity: Activity<S>) => Effect.Effect<void>
  /** Changes what is counted and, from that, the activity, in one step. */
  readonly update: (
    change: (status: S) => Omit<Partial<S>, "state" | "since">,
    activity?: (status: S) => Activity<S>
  ) => Effect.Effect<void>
  /** Hides the activity, or shows it again. */
  readonly become: (lifecycle: Lifecycle | "running") => Effect.Effect<void>
}

/** Makes the status of a worker that starts with an activity. `onState` runs at each change of the visible state. */
export const make = <S extends Stated>(
  initial: S & { readonly state: Activity<S> },
  onState: (state: S["state"]) => Effect.Effect<void> = () => Effect.void
): Effect.Effect<WorkerStatus<S>> =>
  Effect.gen(function* () {
    const ref = yield* SubscriptionRef.make<S>(initial)
    let activity: Activity<S> = initial.state
    let lifecycle: Lifecycle | undefined

    const change = (next: (status: S) => S): Effect.Effect<void> =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const isOther = yield* SubscriptionRef.modify(ref, (before) => {
          const after = next(before)
          const state = lifecycle ?? activity
          return state === before.state ? [false, after] : [true, { ...after, state, since: now }]
        })
        // Read again: of two changes at a time the last one is told last.
        if (isOther) yield* Effect.flatMap(SubscriptionRef.get(ref), ({ state }) => onState(state))
      })

    const show = Effect.flatMap(SubscriptionRef.get(ref), ({ state }) =>
      state === (lifecycle ?? activity) ? Effect.void : change((status) => status)
    )

    return {
      get: SubscriptionRef.get(ref),
      changes: ref.changes,
      activity: () => activity,
      enter: (next) =>
        Effect.suspend(() => {
          activity = next
          return show
        }),
      update: (counted, next) =>
        change((status) => {
          const after = { ...status, ...counted(status) }
          if (next !== undefined) activity = next(after)
          return after
        }),
      become: (next) =>
        Effect.suspend(() => {
          if (lifecycle === "stopped" || (lifecycle === "stopping" && next !== "stopped")) return Effect.void
          lifecycle = next === "running" ? undefined : next
          return show
        })
    }
  })
