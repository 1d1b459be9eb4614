/**
 * The event contract: what a producer appends, the feed carries and nodes apply.
 *
 * Field names are those on the wire. Fields that this module does not know are kept untouched.
 *
 * @since 0.1.0
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { ControlVersion, is as isControlVersion } from "./ControlVersion.js"
import * as EventId from "./EventId.js"
import { isStorable, Text } from "./internal/text.js"

/**
 * The event types that every fleet knows. Declare an application's own types with `EventType.make`.
 *
 * @since 0.1.0
 * @category constants
 */
export const knownTypes = [
  "stack.activated",
  "tenant.created",
  "hostname.bound",
  "hostname.verified",
  "hostname.revoked",
  "actor.changed",
  "key.changed",
  "membership.changed",
  "entitlement.updated",
  "system.opstack.updated",
  "dns.zone.upserted",
  "cron.settings.upserted"
] as const

const isNonEmpty = (value: string): boolean => value.length > 0

const NonEmptyText = Text.pipe(Schema.filter(isNonEmpty, { message: () => "must not be empty" }))

const isVersion = (value: number): boolean => Number.isSafeInteger(value) && value >= 0

const Version = Schema.Number.pipe(
  Schema.filter(isVersion, {
    message: () => "must be an integer from 0 to 2^53 - 1"
  })
)

const isChecksum = (value: string): boolean => /^sha256:[0-9a-f]{64}$/i.test(value)

// RFC 3339 has an offset: without one the time would depend on where it is read. PostgreSQL has no year 0.
const isInstant = (value: string): boolean =>
  /^(?!0000)\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$/i.test(value) &&
  !Number.isNaN(Date.parse(value))

const optional = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true })

/**
 * The known fields of an event, each with its own rule.
 *
 * @since 0.1.0
 * @category schemas
 */
export const fields = {
  /** Assigned by the producer and kept through every retry. */
  event_id: EventId.EventId,
  type: NonEmptyText,
  tenant_id: optional(Text),
  stack_id: optional(Text),
  /** The stack's version after the change. */
  version: optional(Version),
  /** The stack's version that the producer saw before the change. */
  base_version: optional(Version),
  /** The reference of the artifact. Requires a `checksum`. */
  artifact_ref: optional(NonEmptyText),
  /** `sha256:` and 64 hexadecimal digits. */
  checksum: optional(
    Schema.String.pipe(
      Schema.filter(isChecksum, {
        message: () => "must be sha256: followed by 64 hexadecimal digits"
      })
    )
  ),
  /** A date and time in RFC 3339. `append` always writes it. If it is absent, the row's own time counts. */
  created_at: optional(
    Schema.String.pipe(
      Schema.filter(isInstant, {
        message: () => "must be a date and time in RFC 3339"
      })
    )
  ),
  /** Absent until published. */
  control_version: optional(ControlVersion)
}

const required = (
  event: { readonly [name: string]: unknown },
  names: ReadonlyArray<string>,
  why: string
): ReadonlyArray<Schema.FilterIssue> =>
  names.filter((name) => event[name] === undefined).map((name) => ({ path: [name], message: `is required ${why}` }))

/**
 * A control event: the known fields, the rules between them, and any other fields.
 *
 * @since 0.1.0
 * @category schemas
 */
export const ControlEvent = Schema.Struct(fields, { key: Schema.String, value: Schema.Unknown })
  .pipe(
    Schema.filter((event) => [
      ...(event.artifact_ref === undefined ? [] : required(event, ["checksum"], "where artifact_ref is given")),
      ...(event.type === "stack.activated"
        ? required(event, ["tenant_id", "stack_id", "version"], "for stack.activated")
        : [])
    ])
  )
  .annotations({ identifier: "ControlEvent" })

/**
 * A control event. It has a `control_version` once it is published.
 *
 * @since 0.1.0
 * @category models
 */
export type ControlEvent = typeof ControlEvent.Type

