/**
 * The HTTP API for operators: endpoints, and the schemas of what they answer.
 *
 * Instants are in milliseconds since the epoch.
 *
 * @since 0.1.0
 */
import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as HttpApiMiddleware from "@effect/platform/HttpApiMiddleware"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as HttpApiSecurity from "@effect/platform/HttpApiSecurity"
import * as OpenApi from "@effect/platform/OpenApi"
import * as Context from "effect/Context"
import * as Schema from "effect/Schema"
import { AuditPage, Erased, EventDetail, EventPage, EventState, OutboxIdentity, Overview } from "../OutboxAdmin.js"
import { FeedBound } from "../FeedBound.js"
import { AttendedPump, PumpStatus } from "../PumpStatus.js"
import { version } from "../internal/version.js"
import { BadRequest, Conflict, Forbidden, NotFound, TooManyRequests, Unauthorized, Unavailable } from "./ApiErrors.js"
import { Node } from "./NodeView.js"
import { withoutDecodeErrors } from "./internal/openApi.js"

export { BadRequest, Conflict, Forbidden, NotFound, TooManyRequests, Unauthorized, Unavailable }

/**
 * One check of the service's health.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Check = Schema.Struct({
  ok: Schema.Boolean,
  /** The failure, or the current state. */
  message: Schema.String,
  /** When the failure began. Absent while the check passes. */
  since: Schema.optional(Schema.Number)
}).annotations({ identifier: "Check" })

/**
 * One check of the service's health.
 *
 * @since 0.1.0
 * @category models
 */
export type Check = typeof Check.Type

/**
 * Whether the service can publish, and the check that fails if it cannot.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Health = Schema.Struct({
  ready: Schema.Boolean,
  database: Check,
  sink: Check,
  pump: Check,
  /** What the settings of the feed limit, as the sink found them last. They make no check fail. */
  bounds: Schema.Array(FeedBound)
}).annotations({ identifier: "Health" })

/**
 * Whether the service can publish, with the checks.
 *
 * @since 0.1.0
 * @category models
 */
export type Health = typeof Health.Type

/**
 * The service cannot publish. Carries the checks.
 *
 * @since 0.1.0
 * @category errors
 */
export class NotReady extends Schema.TaggedError<NotReady>("controlpublish/admin/NotReady")(
  "NotReady",
  Health.fields,
  HttpApiSchema.annotations({ status: 503, identifier: "NotReady" })
) {}

/**
 * The state of the service. All clients share one reading a second.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Status = Schema.Struct({
  /** When this was read. */
  at: Schema.Number,
  version: Schema.String,
  startedAt: Schema.Number,
  health: Health,
  /** The pump of this process. Other processes run pumps of their own. */
  pump: PumpStatus,
  /** All pumps of the outbox that say how they are, this one included. Absent until they were read. */
  pumps: Schema.optional(Schema.Array(AttendedPump)),
  /** Events per second over the last 10 seconds. Absent until there are two readings. */
  rates: Schema.Struct({
    /** Appended by all applications, rolled-back appends included. */
    appended: Schema.optional(Schema.Number),
    /** Published by this process. */
    published: Schema.optional(Schema.Number)
  }),
  /** The last overview that was read. While the database does not answer, it is older than `at`. */
  outbox: Schema.optional(Overview),
  /** When `outbox` was read. */
  outboxAt: Schema.optional(Schema.Number),
  /** The age of the oldest pending event at `at`. */
  oldestPendingAgeMillis: Schema.optional(Schema.Number),
  retention: Schema.String
}).annotations({ identifier: "Status" })

/**
 * The state of the service at one instant.
 *
 * @since 0.1.0
 * @category models
 */
export type Status = typeof Status.Type

/**
 * One reading for the charts. Absent fields could not be read.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Sample = Schema.Struct({
  at: Schema.Number,
  /** Pending events, up to the limit of the count. */
  pending: Schema.optional(Schema.Number),
  /** Events appended a second, by all applications. */
  appended: Schema.optional(Schema.Number),
  /** Events published a second, by this process. */
  published: Schema.optional(Schema.Number)
}).annotations({ identifier: "Sample" })

/**
 * One reading for the charts.
 *
 * @since 0.1.0
 * @category models
 */
export type Sample = typeof Sample.Type

/**
 * The samples of the last ten minutes, oldest first.
 *
 * @since 0.1.0
 * @category schemas
 */
export const History = Schema.Struct({ samples: Schema.Array(Sample) }).annotations({ identifier: "History" })

