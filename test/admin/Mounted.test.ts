/** The dashboard, mounted in an application's own server below a path, with the application's own sign-in. */
import { HttpServer } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { HttpApiBuilder } from "@effect/platform"
import { AdminApp, NoOutbox, type NodeView } from "controlpublish/admin"
import { Applier, ArtifactStore, Handlers } from "controlpublish/fleet"
import {
  MemoryAppliedEvents,
  MemoryOutboxAdmin,
  MemoryOutboxStore,
  MemorySink,
  MemorySource
} from "controlpublish/testing"
import Axe from "axe-core"
import { Context, Effect, Layer, Schema } from "effect"
import { createServer } from "node:http"
import { afterAll, beforeAll } from "vitest"
import * as EventType from "../../src/EventType.js"
import * as Outbox from "../../src/Outbox.js"
import * as Pump from "../../src/Pump.js"
import * as PumpConfig from "../../src/PumpConfig.js"
import * as Retention from "../../src/Retention.js"
import * as Mounted from "../examples/mounted.js"
import * as MountedNode from "../examples/mountedNode.js"
import * as Browser from "./support/browser.js"

const services = Layer.mergeAll(Outbox.layer, Pump.layer, Retention.layer({ keep: "all" })).pipe(
  Layer.provideMerge(MemoryOutboxAdmin.layer),
  Layer.provideMerge(Layer.mergeAll(MemoryOutboxStore.layer, MemorySink.layer)),
  Layer.provide(PumpConfig.layerDefaults)
)

/** The example's application, as it stands in the docs. */
const application = Effect.gen(function* () {
  const outbox = yield* Layer.build(services)
  const server = yield* Layer.build(
    Mounted.Server.pipe(
      Layer.provideMerge(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })),
      Layer.provide(Layer.succeedContext(outbox))
    )
  )
  const { address } = Context.get(server, HttpServer.HttpServer)
  assert(address._tag === "TcpAddress")
  return { outbox, url: `http://127.0.0.1:${address.port}` }
})

const get = (url: string, headers: Record<string, string> = {}) =>
  Effect.promise(() => fetch(url, { headers, redirect: "manual" }))

describe("AdminApp", () => {
  it.scopedLive("answers below its path alone, and leaves the application's own routes alone", () =>
    Effect.gen(function* () {
      const { url } = yield* application
      assert.deepStrictEqual(yield* Effect.promise(async () => (await fetch(`${url}/tenants`)).json()), ["t1"])
      assert.strictEqual((yield* get(`${url}/api/status`)).status, 404)
      assert.strictEqual((yield* get(`${url}/ops/outbox/health/ready`)).status, 200)
      assert.strictEqual((yield* get(`${url}/ops/outbox/metrics`)).status, 200)
      assert.strictEqual((yield* get(`${url}/ops/outboxes/api/status`)).status, 404)
      const base = yield* get(`${url}/ops/outbox`)
      assert.deepStrictEqual([base.status, base.headers.get("location")], [308, "./outbox/"])
    })
  )

  it.scopedLive("asks the application who may do what, and keeps its answer in the audit", () =>
    Effect.gen(function* () {
      const { outbox, url } = yield* application
      const admin = `${url}/ops/outbox`
      const refused = yield* get(`${admin}/api/status`)
      assert.strictEqual(refused.status, 401)
      assert.include(yield* Effect.promise(() => refused.text()), "Sign in as an operator")
      const cookie = { cookie: "operator=ada" }
      assert.strictEqual((yield* get(`${admin}/api/status`, cookie)).status, 200)
      const paused = yield* Effect.promise(() =>
        fetch(`${admin}/api/pump/pause`, {
          method: "POST",
          headers: { ...cookie, "content-type": "application/json" },
          body: JSON.stringify({ reason: "the broker is moved" })
        })
      )
      assert.strictEqual(paused.status, 200)
      assert.strictEqual((yield* Context.get(outbox, Pump.Pump).status).state, "paused")
      const audit = yield* get(`${admin}/api/audit`, cookie)
      assert.include(yield* Effect.promise(() => audit.text()), `"actor":"ada"`)
      const foreign = yield* get(`${admin}/api/status`, { ...cookie, origin: "https://elsewhere.example" })
      assert.strictEqual(foreign.status, 403)
    })
  )

  it.scopedLive("ends its streams with its scope", () =>
    Effect.gen(function* () {
      const streamed = yield* Effect.scoped(
        Effect.gen(function* () {
          const { url } = yield* application
          const response = yield* get(`${url}/ops/outbox/api/stream`, { cookie: "operator=ada" })
          const reader = response.body!.getReader()
          yield* Effect.promise(() => reader.read())
          return reader
        })
      )
      const ended = Effect.tryPromise(async () => {
        while (!(await streamed.read()).done);
      })
      yield* Effect.timeout(Effect.ignore(ended), "5 seconds")
    })
  )
})