/**
 * What a producer provides. {@link make} adds a missing `event_id` and `created_at`. The sink assigns the control
 * version.
 *
 * @since 0.1.0
 * @category models
 */
export interface Input {
  readonly event_id?: string
  readonly type: string
  readonly tenant_id?: string
  readonly stack_id?: string
  readonly version?: number
  readonly base_version?: number
  readonly artifact_ref?: string
  readonly checksum?: string
  readonly created_at?: string
  readonly [name: string]: unknown
}

/**
 * The event breaks the contract. A retry of the same event fails in the same way.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidEvent extends Schema.TaggedError<InvalidEvent>("controlpublish/InvalidEvent")("InvalidEvent", {
  /** The event's id, if it has a valid one. */
  eventId: Schema.optionalWith(Schema.String, { exact: true }),
  /** The field that breaks the contract, `""` for the event as a whole. */
  field: Schema.String,
  /** What is wrong with the field. It never holds the field's value. */
  reason: Schema.String
}) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    const which = this.eventId === undefined ? "" : ` ${JSON.stringify(this.eventId)}`
    return `Invalid control event${which}: ${this.field === "" ? "the event" : this.field} ${this.reason}`
  }
}

const eventIdOf = (value: unknown): { readonly eventId?: string } =>
  typeof value === "object" && value !== null && "event_id" in value && typeof value.event_id === "string"
    ? { eventId: value.event_id.toWellFormed() }
    : {}

// The parser's own messages quote the value, which may be a secret: only our messages pass.
const ownMessage = (issue: ParseResult.ArrayFormatterIssue): string => {
  if (issue._tag === "Missing") return "is required"
  return /^(must|is) /.test(issue.message) ? issue.message : "has the wrong type"
}

const toInvalidEvent =
  (value: unknown) =>
  (error: ParseResult.ParseIssue): InvalidEvent => {
    const issue = ParseResult.ArrayFormatter.formatIssueSync(error)[0]
    return issue === undefined || issue.path.length === 0
      ? new InvalidEvent({ ...eventIdOf(value), field: "", reason: "must be a JSON object" })
      : new InvalidEvent({ ...eventIdOf(value), field: issue.path.join("."), reason: ownMessage(issue) })
  }

const validateEither = ParseResult.validateEither(ControlEvent)

type Unchecked = { readonly [Name in keyof typeof fields]?: unknown }

/** Tells whether a field is absent, or a string or number that keeps a rule. */
const optionally = (
  event: Unchecked,
  name: keyof typeof fields,
  type: "string" | "number",
  rule: (value: never) => boolean
): boolean => {
  const value = event[name]
  return value === undefined ? !(name in event) : typeof value === type && rule(value as never)
}

/**
 * Tells whether an event keeps the contract, in a tenth of the time that the schema takes to say which rule is broken.
 * The pump validates every event that it publishes.
 */
const isSound = (event: Unchecked): boolean =>
  typeof event.event_id === "string" &&
  EventId.isEventId(event.event_id) &&
  typeof event.type === "string" &&
  isNonEmpty(event.type) &&
  isStorable(event.type) &&
  optionally(event, "tenant_id", "string", isStorable) &&
  optionally(event, "stack_id", "string", isStorable) &&
  optionally(event, "version", "number", isVersion) &&
  optionally(event, "base_version", "number", isVersion) &&
  optionally(event, "artifact_ref", "string", (value: string) => isNonEmpty(value) && isStorable(value)) &&
  optionally(event, "checksum", "string", isChecksum) &&
  optionally(event, "created_at", "string", isInstant) &&
  optionally(event, "control_version", "number", isControlVersion) &&
  (event.artifact_ref === undefined || event.checksum !== undefined) &&
  (event.type !== "stack.activated" ||
    (event.tenant_id !== undefined && event.stack_id !== undefined && event.version !== undefined))

const assigned = (event: ControlEvent): InvalidEvent =>
  new InvalidEvent({
    eventId: event.event_id,
    field: "control_version",
    reason: "is assigned by the sink and must be absent"
  })

