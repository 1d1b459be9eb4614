/** The host names that the service answers. */
import { isIP } from "node:net"
import { isLoopbackHeader } from "./loopback.js"

export interface Options {
  /** Whether the service listens for this machine alone. */
  readonly loopback: boolean
  /** Names that a proxy passes on, in small letters, with or without a port. */
  readonly allowed: ReadonlySet<string>
}

/** A `Host` header without its port, in small letters. */
const nameOf = (host: string): string => host.toLowerCase().replace(/:\d+$/, "")

/**
 * Whether a `Host` header names this service. Rejecting unknown names prevents DNS rebinding by other sites' pages. Beyond
 * this machine, plain addresses are accepted: probes and scrapers use them.
 */
export const isOurs = (host: string, { allowed, loopback }: Options): boolean => {
  if (isLoopbackHeader(host) || allowed.has(host.toLowerCase()) || allowed.has(nameOf(host))) return true
  return !loopback && (allowed.size === 0 || isIP(nameOf(host).replace(/^\[|\]$/g, "")) !== 0)
}

/** Whether an origin is the requested host or an allowed name. */
export const isOurOrigin = (origin: string, host: string, { allowed }: Options): boolean => {
  const from = URL.canParse(origin) ? new URL(origin).host : undefined
  return from !== undefined && from !== "" && (from === host.toLowerCase() || allowed.has(from))
}
