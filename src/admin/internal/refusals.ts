/** Counts and logs wrong tokens, and slows down the addresses that send them. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import { TooManyRequests } from "../AdminApi.js"
import * as Addresses from "./addresses.js"

export type Reason = "missing" | "wrong" | "throttled" | "role"

const all = Metric.counter("controlpublish_admin_refused_total", {
  description: "Requests to the admin API that were refused, by reason: missing, wrong or throttled token, or its role",
  incremental: true
})

const count = (reason: Reason) => Metric.increment(Metric.tagged(all, "reason", reason))

/** Wrong tokens that an address may send before it is slowed down. It gets one back per second. */
const burst = 10

/** How long requests of a slowed address wait, and how many may wait at once. */
const delay = Duration.seconds(1)
const waiting = 8

/** Addresses that are remembered. */
const remembered = 4_096

/** Between two lines in the log. */
const quiet = Duration.seconds(10)

interface Client {
  /** What was left of the burst at `at`. */
  left: number
  at: number
  waiting: number
}

export interface Refusals {
  readonly count: (reason: Reason) => Effect.Effect<void>
  /** Passes at once, passes after the delay, or fails if too many requests wait already. */
  readonly pass: (address: string) => Effect.Effect<void, TooManyRequests>
  /** Notes a wrong token. */
  readonly wrong: (address: string) => Effect.Effect<void>
}

const tooMany = new TooManyRequests({ message: "Too many wrong tokens from this address: try again in a second" })

export const make: Effect.Effect<Refusals, never, Scope.Scope> = Effect.gen(function* () {
  const clients = new Map<string, Client>()
  const unlogged = { requests: 0, addresses: new Set<string>() }
  let loggedAt = Number.NEGATIVE_INFINITY

  const clientOf = (address: string, now: number): Client => {
    const key = Addresses.group(address)
    const known = clients.get(key)
    const client = known ?? { left: burst, at: now, waiting: 0 }
    client.left = Math.min(burst, client.left + (now - client.at) / 1_000)
    client.at = now
    // The least recently seen address is forgotten first.
    clients.delete(key)
    clients.set(key, client)
    if (clients.size > remembered) clients.delete(clients.keys().next().value!)
    return client
  }

  const log = Effect.suspend(() => {
    const { addresses, requests } = unlogged
    if (requests === 0) return Effect.void
    const [first] = addresses
    const from = addresses.size === 1 ? String(first) : `${addresses.size} addresses, among them ${String(first)}`
    unlogged.requests = 0
    unlogged.addresses = new Set()
    return Effect.flatMap(Clock.currentTimeMillis, (now) => {
      loggedAt = now
      return Effect.logWarning(
        `The admin API refused ${requests} ${requests === 1 ? "request" : "requests"} with a wrong token from ${from}`
      )
    })
  })

  const note = (address: string, now: number) => {
    unlogged.requests++
    if (unlogged.addresses.size < remembered) unlogged.addresses.add(address)
    return now - loggedAt >= Duration.toMillis(quiet) ? log : Effect.void
  }

  yield* Effect.forkScoped(Effect.forever(Effect.interruptible(Effect.delay(log, quiet))))

  return {
    count,
    pass: (address) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const client = clientOf(address, now)
        if (client.left >= 1) return Effect.void
        if (client.waiting >= waiting) {
          return count("throttled").pipe(Effect.zipRight(note(address, now)), Effect.zipRight(Effect.fail(tooMany)))
        }
        return Effect.acquireUseRelease(
          Effect.sync(() => client.waiting++),
          () => Effect.sleep(delay),
          () => Effect.sync(() => client.waiting--)
        )
      }),
    wrong: (address) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const client = clientOf(address, now)
        client.left = Math.max(0, client.left - 1)
        return Effect.zipRight(count("wrong"), note(address, now))
      })
  }
})