// A misspelled name must not widen a filter, so unknown names are rejected. PostgreSQL's text holds no NUL.
const strict = { parseOptions: { onExcessProperty: "error" } } as const

const text = Schema.String.pipe(
  Schema.filter((value) => !value.includes("\u0000") && value.isWellFormed(), {
    message: () => "has a character that no text in the database can have"
  })
)

const nonEmpty = text.pipe(Schema.minLength(1))

const reason = Schema.Trim.pipe(Schema.compose(text), Schema.minLength(1), Schema.maxLength(500))

/**
 * Why an operator does something. The audit log keeps it.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Reason = Schema.Struct({ reason }).annotations({ identifier: "Reason", ...strict })

const Affected = Schema.Struct({ affected: Schema.Number }).annotations({ identifier: "Affected" })

/** The largest page size. */
const largest = 500

const page = {
  limit: Schema.optional(Schema.NumberFromString.pipe(Schema.int(), Schema.between(1, largest))),
  cursor: Schema.optional(nonEmpty)
}

/** The range of a Date. */
const instant = Schema.Number.pipe(Schema.between(0, 8.64e15))

const instantFromString = Schema.optional(Schema.NumberFromString.pipe(Schema.compose(instant)))

const eventPath = Schema.Struct({ eventId: nonEmpty })

/** A filter of parked events, with the names that `GET /api/events` has. */
const ParkedFilter = Schema.Struct({
  id: Schema.optional(nonEmpty),
  type: Schema.optional(nonEmpty),
  tenant: Schema.optional(nonEmpty),
  key: Schema.optional(text),
  since: Schema.optional(instant),
  until: Schema.optional(instant)
}).annotations({ identifier: "ParkedFilter", ...strict })

/**
 * The client, as the audit log names it.
 *
 * @since 0.1.0
 * @category models
 */
export class Actor extends Context.Tag("controlpublish/admin/Actor")<Actor, string>() {}

// -----------------------------------------------------------------------------
// groups
// -----------------------------------------------------------------------------

/**
 * Authenticates each request and provides its {@link Actor}.
 *
 * @since 0.1.0
 * @category middlewares
 */
export class Access extends HttpApiMiddleware.Tag<Access>()("controlpublish/admin/Access", {
  failure: Schema.Union(Unauthorized, Forbidden, TooManyRequests),
  provides: Actor,
  security: { token: HttpApiSecurity.bearer }
}) {}

/**
 * Rejects bodies that are nested more than 32 levels deep.
 *
 * @since 0.1.0
 * @category middlewares
 */
export class Shape extends HttpApiMiddleware.Tag<Shape>()("controlpublish/admin/Shape", { failure: BadRequest }) {}

const health = HttpApiGroup.make("health")
  .add(
    HttpApiEndpoint.get("live", "/health/live")
      .addSuccess(Schema.Struct({ live: Schema.Literal(true) }))
      .annotate(OpenApi.Description, "The process answers.")
  )
  .add(
    HttpApiEndpoint.get("ready", "/health/ready")
      .addSuccess(Health)
      .addError(NotReady)
      .annotate(OpenApi.Description, "200 if database, sink and pump are healthy, else 503 with the checks.")
  )

