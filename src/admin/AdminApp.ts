/**
 * The admin API, its description, the dashboard, health and metrics as one HTTP app, for an application to mount in a
 * server of its own.
 *
 * @since 0.1.0
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpApiSwagger from "@effect/platform/HttpApiSwagger"
import * as HttpIncomingMessage from "@effect/platform/HttpIncomingMessage"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { OutboxAdmin } from "../OutboxAdmin.js"
import type { Applier } from "../fleet/Applier.js"
import type { AppliedEvents } from "../fleet/AppliedEvents.js"
import type { Pump } from "../Pump.js"
import type { Retention } from "../Retention.js"
import type { Sink } from "../Sink.js"
import { AdminApi, type Access } from "./AdminApi.js"
import * as Dashboard from "./Dashboard.js"
import * as Answers from "./internal/answers.js"
import * as Guard from "./internal/guard.js"
import * as Handlers from "./internal/handlers.js"
import type * as Hosts from "./internal/hosts.js"
import * as RefusedWrites from "./internal/refusedWrites.js"
import * as Shape from "./internal/shape.js"
import * as NodeView from "./NodeView.js"
import * as Prometheus from "./Prometheus.js"
import * as StatusBoard from "./StatusBoard.js"

/**
 * Options of the mounted dashboard and admin API.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The directory of the dashboard's files. Default: where the build puts them. */
  readonly dashboard?: string | undefined
  /** Whether an address is a proxy that forwards many clients. Default: none is. */
  readonly isProxy?: ((address: string | undefined) => boolean) | undefined
  /** The node that the page shows. Default: none. See {@link layerNode}. */
  readonly node?: Layer.Layer<NodeView.NodeView> | undefined
}

/**
 * The services that the app shows and operates.
 *
 * @since 0.1.0
 * @category models
 */
export type Services = OutboxAdmin | Pump | Retention | Sink

class App extends Context.Tag("controlpublish/admin/App")<App, HttpApp.Default>() {}

/** The application's server decides which host names it answers. */
const anyHost: Hosts.Options = { loopback: false, allowed: new Set() }

/** The page's relative links need a trailing slash in its own path. */
const withSlash = (app: HttpApp.Default): HttpApp.Default =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ originalUrl, url }) => {
    const path = originalUrl.split("?", 1)[0]!
    return url === "/" && !path.endsWith("/")
      ? Effect.succeed(
          HttpServerResponse.empty({ status: 308, headers: { location: `./${path.split("/").at(-1)!}/` } })
        )
      : app
  })

/**
 * Makes the app. Its streams end when the scope closes.
 *
 * Its paths begin at `/`: the dashboard at `/`, the API below `/api`, `/docs`, `/openapi.json`, `/health/live`,
 * `/health/ready` and `/metrics`. Mount it below a path with `HttpRouter.mountApp`, or with `layer` into an `HttpApi`
 * server. `Access` is the application's own authentication; `/health`, `/metrics`, the page and `/docs` hold no event and
 * do not ask it.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options: Options & {
    /** The host names that the server answers. Default: any. */
    readonly hosts?: Hosts.Options | undefined
  } = {}
): Effect.Effect<HttpApp.Default, never, Access | Services | Scope.Scope> =>
  Effect.gen(function* () {
    const stopping = yield* Deferred.make<void>()
    const isProxy = options.isProxy ?? (() => false)
    const withRefusals = yield* RefusedWrites.make(yield* OutboxAdmin, isProxy)
    const api = HttpApiBuilder.api(AdminApi).pipe(
      Layer.provide([Handlers.health, Handlers.outbox({ stopping, isProxy }), Handlers.pump, Handlers.node]),
      Layer.provide(Shape.layer)
    )
    const routes = Layer.mergeAll(
      HttpApiBuilder.middlewareOpenApi(),
      HttpApiSwagger.layer(),
      Dashboard.layer({ directory: options.dashboard }),
      Prometheus.layer,
      HttpApiBuilder.middleware(Answers.explained)
    )
    const app = Layer.effect(
      App,
      Effect.zipWith(HttpApiBuilder.httpApp, Effect.context<HttpRouter.HttpRouter.DefaultServices>(), (app, services) =>
        withRefusals(
          Guard.guard(
            options.hosts ?? anyHost,
            withSlash(
              Effect.mapInputContext(
                HttpIncomingMessage.withMaxBodySize(app, Option.some(Guard.maxBody)),
                (request: Context.Context<HttpServerRequest.HttpServerRequest>) => Context.merge(services, request)
              )
            )
          )
        )
      )
    ).pipe(
      Layer.provide(routes),
      Layer.provide(api),
      Layer.provide(StatusBoard.layer),
      Layer.provide(options.node ?? NodeView.layerNone),
      Layer.provide([HttpApiBuilder.Router.Live, HttpApiBuilder.Middleware.layer]),
      Layer.provide(
        HttpRouter.setRouterConfig({
          maxParamLength: 16_384,
          caseSensitive: true,
          ignoreDuplicateSlashes: false,
          ignoreTrailingSlash: false
        })
      ),
      Layer.provide(NodeHttpServer.layerContext)
    )
    // Built apart from the application's own HttpApi, whose router it must not share.
    const memoMap = yield* Layer.makeMemoMap
    const context = yield* Layer.buildWithMemoMap(app, memoMap, yield* Effect.scope)
    // Streams end before the server stops.
    yield* Effect.addFinalizer(() => Deferred.succeed(stopping, undefined))
    return Context.get(context, App)
  })

/**
 * Mounts the app below a path of an application's `HttpApi` server.
 *
 * @example
 * ```ts
 * import { HttpServerRequest } from "@effect/platform"
 * import { AdminApi, AdminApp } from "controlpublish/admin"
 * import { Effect, Layer } from "effect"
 *
 * // Who may ask: the session of the application's own operators. The name is what the audit log keeps.
 * const OperatorsOnly = Layer.succeed(AdminApi.Access, {
 *   token: () =>
 *     Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ cookies }) =>
 *       cookies.operator === undefined
 *         ? new AdminApi.Unauthorized({ message: "Sign in as an operator" })
 *         : Effect.succeed(cookies.operator)
 *     )
 * })
 *
 * const Admin = AdminApp.layer({ path: "/ops/outbox" }).pipe(Layer.provide(OperatorsOnly))
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: Options & {
    /** The path of the app, without a trailing slash: `/ops/outbox`. */
    readonly path: `/${string}`
  }
): Layer.Layer<never, never, Access | Services> =>
  HttpApiBuilder.Router.use((router) => Effect.flatMap(make(options), (app) => router.mountApp(options.path, app)))

/**
 * Like {@link layer}, for an application that runs an applier: the page shows the node as well. An application without
 * an outbox provides `NoOutbox.layer`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNode = (
  options: Omit<Parameters<typeof layer>[0], "node">
): Layer.Layer<never, never, Access | Services | Applier | AppliedEvents> =>
  Layer.unwrapScoped(
    Effect.map(Layer.build(NodeView.layer), (view) => layer({ ...options, node: Layer.succeedContext(view) }))
  )
