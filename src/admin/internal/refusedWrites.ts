/** Records writes that were refused with 401 or 403 in the audit log, at a bounded rate. */
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { By, OutboxAdmin } from "../../OutboxAdmin.js"
import * as Addresses from "./addresses.js"
import { reading } from "./patience.js"

/** Refusals are gathered for a second, then written as at most so many entries, at most every 10 seconds. */
const gathering = Duration.seconds(1)
const quiet = Duration.seconds(10)
const entries = 10

/** The most refusals that wait to be written. More are dropped. */
const waiting = 1_000

const longestPath = 300

const reads: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"])

/** The message of an error of the API. */
const messageOf = ({ body }: HttpServerResponse.HttpServerResponse): string => {
  if (body._tag !== "Uint8Array") return ""
  try {
    const { message } = JSON.parse(new TextDecoder().decode(body.body)) as { readonly message?: unknown }
    return typeof message === "string" ? message : ""
  } catch {
    return ""
  }
}

/** Groups equal refusals with their count. The groups beyond the limit become one entry. */
const gathered = (refusals: ReadonlyArray<By>): ReadonlyArray<readonly [By, number]> => {
  const groups = new Map<string, readonly [By, number]>()
  for (const { actor, reason } of refusals) {
    const key = JSON.stringify([actor, reason])
    groups.set(key, [{ actor, reason }, (groups.get(key)?.[1] ?? 0) + 1])
  }
  const all = Array.from(groups.values())
  const rest = all.slice(entries)
  if (rest.length === 0) return all
  const count = rest.reduce((sum, [, count]) => sum + count, 0)
  return [...all.slice(0, entries), [{ actor: "several", reason: "further refused writes" }, count]]
}

/** Records a refusal. It stands even if the audit log cannot be written. */
export const record = (
  admin: OutboxAdmin["Type"],
  by: By,
  details: NonNullable<Parameters<OutboxAdmin["Type"]["record"]>[2]>
): Effect.Effect<void> =>
  admin.record("refused", by, details).pipe(
    reading,
    Effect.catchAll(({ message }) => Effect.logWarning(`A refusal is missing in the audit: ${message}`))
  )

export const make = (
  admin: OutboxAdmin["Type"],
  isProxy: Addresses.Matches
): Effect.Effect<<E, R>(app: HttpApp.Default<E, R>) => HttpApp.Default<E, R>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const queue = yield* Queue.dropping<By>(waiting)

    const write = Effect.gen(function* () {
      const first = yield* Queue.take(queue)
      yield* Effect.sleep(gathering)
      const more = yield* Queue.takeAll(queue)
      for (const [by, affected] of gathered([first, ...more])) {
        yield* record(admin, by, { affected })
      }
      yield* Effect.sleep(quiet)
    })
    yield* Effect.forkScoped(Effect.forever(write))

    const note = (response: HttpServerResponse.HttpServerResponse) =>
      Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        if ((response.status !== 401 && response.status !== 403) || reads.has(request.method)) return
        const peer = Option.getOrUndefined(request.remoteAddress)
        const path = request.originalUrl.split("?", 1)[0]!.slice(0, longestPath)
        yield* Queue.offer(queue, {
          actor: Addresses.clientOf(peer, request.headers["x-forwarded-for"], isProxy) ?? "an unknown address",
          reason: `${request.method} ${path}: ${messageOf(response)}`
        })
      })

    return (app) => Effect.tap(app, note)
  })
