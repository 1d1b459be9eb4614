/**
 * The HTTP API of the service, for those who operate it: what it can be asked, and what it answers.
 *
 * Instants are in milliseconds since the epoch, here as everywhere.
 *
 * @since 1.0.0
 */
import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as HttpApiMiddleware from "@effect/platform/HttpApiMiddleware"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as HttpApiSecurity from "@effect/platform/HttpApiSecurity"
import * as OpenApi from "@effect/platform/OpenApi"
import * as Schema from "effect/Schema"
import { AuditPage, EventDetail, EventFilter, EventPage, EventState, Overview } from "../../OutboxAdmin.js"
import { PumpStatus } from "../../PumpStatus.js"

// -----------------------------------------------------------------------------
// errors
// -----------------------------------------------------------------------------

/**
 * The token is missing or wrong.
 *
 * @since 1.0.0
 * @category errors
 */
export class Unauthorized extends Schema.TaggedError<Unauthorized>("controlpublish/admin/Unauthorized")(
  "Unauthorized",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 401 })
) {}

/**
 * The request comes from another site's page, or is addressed to a host that is not this one.
 *
 * @since 1.0.0
 * @category errors
 */
export class Forbidden extends Schema.TaggedError<Forbidden>("controlpublish/admin/Forbidden")(
  "Forbidden",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 403 })
) {}

/**
 * A field of the request has a value that cannot be.
 *
 * @since 1.0.0
 * @category errors
 */
export class BadRequest extends Schema.TaggedError<BadRequest>("controlpublish/admin/BadRequest")(
  "BadRequest",
  { field: Schema.String, message: Schema.String },
  HttpApiSchema.annotations({ status: 400 })
) {}

/**
 * @since 1.0.0
 * @category errors
 */
export class NotFound extends Schema.TaggedError<NotFound>("controlpublish/admin/NotFound")(
  "NotFound",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 404 })
) {}

/**
 * The event, or the pump, is in a state in which this cannot be done.
 *
 * @since 1.0.0
 * @category errors
 */
export class Conflict extends Schema.TaggedError<Conflict>("controlpublish/admin/Conflict")(
  "Conflict",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 409 })
) {}

/**
 * The database did not answer, or not in time.
 *
 * @since 1.0.0
 * @category errors
 */
export class Unavailable extends Schema.TaggedError<Unavailable>("controlpublish/admin/Unavailable")(
  "Unavailable",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 503 })
) {}

// -----------------------------------------------------------------------------
// schemas
// -----------------------------------------------------------------------------

/**
 * @since 1.0.0
 * @category schemas
 */
export const Check = Schema.Struct({
  ok: Schema.Boolean,
  /** What is wrong, or how it is. */
  message: Schema.String
}).annotations({ identifier: "Check" })

/**
 * Whether the service can do its work, and if not, what is in its way.
 *
 * @since 1.0.0
 * @category schemas
 */
export const Health = Schema.Struct({
  ready: Schema.Boolean,
  database: Check,
  sink: Check,
  pump: Check
}).annotations({ identifier: "Health" })

/**
 * Not ready.
 *
 * @since 1.0.0
 * @category errors
 */
export class NotReady extends Schema.TaggedError<NotReady>("controlpublish/admin/NotReady")(
  "NotReady",
  Health.fields,
  HttpApiSchema.annotations({ status: 503 })
) {}

/**
 * The state of the service, read at most once a second for all who ask.
 *
 * @since 1.0.0
 * @category schemas
 */
export const Status = Schema.Struct({
  /** When this was read. */
  at: Schema.Number,
  version: Schema.String,
  startedAt: Schema.Number,
  health: Health,
  /** The pump of this process; other processes have others. */
  pump: PumpStatus,
  /** Events a second over the last seconds; absent until there are two readings. */
  rates: Schema.Struct({
    /** Appended by all, those rolled back included. */
    appended: Schema.optional(Schema.Number),
    /** Published by this process. */
    published: Schema.optional(Schema.Number)
  }),
  /** Absent while the database does not answer. */
  outbox: Schema.optional(Overview),
  oldestPendingAgeMillis: Schema.optional(Schema.Number),
  retention: Schema.String
}).annotations({ identifier: "Status" })

