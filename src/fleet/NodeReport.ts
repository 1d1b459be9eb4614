/**
 * What a node says of itself: once who it is, and then again and again how far it has come.
 *
 * Nothing in it is an instant of the node's clock: ages are durations, and whoever receives a report knows when it came.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * The name of a node: 1 to 64 letters, digits, `_`, `-` and single dots between them. It is the same in a table, a URL, a
 * token file and a key of a NATS bucket.
 *
 * @since 0.1.0
 * @category schemas
 */
export const NodeName = Schema.String.pipe(
  Schema.filter((name) => name.length <= 64 && /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/.test(name), {
    message: () => "valid is a name of 1 to 64 letters, digits, _ and -, with single dots between them"
  })
).annotations({ identifier: "NodeName" })

/** Text without NUL, which no text of PostgreSQL can have. */
const text = (longest: number) =>
  Schema.String.pipe(
    Schema.filter((value) => value.length <= longest && !value.includes("\u0000") && value.isWellFormed(), {
      message: () => `valid is text of at most ${longest} characters`
    })
  )

/** The most labels of a node. */
const mostLabels = 16

/**
 * What nodes are chosen by: `{ region: "eu", ring: "canary" }`. At most 16, names and values of at most 63 characters.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Labels = Schema.Record({ key: Schema.String, value: text(63) }).pipe(
  Schema.filter(
    (labels) => {
      const names = Object.keys(labels)
      return names.length <= mostLabels && names.every((name) => /^[A-Za-z0-9][\w./-]{0,62}$/.test(name))
    },
    { message: () => `valid are at most ${mostLabels} labels, with names of letters, digits and the signs . _ / -` }
  )
)

/**
 * A value of the schema `Labels`.
 *
 * @since 0.1.0
 * @category models
 */
export type Labels = typeof Labels.Type

const count = Schema.Number.pipe(Schema.int(), Schema.between(0, Number.MAX_SAFE_INTEGER))

/**
 * Who a node is. It registers when it starts, and again when it is told that somebody else has registered under its name.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Registration = Schema.Struct({
  node: NodeName,
  /** What sort of node it is, for people. */
  kind: text(64),
  labels: Labels,
  /** The version of the program. */
  version: text(64),
  /** A node that has not reported for longer than this is silent. It reports more often by itself. */
  silentAfterMillis: Schema.Number.pipe(Schema.int(), Schema.between(1_000, 86_400_000))
}).annotations({ identifier: "NodeRegistration" })

/**
 * A value of the schema `Registration`.
 *
 * @since 0.1.0
 * @category models
 */
export type Registration = typeof Registration.Type

/**
 * What a node does: the states of an applier, without `inert`, whose nodes do not report.
 *
 * @since 0.1.0
 * @category schemas
 */
export const ReportedState = Schema.Literal(
  "applying",
  "idle",
  "halted",
  "unavailable",
  "paused",
  "stopping",
  "stopped"
)

/**
 * A value of the schema `ReportedState`.
 *
 * @since 0.1.0
 * @category models
 */
export type ReportedState = typeof ReportedState.Type

/**
 * The versions that a report names of those that the node has set aside.
 *
 * @since 0.1.0
 * @category constants
 */
export const mostAsides = 100

/**
 * The events that a node has set aside: it has passed them and has not applied them.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Asides = Schema.Struct({
  /** The newest, at most 100. */
  versions: Schema.Array(count).pipe(Schema.maxItems(mostAsides)),
  /** `versions` has every event that was set aside from this version on. */
  completeFrom: count
})

/**
 * A value of the schema `Asides`.
 *
 * @since 0.1.0
 * @category models
 */
export type Asides = typeof Asides.Type

/** The longest reason that is reported, in characters. */
const longestReason = 500

/**
 * Cuts a reason to the length that a report may have.
 *
 * @since 0.1.0
 * @category constructors
 */
export const reasonOf = (message: string): string =>
  message.replaceAll("\u0000", "").slice(0, longestReason).toWellFormed()

/**
 * How far a node has come. Of the reports of one registration the one with the highest sequence counts.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Report = Schema.Struct({
  /** Rises with each report of a registration. */
  sequence: Schema.Number.pipe(Schema.int(), Schema.between(1, Number.MAX_SAFE_INTEGER)),
  state: ReportedState,
  /** How long it has been in the state. */
  stateForMillis: count,
  /** Where the node is. Absent while it could not read its own position. */
  cursor: Schema.optionalWith(
    Schema.Struct({
      /** The identity of the feed that the position belongs to. */
      feed: text(500),
      /** The version of the last event that it has applied or set aside. It is committed in the node's database. */
      position: count,
      /** The newest version of what the node reads, as far as it knows: of its part, if it reads a part of the feed. */
      newest: count,
      /**
       * Up to this version the node has everything of its part of the feed. Absent for a node that reads all of it, which
       * has everything up to its position.
       */
      through: Schema.optionalWith(count, { exact: true }),
      /**
       * For how long the node has known of the oldest event that it has not applied, 0 if there is none. Absent if the
       * event was there before the node started.
       */
      behindForMillis: Schema.optionalWith(count, { exact: true }),
      asides: Asides
    }),
    { exact: true }
  ),
  /** What holds the node: an event that cannot be applied, or a feed or a database that is unavailable. */
  trouble: Schema.optionalWith(
    Schema.Struct({
      message: text(longestReason),
      /** The version of the event that cannot be applied, if it is one. */
      version: Schema.optionalWith(count, { exact: true })
    }),
    { exact: true }
  )
}).annotations({ identifier: "NodeReport" })

/**
 * A value of the schema `Report`.
 *
 * @since 0.1.0
 * @category models
 */
export type Report = typeof Report.Type