class PlanLocked extends Schema.TaggedError<PlanLocked>()("PlanLocked", { message: Schema.String }) {}

/** An applier with a feed in memory that sets aside what it cannot apply. */
const node = Applier.layer(
  Handlers.make(
    [EventType.make("plan.changed", { event_id: Schema.String, plan: Schema.Literal("free", "gold") })],
    {
      "plan.changed": ({ event_id }) =>
        event_id === "hard" ? Effect.fail(new PlanLocked({ message: "the plan is locked" })) : Effect.void
    },
    { otherwise: "skip" }
  ),
  { cannotApply: "setAside" }
).pipe(
  Layer.provideMerge(MemoryAppliedEvents.layer),
  Layer.provideMerge(MemorySource.layer),
  Layer.provide(ArtifactStore.layerNone)
)

/** An application that has a node and no outbox. */
const nodeApplication = (dashboard?: string) =>
  Effect.gen(function* () {
    const context = yield* Layer.build(node)
    const mounted =
      dashboard === undefined
        ? MountedNode.NodeServer
        : HttpApiBuilder.serve().pipe(
            Layer.provide(AdminApp.layerNode({ path: "/ops/node", dashboard })),
            Layer.provide([Mounted.OperatorsOnly, NoOutbox.layer]),
            Layer.provide(Mounted.Application)
          )
    const server = yield* Layer.build(
      mounted.pipe(
        Layer.provideMerge(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })),
        Layer.provide(Layer.succeedContext(context))
      )
    )
    const { address } = Context.get(server, HttpServer.HttpServer)
    assert(address._tag === "TcpAddress")
    return { feed: Context.get(context, MemorySource.MemorySource), url: `http://127.0.0.1:${address.port}` }
  })

const plan = (event_id: string, plan: string) => JSON.stringify({ event_id, type: "plan.changed", plan })

describe("AdminApp on a node", () => {
  it.scopedLive("answers how far the applier is and what it set aside, to those who may ask", () =>
    Effect.gen(function* () {
      const { feed, url } = yield* nodeApplication()
      yield* feed.append([plan("e1", "gold"), plan("e2", "silver"), plan("e3", "free")])
      const path = `${url}/ops/node/api/node`
      assert.strictEqual((yield* get(path)).status, 401)
      const read = Effect.flatMap(get(path, { cookie: "operator=ada" }), (response) =>
        Effect.promise(async () => (await response.json()) as NodeView.Node)
      )
      const settled = yield* Effect.repeat(Effect.delay(read, "10 millis"), {
        until: ({ applier }) => applier?.position === 3
      })
      assert.deepInclude(settled.applier, { state: "idle", applied: 2, setAside: 1, newest: 3, source: "memory" })
      assert.deepStrictEqual(
        [settled.lag, settled.asides?.map(({ eventId, version }) => [eventId, version])],
        [0, [["e2", 2]]]
      )
      yield* feed.append([plan("hard", "gold"), plan("e5", "gold")])
      const halted = yield* Effect.repeat(Effect.delay(read, "10 millis"), {
        until: ({ applier, lag }) => applier?.state === "halted" && lag === 2
      })
      assert.deepInclude(halted.applier?.lastError, { version: 4 })
      // There is no outbox, and no request that could change one.
      const status = yield* get(`${url}/ops/node/api/status`, { cookie: "operator=ada" })
      assert.include(yield* Effect.promise(() => status.text()), `"inert"`)
    })
  )

  it.scopedLive("is an empty answer where there is no applier", () =>
    Effect.gen(function* () {
      const { url } = yield* application
      const answer = yield* get(`${url}/ops/outbox/api/node`, { cookie: "operator=ada" })
      assert.hasAllKeys(yield* Effect.promise(() => answer.json()), ["at"])
    })
  )
})

