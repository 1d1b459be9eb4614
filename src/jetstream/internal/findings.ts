import { DiscardPolicy, PersistMode, RetentionPolicy, StorageType, type StreamConfig } from "@nats-io/jetstream"
import { millis } from "@nats-io/transport-node"
import * as Duration from "effect/Duration"
import type { FeedBound } from "../../FeedBound.js"
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
  readonly line: string
  /** What somebody has to know although it is. */
  readonly bound?: FeedBound
}

/**
 * The smallest valid `max_msg_size`, in bytes. A stream that takes less rejects ordinary events: ids and the headers that
 * repeat them take up to a few KiB by themselves.
 */
const leastMessageSize = 8 * 1024

/** For how long a reader may be idle before the server forgets it, in milliseconds: what the client asks for. */
const leastIdleTime = 300_000

/** A limit of a stream: 0 and -1 stand for none. */
const limit = (value: number | undefined): number | undefined => (value === undefined || value <= 0 ? undefined : value)

/** What contradicts a feed for whoever reads it, each with its remedy. */
const unreadable = (config: StreamConfig): ReadonlyArray<string> => {
  const found: Array<string> = []
  if (config.retention !== RetentionPolicy.Limits) {
    found.push(
      `removes messages as its consumers take them (retention ${config.retention}): re-create it with retention limits`
    )
  }
  if (config.sources !== undefined && config.sources.length > 0) {
    const names = config.sources.map(({ name }) => `"${name}"`).join(", ")
    found.push(`also takes the messages of ${names} (sources), which are not events of this outbox: remove its sources`)
  }
  if (config.allow_msg_counter) {
    found.push("takes only counters (allow_msg_counter), and no event is one: re-create it without counters")
  }
  if (limit(config.subject_delete_marker_ttl) !== undefined) {
    found.push(
      "puts markers of its own among the events (subject_delete_marker_ttl), which halt nodes: set it to 0, or re-create it without"
    )
  }
  return found
}

/** What contradicts a feed for the sink, beyond what contradicts it for nodes. */
const contradictions = (config: StreamConfig, { eachOwnSubject }: Wanted): ReadonlyArray<string> => {
  const perSubject = limit(config.max_msgs_per_subject)
  const size = limit(config.max_msg_size)
  const found: Array<string> = []
  if (config.no_ack) {
    found.push("acknowledges no messages (no_ack): turn that off")
  }
  if (config.sealed) {
    found.push("is sealed and accepts no messages, for good: create another one, and set NATS_STREAM (stream)")
  }
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
  if (config.subject_transform !== undefined) {
    found.push("stores messages under another subject (subject_transform): remove the transform")
  }
  if (config.persist_mode === PersistMode.Async) {
    found.push("confirms messages before they are on disk (persist_mode async): re-create it with persist_mode default")
  }
  return found
}

const mirrorOf = (name: string, original: string): Finding => ({
  ok: false,
  line: `The stream "${name}" is a mirror of "${original}" and takes no messages of its own: publish to the original`
})

/** What is kept of the feed for a node that is behind; absent: everything. */
const kept = (config: StreamConfig): FeedBound | undefined => {
  const age = limit(config.max_age)
  const removesOldest = config.discard !== DiscardPolicy.New
  const events = removesOldest ? limit(config.max_msgs) : undefined
  const bytes = removesOldest ? limit(config.max_bytes) : undefined
  const texts = [
    ...(age === undefined ? [] : [Duration.format(Duration.millis(millis(age)))]),
    ...(events === undefined ? [] : [`${events} messages`]),
    ...(bytes === undefined ? [] : [`${bytes} bytes`])
  ]
  return texts.length === 0
    ? undefined
    : {
        message: `removes its oldest messages: nodes more than ${texts.join(" or ")} behind cannot catch up`,
        reach: {
          ...(age === undefined ? {} : { millis: millis(age) }),
          ...(events === undefined ? {} : { events }),
          ...(bytes === undefined ? {} : { bytes })
        }
      }
}

/** What a feed can live with, if whoever runs pumps or nodes knows. */
const shared = (config: StreamConfig): ReadonlyArray<FeedBound> => {
  const bound = kept(config)
  const consumers = limit(config.max_consumers)
  const idle = limit(config.consumer_limits?.inactive_threshold)
  const found: Array<FeedBound> = bound === undefined ? [] : [bound]
  const say = (message: string) => found.push({ message })
  if (consumers !== undefined) {
    say(
      `serves at most ${consumers} readers (max_consumers): each node needs one, and the sink one to look back; a stream's limit cannot be changed`
    )
  }
  if (idle !== undefined && millis(idle) < leastIdleTime) {
    say(
      `allows readers to be idle for at most ${Duration.format(Duration.millis(millis(idle)))} (consumer_limits), and nodes ask for ${Duration.format(Duration.millis(leastIdleTime))}: raise inactive_threshold, or remove it`
    )
  }
  if (config.allow_rollup_hdrs) {
    say("lets any publisher remove the feed with a header (allow_rollup_hdrs): turn that off")
  }
  if (config.allow_msg_ttl) {
    say(
      "lets any publisher set when its message expires (allow_msg_ttl), and events never do: let nobody but the pump publish to it"
    )
  }
  if (config.allow_msg_schedules) {
    say(
      "lets any publisher have messages sent later (allow_msg_schedules), which are no events of this outbox: let nobody but the pump publish to it"
    )
  }
  return found
}

