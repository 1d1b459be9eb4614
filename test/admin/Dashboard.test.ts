/** The dashboard in a real browser: over the real server with an outbox in memory, and over a real `serve`. */
import { assert, describe, it } from "@effect/vitest"
import { MemoryOutboxStore, MemorySink } from "controlpublish/testing"
import Axe from "axe-core"
import { Context, Effect, Layer, Redacted } from "effect"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import type { BrowserContextOptions, Page } from "playwright-core"
import { afterAll, beforeAll } from "vitest"
import * as Outbox from "../../src/Outbox.js"
import { OutboxError } from "../../src/OutboxStore.js"
import { SinkUnavailable } from "../../src/Sink.js"
import * as Pump from "../../src/Pump.js"
import { indented } from "../../src/internal/indented.js"
import { layerDatabase, rawClient, TestDatabase } from "../support/postgres.js"
import { freezingProxy } from "../support/proxy.js"
import * as Browser from "./support/browser.js"
import * as Controlpublish from "../cli/support/controlpublish.js"

/**
 * Where pictures of the states go, if they are wanted, as those in the docs:
 * `SCREENSHOTS=docs/images npx vitest run --config test/vitest.config.ts test/admin/Dashboard.test.ts -t States`, and
 * then `pngquant --force --ext .png docs/images/*.png`.
 */
const screenshots = process.env.SCREENSHOTS ?? ""

let stage: Browser.Stage

const act = <A>(action: () => Promise<A>) => Effect.promise(action)

const text = (page: Page, name: string) => page.getByText(name, { exact: false }).first()

/** Waits until the page shows it. */
const sees = (page: Page, what: string) => act(() => text(page, what).waitFor())

const headline = (page: Page, what: string) =>
  act(() => page.getByRole("heading", { level: 1 }).filter({ hasText: what }).waitFor())

const press = (page: Page, ...keys: ReadonlyArray<string>) =>
  Effect.forEach(keys, (key) => act(() => page.keyboard.press(key)), { discard: true })

const button = (page: Page, name: string | RegExp) =>
  page.getByRole("button", typeof name === "string" ? { name, exact: true } : { name })

const click = (page: Page, name: string | RegExp) => act(() => button(page, name).click())

const confirm = (page: Page, name: string, reason: string) =>
  act(async () => {
    await page.getByLabel("Reason").fill(reason)
    await page.getByRole("dialog").getByRole("button", { name, exact: true }).click()
  })

const isWide = (page: Page) =>
  act(() => page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))

/** What axe finds that keeps people out. */
const violations = (page: Page) =>
  act(async () => {
    // As the page's policy forbids what is not its own, the check comes in by the debugger.
    await page.evaluate(Axe.source)
    const found = await page.evaluate<Axe.AxeResults>("axe.run({ resultTypes: ['violations'] })")
    return found.violations
      .flatMap(({ help, nodes }) => nodes.map(({ html }) => `${help}: ${html.slice(0, 150)}`))
      .slice(0, 5)
  })

const append = ({ outbox }: Browser.Service, ...events: ReadonlyArray<object>) =>
  Effect.gen(function* () {
    const service = Context.get(outbox, Outbox.Outbox)
    return yield* service.withTransaction(
      service.appendAll(events.map((event) => ({ type: "tenant.created", tenant_id: "t1", ...event })))
    )
  })

const sinkOf = ({ outbox }: Browser.Service) => Context.get(outbox, MemorySink.MemorySink)

/** An event that the sink rejects. */
const parked = (service: Browser.Service, event: { readonly event_id: string; readonly tenant_id?: string }) =>
  Effect.gen(function* () {
    yield* sinkOf(service).rejectEvent(event.event_id, { times: 1 })
    yield* append(service, event)
  })

const opened = (options: BrowserContextOptions = {}, settings: { readonly token?: string } = {}) =>
  Effect.gen(function* () {
    const service = yield* Browser.service(stage, settings)
    const page = yield* Browser.openPage(stage, service.url, options)
    return { service, page }
  })

