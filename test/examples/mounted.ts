import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup, HttpServerRequest } from "@effect/platform"
import { AdminApi, AdminApp } from "controlpublish/admin"
import { Effect, Layer, Schema } from "effect"

// The application's own API.
class Api extends HttpApi.make("app").add(
  HttpApiGroup.make("tenants").add(HttpApiEndpoint.get("list", "/tenants").addSuccess(Schema.Array(Schema.String)))
) {}

const Tenants = HttpApiBuilder.group(Api, "tenants", (handlers) =>
  handlers.handle("list", () => Effect.succeed(["t1"]))
)

// Who may ask: here the session of the application's operators. The name is what the audit log keeps.
export const OperatorsOnly = Layer.succeed(AdminApi.Access, {
  token: () =>
    Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ cookies }) =>
      cookies.operator === undefined
        ? new AdminApi.Unauthorized({ message: "Sign in as an operator" })
        : Effect.succeed(cookies.operator)
    )
})

export const Application = Layer.provide(HttpApiBuilder.api(Api), Tenants)

// Needs the application's HttpServer, and the OutboxAdmin, Pump, Retention and Sink that it runs anyway.
export const Server = HttpApiBuilder.serve().pipe(
  Layer.provide(AdminApp.layer({ path: "/ops/outbox" })),
  Layer.provide(OperatorsOnly),
  Layer.provide(Application)
)
