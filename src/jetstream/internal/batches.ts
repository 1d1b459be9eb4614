import type { StreamConfig } from "@nats-io/jetstream"
import type { Batch } from "../../Sink.js"

/** Since then, servers take atomic batches of messages with ids. */
const least = "2.12.1"

const isAtLeast = (version: string): boolean => {
  const [major = 0, minor = 0, patch = 0] = version.split(/[.-]/, 3).map(Number)
  return major > 2 || (major === 2 && (minor > 12 || (minor === 12 && patch >= 1)))
}

/** What the options ask for, see `JetStreamSink.Publish`. */
type Wish = "message" | "batch" | "auto"

/** Why a stream takes no atomic batches, or that it does. */
export type Ability = "able" | "off" | { readonly tooOld: string }

/** Whether a server can create a stream that takes atomic batches. */
export const canCreate = (version: string): boolean => isAtLeast(version)

/** What the stream can. `connected`: the version of the server that the link leads to. */
export const abilityOf = (config: StreamConfig, connected: string): Ability => {
  // Of the server that leads the stream, which may be another one.
  const version = config.metadata?.["_nats.ver"] ?? connected
  if (!isAtLeast(version)) return { tooOld: version }
  return config.allow_atomic ? "able" : "off"
}

/** Says how the sink publishes, and why. `doubtful`: not as the options ask for. */
export const describe = (
  name: string,
  wish: Wish,
  ability: Ability
): { readonly line: string; readonly doubtful: boolean } => {
  const doubtful = wish === "batch" && ability !== "able"
  const line = (text: string) => ({ doubtful, line: text })
  if (wish === "message") return line("Publishes message by message (NATS_PUBLISH=message)")
  if (ability === "off") {
    return line(
      `Publishes message by message: the stream "${name}" does not allow atomic batches, set its allow_atomic for NATS_PUBLISH=${wish}`
    )
  }
  if (ability !== "able") {
    return line(
      `Publishes message by message: nats-server ${ability.tooOld} does not support atomic batches, version ${least} does`
    )
  }
  return wish === "batch"
    ? line("Publishes in atomic batches (NATS_PUBLISH=batch)")
    : line(
        `Publishes in atomic batches where a key has ${longest} or more events in a batch and no other is in flight, else message by message (NATS_PUBLISH=auto)`
      )
}

/**
 * How many events of one key make an atomic batch faster than as many round trips, see
 * docs/decisions/jetstream-batches.md.
 */
const longest = 8

/** Whether an atomic batch is worth it: message by message, a batch takes as many round trips as its longest key has events. */
export const pays = ({ events }: Batch): boolean => {
  if (events.length < longest) return false
  const counts = new Map<string, number>()
  for (const { orderingKey } of events) {
    const count = (counts.get(orderingKey) ?? 0) + 1
    if (count >= longest) return true
    counts.set(orderingKey, count)
  }
  return false
}
