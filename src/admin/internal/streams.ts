/** Limits answers that last: status streams hold a connection, and downloads hold a piece of a payload in memory. */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { TooManyRequests } from "../AdminApi.js"
import * as Addresses from "./addresses.js"

export interface Kind {
  readonly total: number
  readonly ofAddress: number
  /** What a client is told that gets no place. */
  readonly message: string
}

export const status: Kind = {
  total: 64,
  ofAddress: 32,
  message: "The status has too many listeners already: close one, or try again"
}

export const downloads: Kind = {
  total: 16,
  ofAddress: 8,
  message: "Too many payloads are being downloaded: try again when one has ended"
}

/** Takes a place until the request ends, or fails if none is left. A proxy's address may take all of them. */
export const make = (isProxy: Addresses.Matches, limits: Kind) => {
  const counts = new Map<string, number>()
  let total = 0
  const take = (address: string): boolean => {
    const count = counts.get(address) ?? 0
    if (total >= limits.total || (count >= limits.ofAddress && !isProxy(address))) return false
    counts.set(address, count + 1)
    total++
    return true
  }
  const free = (address: string): void => {
    const count = (counts.get(address) ?? 1) - 1
    if (count > 0) counts.set(address, count)
    else counts.delete(address)
    total--
  }
  const refused = new TooManyRequests({ message: limits.message })
  return Effect.flatMap(
    HttpServerRequest.HttpServerRequest,
    ({ remoteAddress }): Effect.Effect<void, TooManyRequests, Scope.Scope> => {
      const address = Addresses.group(Option.getOrElse(remoteAddress, () => ""))
      return Effect.asVoid(
        Effect.acquireRelease(
          Effect.suspend(() => (take(address) ? Effect.void : Effect.fail(refused))),
          () => Effect.sync(() => free(address))
        )
      )
    }
  )
}