describe("Text", () => {
  it("indents JSON and leaves every number and string as it is written", () => {
    assert.strictEqual(
      indented(`{"a":12345678901234567890,"b":[1.0,{}],"c":"{\\"x\\": [1,2]}","d":[],"e":null}`),
      `{\n  "a": 12345678901234567890,\n  "b": [\n    1.0,\n    {}\n  ],\n  "c": "{\\"x\\": [1,2]}",\n  "d": [],\n  "e": null\n}`
    )
    assert.strictEqual(indented("no { json"), "no { json")
  })
})

describe.runIf(Browser.available())("Dashboard", () => {
  beforeAll(async () => {
    stage = await Browser.setStage()
  })
  afterAll(() => Browser.clearStage(stage))

  it.scopedLive("loads without anything from elsewhere, and follows the state as it changes", () =>
    Effect.gen(function* () {
      const service = yield* Browser.service(stage)
      const page = yield* Browser.openPage(stage, "about:blank")
      const problems: Array<string> = []
      const urls = new Set<string>()
      page.on("console", (message) => {
        if (message.type() === "error") problems.push(message.text())
      })
      page.on("pageerror", (error) => problems.push(String(error)))
      page.on("request", (request) => urls.add(new URL(request.url()).origin))
      yield* act(() => page.goto(service.url))
      yield* headline(page, "Idle: everything is published")
      yield* sinkOf(service).setAvailable(false)
      yield* append(service, {}, {}, {})
      yield* headline(page, "Sink unreachable")
      yield* sees(page, "3 events pending")
      yield* act(() => page.getByRole("button", { name: /^Lane \d+: 3 pending/ }).waitFor())
      yield* sinkOf(service).setAvailable(true)
      yield* headline(page, "Idle: everything is published")
      yield* sees(page, "3 since the start")
      assert.deepStrictEqual(problems, [])
      assert.deepStrictEqual([...urls], [service.url])
    })
  )

  it.scopedLive("shows what the settings of the feed limit, and is no less healthy", () =>
    Effect.gen(function* () {
      const { page, service } = yield* opened()
      const bound = "nodes more than 30s or 5 messages behind cannot catch up"
      yield* sinkOf(service).setBounds([{ message: bound, reach: { millis: 30_000, events: 5 } }])
      yield* sees(page, bound)
      yield* headline(page, "Idle: everything is published")
      assert.deepStrictEqual(yield* violations(page), [])
    })
  )

  it.scopedLive("redrives one event and all of them, with a reason that the audit keeps", () =>
    Effect.gen(function* () {
      const { page, service } = yield* opened()
      for (const event_id of ["e1", "e2", "e3"]) yield* parked(service, { event_id })
      yield* headline(page, "parked")
      yield* click(page, "Redrive e2")
      yield* confirm(page, "Redrive", "the broker was mended")
      yield* sees(page, "The event is pending again.")
      yield* sees(page, "the broker was mended")
      yield* act(() => button(page, "Redrive e2").waitFor({ state: "detached" }))
      yield* click(page, "Redrive all 2…")
      yield* confirm(page, "Redrive", "all of them")
      yield* sees(page, "Pending again: 2 events.")
      yield* headline(page, "Idle: everything is published")
      const feed = yield* sinkOf(service).feed
      assert.sameMembers(
        feed.map(({ eventId }): string => eventId),
        ["e1", "e2", "e3"]
      )
    })
  )

  it.scopedLive("redrives what is filtered, and nothing else", () =>
    Effect.gen(function* () {
      const { page, service } = yield* opened()
      yield* parked(service, { event_id: "e1", tenant_id: "t1" })
      yield* parked(service, { event_id: "e2", tenant_id: "t2" })
      yield* act(() => button(page, "Redrive e1").waitFor())
      // Until the counts are there, the table shows events of any state.
      yield* act(() => button(page, "Parked 2").waitFor())
      yield* act(() => page.getByLabel("Tenant").fill("t2"))
      yield* press(page, "Enter")
      yield* act(() => button(page, "Redrive e1").waitFor({ state: "detached" }))
      yield* click(page, "Redrive filtered…")
      yield* confirm(page, "Redrive", "t2 is mended")
      yield* sees(page, "Pending again: 1 event.")
      yield* sees(page, "No event matches this filter.")
      yield* click(page, "Clear")
      yield* act(() => button(page, "Redrive e1").waitFor())
    })
  )

  it.scopedLive("parks and discards an event that waits", () =>
    Effect.gen(function* () {
      const { page, service } = yield* opened()
      yield* sinkOf(service).failEvent("e1")
      yield* append(service, { event_id: "e1" }, { event_id: "e2" })
      yield* headline(page, "waiting for a retry")
      yield* click(page, /^Waiting/)
      yield* click(page, "e1")
      yield* click(page, "Park…")
      yield* confirm(page, "Park", "it is in the way")
      yield* sees(page, "The event is parked.")
      yield* act(() => page.getByRole("dialog").getByText("The pump does not retry it").waitFor())
      yield* click(page, "Discard…")
      yield* confirm(page, "Discard", "nobody needs it")
      yield* sees(page, "The event is discarded.")
      yield* headline(page, "Idle: everything is published")
      assert.deepStrictEqual(
        (yield* Context.get(service.outbox, MemoryOutboxStore.MemoryOutboxStore).rows).map(
          ({ eventId }): string => eventId
        ),
        ["e2"]
      )
    })
  )

  it.scopedLive("pauses and resumes the pump, after a question that Escape answers with no", () =>
    Effect.gen(function* () {
      const { page, service } = yield* opened()
      yield* headline(page, "Idle: everything is published")
      yield* click(page, "Pause…")
      yield* press(page, "Escape")
      yield* act(() => page.getByRole("dialog").waitFor({ state: "detached" }))
      assert.strictEqual((yield* Context.get(service.outbox, Pump.Pump).status).state, "idle")
      yield* click(page, "Pause…")
      yield* confirm(page, "Pause", "the broker is moved")
      yield* headline(page, "Paused")
      yield* append(service, {})
      yield* sees(page, "1 event pending")
      yield* click(page, "Resume…")
      yield* confirm(page, "Resume", "it was moved")
      yield* headline(page, "Idle: everything is published")
      yield* sees(page, "the broker is moved")
    })
  )

  it.scopedLive("asks for the token where one is needed, and keeps it for the tab alone", () =>
    Effect.gen(function* () {
      const { page } = yield* opened({}, { token: "a-secret-of-mine" })
      const give = (token: string) =>
        act(async () => {
          await page.getByRole("textbox", { name: "Token" }).fill(token)
          await page.getByRole("button", { name: "Use token" }).click()
        })
      yield* sees(page, "The token is missing")
      yield* give("another")
      yield* sees(page, "The token is wrong")
      yield* give("a-secret-of-mine")
      yield* headline(page, "Idle: everything is published")
      yield* click(page, "Pause…")
      yield* confirm(page, "Pause", "with the token")
      yield* headline(page, "Paused")
      assert.deepStrictEqual(
        yield* act(() =>
          page.evaluate("[JSON.stringify(localStorage), Object.values(sessionStorage), document.cookie]")
        ),
        ["{}", ["a-secret-of-mine"], ""]
      )
    })
  )

  it.scopedLive("shows what an event holds as text, whatever it is", () =>
    Effect.gen(function* () {
      const { page, service } = yield* opened()
      const html = `<img src=x onerror="document.title='broken'"><script>document.title='broken'</script>`
      yield* parked(service, { event_id: `e1${html}`, tenant_id: `t1${html}` })
      yield* act(() => button(page, `e1${html}`).click())
      const dialog = page.getByRole("dialog")
      yield* act(() => dialog.getByText(`t1${html}`, { exact: true }).first().waitFor())
      yield* act(() => dialog.locator("pre").getByText("onerror").waitFor())
      assert.deepStrictEqual(
        yield* act(() => page.evaluate("[document.images.length, document.scripts.length]")),
        [0, 1]
      )
      assert.notInclude(yield* act(() => page.title()), "broken")
    })
  )

  it.scopedLive("stays usable with a type of 300 kB, a payload nested 6,500 deep, and one that is cut", () =>
    Effect.gen(function* () {
      const { page, service } = yield* opened()
      const { insert } = Context.get(service.outbox, MemoryOutboxStore.MemoryOutboxStore)
      const nested = `${`{"a":[`.repeat(3_250)}1,2${"]}".repeat(3_250)}`
      yield* insert({ eventId: "deep", type: "x".repeat(300_000), orderingKey: "k".repeat(300_000), payload: nested })
      yield* insert({ eventId: "large", payload: JSON.stringify({ text: "y".repeat(3_000_000) }) })
      yield* act(() => button(page, "Redrive deep").waitFor())
      yield* act(() => button(page, "deep").first().click())
      const dialog = page.getByRole("dialog")
      yield* act(() => dialog.getByText("type, orderingKey").waitFor())
      yield* act(() => dialog.locator("pre").getByText("1,2").waitFor())
      const size = yield* act(() => page.evaluate<number>("document.body.textContent.length"))
      assert.isBelow(size, 200_000)
      assert.strictEqual(yield* act(() => button(page, "Events of this key").count()), 0)
      // The event loop answers at once: nothing lays out megabytes.
      const lag = yield* act(() =>
        page.evaluate<number>(
          "new Promise((done) => { const at = performance.now(); requestAnimationFrame(() => setTimeout(() => done(performance.now() - at))) })"
        )
      )
      assert.isBelow(lag, 5_000)
      yield* press(page, "Escape")
      yield* act(() => button(page, "large").first().click())
      yield* act(() => dialog.getByText("Only the beginning of 3,000,011 bytes is shown.").waitFor())
      const [download] = yield* act(() =>
        Promise.all([page.waitForEvent("download"), button(page, "Download raw text").click()])
      )
      assert.strictEqual(download.suggestedFilename(), "large.json")
      const path = yield* act(() => download.path())
      assert.strictEqual((yield* act(() => Fs.stat(path))).size, 3_000_011)
    })
  )

  it.scopedLive("erases the payload of a published event, and says what still has it", () =>
    Effect.gen(function* () {
      const { page, service } = yield* opened()
      yield* append(service, { event_id: "e1", name: "Ada" })
      yield* headline(page, "Idle: everything is published")
      yield* click(page, /^Published/)
      yield* click(page, "e1")
      yield* act(() => page.getByRole("dialog").locator("pre").getByText("Ada").waitFor())
      yield* click(page, "Erase payload…")
      yield* act(async () => {
        const confirmation = page.getByRole("dialog", { name: "Erase this payload?" })
        await confirmation.getByLabel("Reason").fill("ticket 7")
        await confirmation.getByRole("button", { name: "Erase", exact: true }).click()
      })
      yield* sees(page, "The feed has the payload as control version 1")
      yield* act(() => page.getByRole("dialog").locator("pre").getByText('"erased": true').waitFor())
      assert.notInclude(yield* act(() => page.getByRole("dialog").innerText()), "Ada")
      yield* act(() => page.getByRole("cell", { name: "ticket 7" }).waitFor())
      assert.strictEqual(yield* act(() => page.getByRole("cell", { name: "shown", exact: true }).count()), 0)
    })
  )

  it.scopedLive("opens an event by its address, and goes back to the table with the key filtered", () =>
    Effect.gen(function* () {
      const service = yield* Browser.service(stage)
      yield* parked(service, { event_id: "e1/ü", tenant_id: "t1" })
      const page = yield* Browser.openPage(stage, `${service.url}/#event=${encodeURIComponent("e1/ü")}`)
      yield* act(() => page.getByRole("dialog", { name: "Event e1/ü" }).waitFor())
      yield* sees(page, "Failed attempts")
      yield* click(page, "Events of this key")
      yield* act(() => page.getByRole("dialog").waitFor({ state: "detached" }))
      assert.strictEqual(yield* act(() => page.getByLabel("Ordering key").inputValue()), "t1")
      yield* act(() => page.goBack())
      yield* act(() => page.getByRole("dialog", { name: "Event e1/ü" }).waitFor())
    })
  )

  it.scopedLive("pages through many events", () =>
    Effect.gen(function* () {
      const { page, service } = yield* opened()
      const events = Array.from({ length: 70 }, (_, index) => ({ event_id: `e${String(index + 1).padStart(2, "0")}` }))
      yield* append(service, ...events)
      yield* headline(page, "Idle: everything is published")
      yield* click(page, /^Published/)
      yield* act(() => button(page, "e70").waitFor())
      assert.strictEqual(yield* act(() => button(page, "e20").count()), 0)
      yield* click(page, "Older")
      yield* act(() => button(page, "e20").waitFor())
      yield* act(() => button(page, "e01").waitFor())
      assert.strictEqual(yield* act(() => button(page, "Older").count()), 0)
      yield* click(page, "Newer")
      yield* act(() => button(page, "e70").waitFor())
    })
  )

  it.scopedLive("is used with the keyboard alone", () =>
    Effect.gen(function* () {
      const { page, service } = yield* opened()
      yield* parked(service, { event_id: "e1", tenant_id: "t1" })
      yield* parked(service, { event_id: "e2", tenant_id: "t2" })
      yield* act(() => button(page, "Redrive e1").waitFor())
      yield* act(() => button(page, "Parked 2").waitFor())
      const focused = act(() =>
        page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent")
      )
      yield* press(page, "Tab")
      assert.strictEqual(yield* focused, "Skip to events")
      yield* press(page, "Enter")
      assert.strictEqual(yield* focused, "Parked 2")
      // The lanes are one stop, in which arrows move.
      yield* act(() => page.getByRole("button", { name: /^Lane/ }).first().focus())
      const first = yield* focused
      yield* press(page, "ArrowRight")
      assert.notStrictEqual(yield* focused, first)
      yield* press(page, "ArrowRight")
      assert.strictEqual(yield* focused, first)
      // A dialog takes the focus, and gives it back.
      yield* act(() => button(page, "Redrive e1").focus())
      yield* press(page, "Enter")
      yield* act(() => page.getByRole("dialog").waitFor())
      yield* act(() => page.keyboard.type("by hand"))
      assert.strictEqual(yield* act(() => page.getByLabel("Reason").inputValue()), "by hand")
      yield* press(page, "Escape")
      yield* act(() => page.getByRole("dialog").waitFor({ state: "detached" }))
      yield* act(() => button(page, "Redrive e1").and(page.locator(":focus")).waitFor())
      yield* press(page, "Enter")
      yield* act(() => page.getByRole("dialog").waitFor())
      yield* act(() => page.keyboard.type("by hand"))
      yield* press(page, "Enter")
      yield* sees(page, "The event is pending again.")
    })
  )

  it.scopedLive("says that the connection is lost and how old what it shows is, and comes back by itself", () =>
    Effect.gen(function* () {
      const service = yield* Browser.service(stage)
      const { freeze, thaw, url } = yield* freezingProxy(new URL(service.url))
      const page = yield* Browser.openPage(stage, url.href)
      yield* headline(page, "Idle: everything is published")
      // Nothing says that it is lost: it is silent.
      yield* freeze
      yield* sees(page, "Connection lost.")
      yield* act(() => page.getByText(/Data is \d+ s old/).waitFor())
      yield* thaw
      yield* act(() => text(page, "Connection lost.").waitFor({ state: "detached" }))
      yield* append(service, {})
      yield* sees(page, "1 since the start")
    })
  )

  it.scopedLive("answers that nothing changed where nothing did", () =>
    Effect.gen(function* () {
      const { url } = yield* Browser.service(stage)
      for (const [path, type] of [
        ["/", "text/html"],
        ["/dashboard/main.js", "text/javascript"],
        ["/dashboard/main.css", "text/css"],
        ["/dashboard/icon.svg", "image/svg+xml"]
      ] as const) {
        const response = yield* act(() => fetch(url + path))
        assert.include(response.headers.get("content-type"), type)
        assert.strictEqual(response.headers.get("cache-control"), "no-cache")
        assert.include(response.headers.get("content-security-policy"), "script-src 'self'")
        const etag = response.headers.get("etag")!
        const again = yield* act(() => fetch(url + path, { headers: { "if-none-match": etag } }))
        assert.strictEqual(again.status, 304)
      }
    })
  )

  it.scopedLive(
    "mends a real outbox over a real serve",
    () =>
      Effect.gen(function* () {
        const program = yield* Controlpublish.Program
        const cwd = yield* Controlpublish.workingDirectory
        const { url } = yield* TestDatabase
        yield* act(() => Browser.buildPage(Path.join(Path.dirname(program), "dashboard")))
        const env = { DATABASE_URL: Redacted.value(url), FEED_SINK: "file", ADMIN_PORT: "0" }
        const serve = yield* Controlpublish.start(program, ["serve"], { cwd, env })
        yield* serve.waitFor(/Stop with Ctrl-C/)
        const client = yield* rawClient
        yield* act(() =>
          client.query(
            "INSERT INTO control_events_outbox (event_id, event_type, ordering_key, payload_json) VALUES ('e1', 'tenant.created', 't1', '{}')"
          )
        )
        const admin = /http:\/\/127\.0\.0\.1:\d+/.exec(yield* serve.printed)![0]
        const page = yield* Browser.openPage(stage, admin)
        yield* headline(page, "1 event parked")
        yield* act(() =>
          client.query(
            `UPDATE control_events_outbox SET payload_json = '{"event_id":"e1","type":"tenant.created","tenant_id":"t1","created_at":"2026-01-01T00:00:00Z"}'`
          )
        )
        yield* click(page, "Redrive e1")
        yield* confirm(page, "Redrive", "its payload was mended")
        yield* headline(page, "Idle: everything is published")
        yield* act(() => Fs.access(Path.join(cwd, "feed", "e1.json")))
        yield* click(page, "Pause…")
        yield* confirm(page, "Pause", "to see that it does")
        yield* headline(page, "Paused")
        const { rows } = yield* act(() => client.query("SELECT action, reason FROM control_events_audit ORDER BY id"))
        assert.deepStrictEqual(rows, [
          { action: "redrive", reason: "its payload was mended" },
          { action: "pause", reason: "to see that it does" }
        ])
        assert.strictEqual((yield* serve.stop("SIGTERM")).code, 0)
        yield* sees(page, "Connection lost.")
      }).pipe(Effect.provide(Layer.merge(Controlpublish.layerProgram, layerDatabase))),
    300_000
  )

  describe("States", () => {
    const many = (count: number) =>
      Array.from({ length: count }, (_, index) => ({ tenant_id: `t${index % 90}`, type: "entitlement.updated" }))

    /** Time for the charts to have a course; only pictures need one. */
    const course = Effect.sleep(screenshots === "" ? 0 : "18 seconds")

    const rejections = [
      ["hostname.bound", "acme", "1,482,113 bytes are more than the server's max_payload takes (1,048,576)"],
      ["key.changed", "globex", 'The stream "control-events" does not take control.events.key.changed'],
      ["actor.changed", "initech", "payload_json is no control event: checksum: must be sha256: and 64 hex digits"]
    ] as const

    /** Three events that were parked, and one that waits for its retry with another behind it. */
    const troubles = (service: Browser.Service) =>
      Effect.gen(function* () {
        const store = Context.get(service.outbox, MemoryOutboxStore.MemoryOutboxStore)
        yield* append(service, ...many(120))
        yield* Effect.forEach(rejections, ([type, tenant_id, error], index) =>
          Effect.gen(function* () {
            const event_id = `01997c1e-50d2-7c1e-8f00-00000000000${index}`
            yield* sinkOf(service).rejectEvent(event_id)
            yield* append(service, { event_id, type, tenant_id, hostname: "www.example.com" })
            yield* Effect.repeat(Effect.delay(store.rows, "20 millis"), {
              until: (rows) => rows.some((row) => row.eventId === event_id && row.parkedAt !== undefined)
            })
            yield* store.change(event_id, (row) => ({
              ...row,
              lastError: error,
              failedAttempts: row.failedAttempts.map((attempt) => ({ ...attempt, error }))
            }))
          })
        )
        const waiting = { type: "membership.changed", tenant_id: "umbra" }
        yield* sinkOf(service).failEvent("01997c1e-50d2-7c1e-8f00-000000000007")
        yield* append(service, { ...waiting, event_id: "01997c1e-50d2-7c1e-8f00-000000000007" }, waiting)
      })

    const states: ReadonlyArray<{
      readonly name: string
      readonly title: string
      /** How it is shown in the docs. */
      readonly pictured: ReadonlyArray<"light" | "dark" | "narrow">
      readonly make: (service: Browser.Service, page: Page) => Effect.Effect<unknown, unknown>
    }> = [
      { name: "empty", title: "Idle: everything is published", pictured: ["light"], make: () => Effect.void },
      {
        name: "busy",
        title: "Publishing",
        pictured: ["light", "dark"],
        make: (service) => {
          const sink = sinkOf(service)
          const slowly: MemorySink.Step = (batch, publish) =>
            Effect.delay(publish(batch), screenshots === "" ? "1 second" : "400 millis")
          return Effect.gen(function* () {
            yield* sink.script(...Array.from({ length: 400 }, () => slowly))
            for (let round = 0; round < (screenshots === "" ? 1 : 12); round++) {
              yield* append(service, ...many(round < 8 ? 900 : 150))
              if (screenshots !== "") yield* Effect.sleep("1.5 seconds")
            }
          })
        }
      },
      {
        name: "sink-down",
        title: "Sink unreachable",
        pictured: ["dark"],
        make: (service) =>
          Effect.gen(function* () {
            yield* append(service, ...many(200))
            yield* Effect.zipRight(
              course,
              sinkOf(service).script(
                ...Array.from(
                  { length: 400 },
                  () => () =>
                    Effect.fail(
                      new SinkUnavailable({
                        sink: "memory",
                        reason: "unreachable",
                        message: "Cannot connect to nats://10.0.4.20:4222: connection refused"
                      })
                    )
                )
              )
            )
            yield* append(service, ...many(340))
            yield* course
          })
      },
      {
        name: "parked",
        title: "parked",
        pictured: ["light", "narrow"],
        make: (service) => Effect.zipRight(troubles(service), course)
      },
      {
        name: "event",
        title: "parked",
        pictured: ["light"],
        make: (service, page) =>
          Effect.gen(function* () {
            yield* troubles(service)
            yield* act(() => button(page, /^01997c1e.*0$/).click())
            yield* sees(page, "Failed attempts")
          })
      },
      {
        name: "paused",
        title: "Paused",
        pictured: ["light"],
        make: (service) =>
          Effect.gen(function* () {
            yield* Context.get(service.outbox, Pump.Pump).pause
            yield* append(service, ...many(80))
          })
      },
      {
        name: "database-down",
        title: "Database unreachable",
        pictured: ["dark"],
        make: (service, page) =>
          Effect.gen(function* () {
            yield* append(service, ...many(150))
            yield* sees(page, "150 since the start")
            yield* Context.get(service.outbox, MemoryOutboxStore.MemoryOutboxStore).breakWith(
              new OutboxError({ message: "connect ECONNREFUSED 10.0.4.17:5432", retryable: true })
            )
            yield* course
          })
      }
    ]

    const looks = [
      { look: "light", colorScheme: "light", width: 1280 },
      { look: "dark", colorScheme: "dark", width: 1280 },
      { look: "narrow", colorScheme: "light", width: 400 }
    ] as const

    const picture = (page: Page, name: string) =>
      act(async () => {
        await Fs.mkdir(screenshots, { recursive: true })
        await page.screenshot({ path: `${screenshots}/${name}.png` })
      })

    it.scopedLive.each(states)(
      "$name: said at once, without a barrier, in light, dark and at 400 px",
      ({ make, name, pictured, title }) =>
        Effect.gen(function* () {
          const { page, service } = yield* opened()
          yield* headline(page, "Idle: everything is published")
          yield* make(service, page)
          yield* headline(page, title)
          for (const { colorScheme, look, width } of looks) {
            yield* act(() => page.emulateMedia({ colorScheme }))
            yield* act(() => page.setViewportSize({ width, height: 900 }))
            if (screenshots !== "" && pictured.includes(look)) yield* picture(page, `${name}-${look}`)
            if (width > 400) assert.deepStrictEqual(yield* violations(page), [], look)
            assert.isFalse(yield* isWide(page), look)
          }
        }),
      300_000
    )
  })
})