/**
 * Validates a value against the contract and returns the value itself, its fields in their order.
 *
 * @since 0.1.0
 * @category validation
 */
export const validate = (value: unknown): Either.Either<ControlEvent, InvalidEvent> => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return Either.left(new InvalidEvent({ field: "", reason: "must be a JSON object" }))
  }
  if (isSound(value)) return Either.right(value as ControlEvent)
  return Either.mapBoth(validateEither(value), { onLeft: toInvalidEvent(value), onRight: () => value as ControlEvent })
}

/**
 * Validates an event that is not published yet. A `control_version` is rejected.
 *
 * @since 0.1.0
 * @category validation
 */
export const validateUnpublished = (value: unknown): Either.Either<ControlEvent, InvalidEvent> =>
  Either.flatMap(validate(value), (event) =>
    event.control_version === undefined ? Either.right(event) : Either.left(assigned(event))
  )

/**
 * Validates an event from the feed. A `control_version` is required.
 *
 * @since 0.1.0
 * @category validation
 */
export const validatePublished = (
  value: unknown
): Either.Either<ControlEvent & { readonly control_version: ControlVersion }, InvalidEvent> =>
  Either.flatMap(validate(value), (event) =>
    event.control_version === undefined
      ? Either.left(
          new InvalidEvent({ eventId: event.event_id, field: "control_version", reason: "is required in the feed" })
        )
      : Either.right(event as ControlEvent & { readonly control_version: ControlVersion })
  )

/**
 * Parses JSON text without validating the event. Returns an {@link InvalidEvent} if the text is not JSON.
 *
 * @since 0.1.0
 * @category encoding
 */
export const parse = (text: string): Either.Either<unknown, InvalidEvent> =>
  Either.try({
    try: (): unknown => JSON.parse(text),
    catch: () => new InvalidEvent({ field: "", reason: "must be JSON" })
  })

/**
 * Encodes an event as JSON text. Returns an {@link InvalidEvent} if JSON cannot represent a field (a bigint, a cycle).
 *
 * @since 0.1.0
 * @category encoding
 */
export const encode = (event: ControlEvent): Either.Either<string, InvalidEvent> =>
  Either.try({
    try: () => JSON.stringify(event),
    catch: () => new InvalidEvent({ eventId: event.event_id, field: "", reason: "must be encodable as JSON" })
  })

/**
 * Adds the control version to the JSON text of an unpublished event and changes nothing else.
 *
 * @since 0.1.0
 * @category encoding
 */
export const withControlVersion = (text: string, version: ControlVersion): string =>
  `${text.slice(0, text.lastIndexOf("}")).trimEnd()},"control_version":${version}}`

/**
 * Completes and validates an event. A missing `event_id` is generated (see `EventId.generate`); a missing `created_at`
 * is the time of `Clock`. Fails with {@link InvalidEvent}.
 *
 * @example
 * import { ControlEvent } from "controlpublish"
 *
 * const event = ControlEvent.make({ type: "tenant.created", tenant_id: "t1", plan: "gold" })
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (input: Input): Effect.Effect<ControlEvent, InvalidEvent> =>
  Effect.map(makeAll([input]), (events) => events[0]!)

/**
 * Completes and validates many events at one instant. Fails with the first invalid one.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeAll = (inputs: ReadonlyArray<Input>): Effect.Effect<ReadonlyArray<ControlEvent>, InvalidEvent> =>
  Effect.gen(function* () {
    const createdAt = DateTime.formatIso(yield* DateTime.now)
    const events: Array<ControlEvent> = []
    for (const input of inputs) {
      const event = validateUnpublished({
        ...input,
        ...(input.event_id === undefined ? { event_id: yield* EventId.generate } : {}),
        ...(input.created_at === undefined ? { created_at: createdAt } : {})
      })
      if (Either.isLeft(event)) return yield* event.left
      events.push(event.right)
    }
    return events
  })