/**
 * @since 1.0.0
 * @category models
 */
export type Status = typeof Status.Type

const reason = Schema.Trim.pipe(Schema.minLength(1), Schema.maxLength(500))

/**
 * Why something is done by hand.
 *
 * @since 1.0.0
 * @category schemas
 */
export const Reason = Schema.Struct({ reason }).annotations({ identifier: "Reason" })

const Affected = Schema.Struct({ affected: Schema.Number }).annotations({ identifier: "Affected" })

const limit = Schema.optional(Schema.NumberFromString.pipe(Schema.int(), Schema.between(1, 500)))

const cursor = Schema.optional(Schema.NonEmptyString)

const instant = Schema.optional(Schema.NumberFromString.pipe(Schema.nonNegative()))

const eventPath = Schema.Struct({ eventId: Schema.NonEmptyString })

// -----------------------------------------------------------------------------
// groups
// -----------------------------------------------------------------------------

/**
 * Who may ask: checks the token where one is needed, and refuses other sites' pages.
 *
 * @since 1.0.0
 * @category middlewares
 */
export class Access extends HttpApiMiddleware.Tag<Access>()("controlpublish/admin/Access", {
  failure: Schema.Union(Unauthorized, Forbidden),
  security: { token: HttpApiSecurity.bearer }
}) {}

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
      .annotate(OpenApi.Description, "Database, sink and pump can do their work; else 503 with what is in the way.")
  )

const outbox = HttpApiGroup.make("outbox")
  .add(HttpApiEndpoint.get("status", "/api/status").addSuccess(Status))
  .add(
    HttpApiEndpoint.get("events", "/api/events")
      .setUrlParams(
        Schema.Struct({
          id: Schema.optional(Schema.NonEmptyString),
          type: Schema.optional(Schema.NonEmptyString),
          tenant: Schema.optional(Schema.NonEmptyString),
          key: Schema.optional(Schema.String),
          state: Schema.optional(EventState),
          since: instant,
          until: instant,
          limit,
          cursor
        })
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
  .add(HttpApiEndpoint.get("audit", "/api/audit").setUrlParams(Schema.Struct({ limit, cursor })).addSuccess(AuditPage))
  .add(
    HttpApiEndpoint.post("redrive", "/api/redrive")
      .setPayload(Schema.Struct({ filter: EventFilter, reason }))
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
    HttpApiEndpoint.post("prune", "/api/retention/run")
      .setPayload(Reason)
      .addSuccess(Affected)
      .addError(Conflict)
      .annotate(OpenApi.Description, "Runs the retention now.")
  )
  .addError(Unavailable)
  .addError(BadRequest)
  .middleware(Access)

const pump = HttpApiGroup.make("pump")
  .add(HttpApiEndpoint.post("pause", "/api/pump/pause").setPayload(Reason).addSuccess(PumpStatus))
  .add(HttpApiEndpoint.post("resume", "/api/pump/resume").setPayload(Reason).addSuccess(PumpStatus))
  .annotate(OpenApi.Description, "The pump of this process: others go on.")
  .addError(Unavailable)
  .addError(BadRequest)
  .middleware(Access)

/**
 * The API. Beside it the service answers `GET /api/stream` (server-sent events named `status`, each a `Status`),
 * `GET /metrics` (Prometheus), `GET /docs` and the dashboard at `GET /`.
 *
 * @since 1.0.0
 * @category api
 */
export class AdminApi extends HttpApi.make("controlpublish")
  .add(health)
  .add(outbox)
  .add(pump)
  .annotate(OpenApi.Title, "controlpublish")
  .annotate(OpenApi.Description, "Look into an outbox, and mend it.") {}
