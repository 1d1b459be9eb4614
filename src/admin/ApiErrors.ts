/**
 * The errors of the admin API, each with its status.
 *
 * @since 0.1.0
 */
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as Schema from "effect/Schema"

/**
 * The token is missing or wrong.
 *
 * @since 0.1.0
 * @category errors
 */
export class Unauthorized extends Schema.TaggedError<Unauthorized>("controlpublish/admin/Unauthorized")(
  "Unauthorized",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 401, identifier: "Unauthorized" })
) {}

/**
 * The request comes from a page of another site, names an unknown host, or exceeds the token's role.
 *
 * @since 0.1.0
 * @category errors
 */
export class Forbidden extends Schema.TaggedError<Forbidden>("controlpublish/admin/Forbidden")(
  "Forbidden",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 403, identifier: "Forbidden" })
) {}

/**
 * A field of the request is invalid.
 *
 * @since 0.1.0
 * @category errors
 */
export class BadRequest extends Schema.TaggedError<BadRequest>("controlpublish/admin/BadRequest")(
  "BadRequest",
  { field: Schema.String, message: Schema.String },
  HttpApiSchema.annotations({ status: 400, identifier: "BadRequest" })
) {}

/**
 * No event has the given id.
 *
 * @since 0.1.0
 * @category errors
 */
export class NotFound extends Schema.TaggedError<NotFound>("controlpublish/admin/NotFound")(
  "NotFound",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 404, identifier: "NotFound" })
) {}

/**
 * The state of the event or of the pump does not allow the action.
 *
 * @since 0.1.0
 * @category errors
 */
export class Conflict extends Schema.TaggedError<Conflict>("controlpublish/admin/Conflict")(
  "Conflict",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 409, identifier: "Conflict" })
) {}

/**
 * The client sent too many wrong tokens or holds too many streams open.
 *
 * @since 0.1.0
 * @category errors
 */
export class TooManyRequests extends Schema.TaggedError<TooManyRequests>("controlpublish/admin/TooManyRequests")(
  "TooManyRequests",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 429, identifier: "TooManyRequests" })
) {}

/**
 * The database failed or did not answer in time.
 *
 * @since 0.1.0
 * @category errors
 */
export class Unavailable extends Schema.TaggedError<Unavailable>("controlpublish/admin/Unavailable")(
  "Unavailable",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 503, identifier: "Unavailable" })
) {}