describe.runIf(Browser.available())("AdminApp in a browser", () => {
  let stage: Browser.Stage
  beforeAll(async () => {
    stage = await Browser.setStage()
  })
  afterAll(() => Browser.clearStage(stage))

  it.scopedLive("shows the dashboard below its path", () =>
    Effect.gen(function* () {
      const outbox = yield* Layer.build(services)
      const server = yield* Layer.build(
        HttpApiBuilder.serve().pipe(
          Layer.provide(AdminApp.layer({ path: "/ops/outbox", dashboard: stage.directory })),
          Layer.provide(Mounted.OperatorsOnly),
          Layer.provide(Mounted.Application),
          Layer.provideMerge(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })),
          Layer.provide(Layer.succeedContext(outbox))
        )
      )
      const { address } = Context.get(server, HttpServer.HttpServer)
      assert(address._tag === "TcpAddress")
      const url = `http://127.0.0.1:${address.port}`
      const page = yield* Browser.openPage(stage, `${url}/tenants`)
      yield* Effect.promise(() => page.context().addCookies([{ name: "operator", value: "ada", url }]))
      const asked: Array<string> = []
      page.on("request", (request) => asked.push(new URL(request.url()).pathname))
      yield* Effect.promise(() => page.goto(`${url}/ops/outbox`))
      yield* Effect.promise(() => page.getByRole("heading", { level: 1 }).filter({ hasText: "Idle" }).waitFor())
      yield* Effect.promise(async () => {
        await page.getByRole("button", { name: "Pause…" }).click()
        await page.getByLabel("Reason").fill("to see that it does")
        await page.getByRole("dialog").getByRole("button", { name: "Pause", exact: true }).click()
        await page.getByRole("heading", { level: 1 }).filter({ hasText: "Paused" }).waitFor()
        await page.getByRole("cell", { name: "ada" }).waitFor()
      })
      assert.deepStrictEqual(
        asked.filter((path) => !path.startsWith("/ops/outbox")),
        []
      )
    })
  )

  it.scopedLive("shows the node below its path, as its applier goes on", () =>
    Effect.gen(function* () {
      const { feed, url } = yield* nodeApplication(stage.directory)
      yield* feed.append([plan("e1", "gold"), plan("e2", "silver")])
      const page = yield* Browser.openPage(stage, `${url}/tenants`)
      yield* Effect.promise(() => page.context().addCookies([{ name: "operator", value: "ada", url }]))
      yield* Effect.promise(() => page.goto(`${url}/ops/node/`))
      const section = page.getByRole("region", { name: "Node" })
      const shows = (text: string) => Effect.promise(() => section.getByText(text).first().waitFor())
      yield* shows("Every event of the feed is applied.")
      yield* Effect.promise(() => page.getByRole("heading", { level: 1, name: /Node: idle/ }).waitFor())
      assert.strictEqual(yield* Effect.promise(() => page.getByText("Cannot read").count()), 0)
      yield* shows("of 2 in the feed")
      yield* Effect.promise(() => section.getByRole("cell", { name: "e2", exact: true }).waitFor())
      yield* feed.append([plan("hard", "gold")])
      yield* shows("Halted")
      yield* shows("Version 3: ")
      yield* Effect.promise(() => page.getByRole("heading", { level: 1, name: /Node: halted/ }).waitFor())
      yield* shows("version behind the feed")
      // As the page's policy forbids what is not its own, the check comes in by the debugger.
      const violations = yield* Effect.promise(async () => {
        await page.evaluate(Axe.source)
        const found = await page.evaluate<Axe.AxeResults>("axe.run({ resultTypes: ['violations'] })")
        return found.violations.map(({ help }) => help)
      })
      assert.deepStrictEqual(violations, [])
    })
  )
})
