import { DiscardPolicy, PersistMode, RetentionPolicy, StorageType, type StreamConfig } from "@nats-io/jetstream"
import { millis } from "@nats-io/transport-node"
import * as Duration from "effect/Duration"
import * as Subject from "./subject.js"

/** What the sink requires of the stream. */
export interface Wanted {
  readonly name: string
  /** The subjects that events are published to, as a wildcard. */
  readonly pattern: string
  /** Whether every event has a subject of its own. */
  readonly eachOwnSubject: boolean
  readonly minDuplicateWindow: Duration.Duration
}

/** A finding about one requirement. */
export interface Finding {
  readonly ok: boolean
  /** Whether an operator should look at it although it is ok. */
  readonly doubtful: boolean
  readonly line: string
}

/**
 * The smallest valid `max_msg_size`, in bytes. A stream that takes less rejects ordinary events: ids and the headers that
 * repeat them take up to a few KiB by themselves.
 */
const leastMessageSize = 8 * 1024

/** A limit of a stream. 0 and -1 mean none. */
const limit = (value: number | undefined): number | undefined => (value === undefined || value <= 0 ? undefined : value)

/** Settings that contradict a feed, each with its remedy. */
const contradictions = (config: StreamConfig, { eachOwnSubject }: Wanted): ReadonlyArray<string> => {
  const perSubject = limit(config.max_msgs_per_subject)
  const size = limit(config.max_msg_size)
  const found: Array<string> = []
  if (perSubject !== undefined && !eachOwnSubject) {
    found.push(
      `keeps only ${perSubject} of the events of a subject (max_msgs_per_subject): set it to -1, or set NATS_DEDUPLICATION=subject (deduplication), which gives each event a subject of its own`
    )
  }
  if (size !== undefined && size < leastMessageSize) {
    found.push(
      `takes messages of at most ${size} bytes (max_msg_size), and an event needs up to ${leastMessageSize} without a large payload: set it to -1, or at least to the payload limit and ${leastMessageSize}`
    )
  }
  if (config.sources !== undefined && config.sources.length > 0) {
    const names = config.sources.map(({ name }) => `"${name}"`).join(", ")
    found.push(`also takes the messages of ${names} (sources), which are not events of this outbox: remove its sources`)
  }
  if (config.subject_transform !== undefined) {
    found.push("stores messages under another subject (subject_transform): remove the transform")
  }
  if (config.persist_mode === PersistMode.Async) {
    found.push("confirms messages before they are on disk (persist_mode async): re-create it with persist_mode default")
  }
  return found
}

const mirror = (name: string, original: string): Finding => ({
  ok: false,
  doubtful: false,
  line: `The stream "${name}" is a mirror of "${original}" and takes no messages of its own: publish to the original`
})

/** Settings that a feed can live with if its operator knows them. */
const doubts = (config: StreamConfig): ReadonlyArray<string> => {
  const age = limit(config.max_age)
  const counts = [
    ...(limit(config.max_msgs) === undefined ? [] : [`${config.max_msgs} messages`]),
    ...(limit(config.max_bytes) === undefined ? [] : [`${config.max_bytes} bytes`])
  ]
  const removesOldest = config.discard !== DiscardPolicy.New
  const kept = [
    ...(age === undefined ? [] : [Duration.format(Duration.millis(millis(age)))]),
    ...(removesOldest ? counts : [])
  ]
  const found: Array<string> = []
  if (kept.length > 0) {
    found.push(`removes its oldest messages: nodes more than ${kept.join(" or ")} behind cannot catch up`)
  }
  if (!removesOldest && counts.length > 0) {
    found.push(`takes at most ${counts.join(" or ")} (discard new): once it is full, nothing is published`)
  }
  if (limit(config.max_msg_size) !== undefined) {
    found.push(`takes messages of at most ${config.max_msg_size} bytes (max_msg_size): larger events are parked`)
  }
  if (config.allow_rollup_hdrs) {
    found.push("lets any publisher remove the feed with a header (allow_rollup_hdrs): turn that off")
  }
  return found
}

/** Describes which requirements the stream meets, and which it does not. */
export const findings = (config: StreamConfig, wanted: Wanted): ReadonlyArray<Finding> => {
  const { name, pattern } = wanted
  // A mirror has no subjects at all, not even an empty list of them.
  if (config.mirror !== undefined) return [mirror(name, config.mirror.name)]
  const subjects = config.subjects.length === 0 ? "no subject" : config.subjects.join(", ")
  const takesSome = config.subjects.some((subject) => Subject.overlaps(subject, pattern))
  const window = Duration.millis(millis(config.duplicate_window))
  const wantedWindow = Duration.format(wanted.minDuplicateWindow)
  const finding = (ok: boolean, found: string, missing: string, doubtful = false): Finding => ({
    ok,
    doubtful,
    line: `The stream "${name}" ${ok ? found : missing}`
  })
  return [
    finding(true, "is there, and JetStream is on", ""),
    finding(
      takesSome,
      Subject.coveredBy(config.subjects, pattern)
        ? `takes ${pattern}`
        : `takes ${subjects} of ${pattern}: an event for another subject is parked, so let it take ${pattern}`,
      `takes ${subjects}, and not ${pattern}: add that to its subjects, or set NATS_SUBJECT (subject)`,
      !Subject.coveredBy(config.subjects, pattern)
    ),
    finding(
      config.storage === StorageType.File,
      "keeps its messages on disk",
      "keeps its messages in memory and would lose them with the server: re-create it with file storage"
    ),
    finding(
      Duration.greaterThanOrEqualTo(window, wanted.minDuplicateWindow),
      `has a duplicate window of ${Duration.format(window)}`,
      `has a duplicate window of ${Duration.format(window)}, the minimum is ${wantedWindow}: raise its duplicate window, or lower NATS_MIN_DUPLICATE_WINDOW (minDuplicateWindow)`
    ),
    ...(config.retention === RetentionPolicy.Limits
      ? []
      : [
          finding(
            false,
            "",
            `removes messages as its consumers take them (retention ${config.retention}): re-create it with retention limits`
          )
        ]),
    ...(config.no_ack ? [finding(false, "", "acknowledges no messages (no_ack): turn that off")] : []),
    ...(config.sealed ? [finding(false, "", "is sealed and accepts no messages")] : []),
    ...contradictions(config, wanted).map((missing) => finding(false, "", missing)),
    ...doubts(config).map((found) => finding(true, found, "", true))
  ]
}
