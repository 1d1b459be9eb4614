import { HttpApi, HttpApiBuilder } from "@effect/platform"
import { AdminApp, NoOutbox } from "controlpublish/admin"
import { Layer } from "effect"
import { OperatorsOnly } from "./mounted.js"

class Api extends HttpApi.make("node") {}

// Needs the application's HttpServer, and the Applier and AppliedEvents that the node runs anyway.
export const NodeServer = HttpApiBuilder.serve().pipe(
  Layer.provide(AdminApp.layerNode({ path: "/ops/node" })),
  Layer.provide([OperatorsOnly, NoOutbox.layer]),
  Layer.provide(HttpApiBuilder.api(Api))
)