const outbox = HttpApiGroup.make("outbox")
  .add(HttpApiEndpoint.get("status", "/api/status").addSuccess(Status))
  .add(
    HttpApiEndpoint.get("identity", "/api/identity")
      .addSuccess(OutboxIdentity)
      .annotate(OpenApi.Description, "Which outbox the service works on, so that nobody operates another one.")
  )
  .add(
    HttpApiEndpoint.get("history", "/api/history")
      .addSuccess(History)
      .annotate(OpenApi.Description, "Backlog and rates of the last ten minutes.")
  )
  .add(
    HttpApiEndpoint.get("stream", "/api/stream")
      .addSuccess(Schema.String.pipe(HttpApiSchema.withEncoding({ kind: "Text", contentType: "text/event-stream" })))
      .addError(TooManyRequests)
      .annotate(
        OpenApi.Description,
        "Server-sent events named `status`, one Status per second. A slow reader misses some."
      )
  )
  .add(
    HttpApiEndpoint.get("events", "/api/events")
      .setUrlParams(
        Schema.Struct({
          id: Schema.optional(nonEmpty),
          type: Schema.optional(nonEmpty),
          tenant: Schema.optional(nonEmpty),
          key: Schema.optional(text),
          state: Schema.optional(
            EventState.annotations({
              // The default message names the first state only.
              message: () => ({ message: "valid is pending, waiting, parked or published", override: true })
            })
          ),
          since: instantFromString,
          until: instantFromString,
          ...page
        }).annotations(strict)
      )
      .addSuccess(EventPage)
      .annotate(
        OpenApi.Description,
        "Newest first. A page looks at a bounded number of rows, so it may be short while `next` is given."
      )
  )
  .add(
    HttpApiEndpoint.get("event", "/api/events/:eventId").setPath(eventPath).addSuccess(EventDetail).addError(NotFound)
  )
  .add(
    HttpApiEndpoint.get("payload", "/api/events/:eventId/payload")
      .setPath(eventPath)
      .addSuccess(Schema.String.pipe(HttpApiSchema.withEncoding({ kind: "Text", contentType: "application/json" })))
      .addError(NotFound)
      .addError(Conflict)
      .addError(TooManyRequests)
      .annotate(OpenApi.Description, "The whole payload as the feed carries it, as a file to save.")
  )
  .add(
    HttpApiEndpoint.get("audit", "/api/audit")
      .setUrlParams(
        Schema.Struct({ ...page, changesOnly: Schema.optional(Schema.BooleanFromString) }).annotations(strict)
      )
      .addSuccess(AuditPage)
      .annotate(OpenApi.Description, "Newest first, with reads and refused writes unless changesOnly is true.")
  )
  .add(
    HttpApiEndpoint.post("redrive", "/api/redrive")
      .setPayload(Schema.Struct({ filter: ParkedFilter, reason }).annotations(strict))
      .addSuccess(Affected)
      .annotate(OpenApi.Description, "Redrives the parked events of a filter; all of them with an empty one.")
  )
  .add(
    HttpApiEndpoint.post("redriveEvent", "/api/events/:eventId/redrive")
      .setPath(eventPath)
      .setPayload(Reason)
      .addSuccess(Affected)
      .addError(NotFound)
      .addError(Conflict)
  )
  .add(
    HttpApiEndpoint.post("park", "/api/events/:eventId/park")
      .setPath(eventPath)
      .setPayload(Reason)
      .addSuccess(Affected)
      .addError(NotFound)
      .addError(Conflict)
  )
  .add(
    HttpApiEndpoint.post("discard", "/api/events/:eventId/discard")
      .setPath(eventPath)
      .setPayload(Reason)
      .addSuccess(Affected)
      .addError(NotFound)
      .addError(Conflict)
  )
  .add(
    HttpApiEndpoint.post("erase", "/api/events/:eventId/erase")
      .setPath(eventPath)
      .setPayload(Reason)
      .addSuccess(Erased)
      .addError(NotFound)
      .addError(Conflict)
      .annotate(OpenApi.Description, "Replaces the payload of a published event by a marker, in the outbox alone.")
  )
  .add(
    HttpApiEndpoint.post("prune", "/api/retention/run")
      .setPayload(Reason)
      .addSuccess(Affected)
      .addError(Conflict)
      .annotate(OpenApi.Description, "Runs the retention now.")
  )
  .addError(Unavailable)
  .addError(BadRequest)
  .middleware(Shape)
  .middleware(Access)

const pump = HttpApiGroup.make("pump")
  .add(HttpApiEndpoint.post("pause", "/api/pump/pause").setPayload(Reason).addSuccess(PumpStatus))
  .add(HttpApiEndpoint.post("resume", "/api/pump/resume").setPayload(Reason).addSuccess(PumpStatus))
  .annotate(OpenApi.Description, "Acts on the pump of this process. Other processes' pumps continue.")
  .addError(Unavailable)
  .addError(BadRequest)
  .middleware(Shape)
  .middleware(Access)

const node = HttpApiGroup.make("node")
  .add(
    HttpApiEndpoint.get("node", "/api/node")
      .addSuccess(Node)
      .annotate(OpenApi.Description, "The applier of this process, and what it set aside. Empty if it runs none.")
  )
  .middleware(Access)

/**
 * The API. The same server answers `GET /metrics` (Prometheus), `GET /openapi.json`, `GET /docs` and the dashboard at
 * `GET /`.
 *
 * @since 0.1.0
 * @category api
 */
export class AdminApi extends HttpApi.make("controlpublish")
  .add(health)
  .add(outbox)
  .add(pump)
  .add(node)
  .annotate(OpenApi.Title, "controlpublish")
  .annotate(OpenApi.Version, version)
  .annotate(OpenApi.Transform, withoutDecodeErrors)
  .annotate(OpenApi.Description, "Inspect and operate an outbox.") {}