/** What limits the sink alone. */
const ofSink = (config: StreamConfig): ReadonlyArray<FeedBound> => {
  const counts = [
    ...(limit(config.max_msgs) === undefined ? [] : [`${config.max_msgs} messages`]),
    ...(limit(config.max_bytes) === undefined ? [] : [`${config.max_bytes} bytes`])
  ]
  const found: Array<FeedBound> = []
  if (config.discard === DiscardPolicy.New && counts.length > 0) {
    found.push({ message: `takes at most ${counts.join(" or ")} (discard new): once it is full, nothing is published` })
  }
  if (limit(config.max_msg_size) !== undefined) {
    found.push({
      message: `takes messages of at most ${config.max_msg_size} bytes (max_msg_size): larger events are parked`
    })
  }
  return found
}

/** What limits nodes alone. */
const ofNodes = (config: StreamConfig): ReadonlyArray<FeedBound> => {
  const perSubject = limit(config.max_msgs_per_subject)
  const found: Array<FeedBound> = []
  if (config.storage === StorageType.Memory) {
    found.push({ message: "keeps its messages in memory only, and loses them with the server: nodes then start anew" })
  }
  if (perSubject !== undefined) {
    found.push({
      message: `keeps only ${perSubject} of the events of a subject (max_msgs_per_subject): unless each has a subject of its own (NATS_DEDUPLICATION=subject), a node that is behind misses some and halts`
    })
  }
  if (config.sealed) found.push({ message: "is sealed: no event comes any more" })
  return found
}

const named =
  (name: string) =>
  ({ message, ...rest }: FeedBound): FeedBound => ({ message: `The stream "${name}" ${message}`, ...rest })

/** What a node finds out about a stream that it reads. */
export interface Readable {
  /** Why no node can rely on the stream; absent if it can. */
  readonly missing: string | undefined
  readonly bounds: ReadonlyArray<FeedBound>
}

/** Describes what the stream keeps of a feed for a node. A mirror is a feed as its original is, unless it leaves something out. */
export const forNode = (config: StreamConfig, name: string): Readable => {
  const { mirror } = config
  const isPart =
    mirror?.filter_subject !== undefined ||
    (mirror?.subject_transforms !== undefined && mirror.subject_transforms.length > 0)
  const missing = [
    ...unreadable(config),
    ...(isPart ? [`mirrors a part of "${mirror.name}": mirror all of it, without a filter`] : [])
  ]
  return {
    missing: missing.length === 0 ? undefined : `The stream "${name}" ${missing.join("; it ")}`,
    bounds: [...shared(config), ...ofNodes(config)].map(named(name))
  }
}

/** Describes what the stream keeps of a feed, and what it does not. */
export const findings = (config: StreamConfig, wanted: Wanted): ReadonlyArray<Finding> => {
  const { name, pattern } = wanted
  // A mirror has no subjects at all, not even an empty list of them.
  if (config.mirror !== undefined) return [mirrorOf(name, config.mirror.name)]
  const subjects = config.subjects.length === 0 ? "no subject" : config.subjects.join(", ")
  const takesSome = config.subjects.some((subject) => Subject.overlaps(subject, pattern))
  const takesAll = Subject.coveredBy(config.subjects, pattern)
  const window = Duration.millis(millis(config.duplicate_window))
  const wantedWindow = Duration.format(wanted.minDuplicateWindow)
  const finding = (ok: boolean, found: string, missing: string): Finding => ({
    ok,
    line: `The stream "${name}" ${ok ? found : missing}`
  })
  const bounded = (bound: FeedBound): Finding => {
    const { message, ...rest } = named(name)(bound)
    return { ok: true, line: message, bound: { message, ...rest } }
  }
  return [
    finding(true, "is there, and JetStream is on", ""),
    takesSome && !takesAll
      ? bounded({
          message: `takes ${subjects} of ${pattern}: an event for another subject is parked, so let it take ${pattern}`
        })
      : finding(
          takesSome,
          `takes ${pattern}`,
          `takes ${subjects}, and not ${pattern}: add that to its subjects, or set NATS_SUBJECT (subject)`
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
    ...[...unreadable(config), ...contradictions(config, wanted)].map((missing) => finding(false, "", missing)),
    ...[...shared(config), ...ofSink(config)].map(bounded)
  ]
}
