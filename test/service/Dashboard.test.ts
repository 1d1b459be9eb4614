/** The dashboard in a real browser: over the real server with an outbox in memory, and over a real `serve`. */
import { assert, describe, it } from "@effect/vitest"
import { MemoryOutboxStore, MemorySink } from "controlpublish/testing"
import Axe from "axe-core"
import { Context, Effect } from "effect"
import * as Fs from "node:fs/promises"
import { fileURLToPath } from "node:url"
import type { BrowserContextOptions, Page } from "playwright-core"
import { afterAll, beforeAll } from "vitest"
import * as Outbox from "../../src/Outbox.js"
import { OutboxError } from "../../src/OutboxStore.js"
import * as Pump from "../../src/Pump.js"
import { indented } from "../../src/service/admin/dashboard/words.js"
import * as Browser from "./support/browser.js"

/** Where screenshots go, if they are wanted: `SCREENSHOTS=docs/images npx vitest run … test/service/Dashboard.test.ts`. */
const screenshots = process.env.SCREENSHOTS ?? ""

const narrow: BrowserContextOptions = { viewport: { width: 400, height: 800 } }

const dark: BrowserContextOptions = { colorScheme: "dark" }

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
    const found = (await page.evaluate("axe.run()")) as Axe.AxeResults
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
      yield* headline(page, "All is published")
      yield* sinkOf(service).setAvailable(false)
      yield* append(service, {}, {}, {})
      yield* headline(page, "The sink is unavailable")
      yield* sees(page, "3 events pending")
      yield* act(() => page.getByRole("button", { name: /^Lane \d+: 3 pending/ }).waitFor())
      yield* sinkOf(service).setAvailable(true)
      yield* headline(page, "All is published")
      yield* sees(page, "3 since the start")
      assert.deepStrictEqual(problems, [])
      assert.deepStrictEqual([...urls], [service.url])
    })
  )

  it.scopedLive("redrives one event and all of them, with a reason that the audit keeps", () =>
    Effect.gen(function* () {
      const { page, service } = yield* opened()
      for (const event_id of ["e1", "e2", "e3"]) yield* parked(service, { event_id })
      yield* headline(page, "events are parked")
      yield* click(page, "Redrive e2")
      yield* confirm(page, "Redrive", "the broker was mended")
      yield* sees(page, "The event is pending again.")
      yield* sees(page, "the broker was mended")
      yield* act(() => button(page, "Redrive e2").waitFor({ state: "detached" }))
      yield* click(page, "Redrive all parked…")
      yield* confirm(page, "Redrive", "all of them")
      yield* sees(page, "Pending again: 2 events.")
      yield* headline(page, "All is published")
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
      yield* act(() => page.getByLabel("Tenant").fill("t2"))
      yield* press(page, "Enter")
      yield* act(() => button(page, "Redrive e1").waitFor({ state: "detached" }))
      yield* click(page, "Redrive the filtered…")
      yield* confirm(page, "Redrive", "t2 is mended")
      yield* sees(page, "Pending again: 1 event.")
      yield* sees(page, "No event is let through by this filter.")
      yield* click(page, "Clear")
      yield* act(() => button(page, "Redrive e1").waitFor())
    })
  )

  it.scopedLive("parks and discards an event that waits", () =>
    Effect.gen(function* () {
      const { page, service } = yield* opened()
      yield* sinkOf(service).failEvent("e1")
      yield* append(service, { event_id: "e1" }, { event_id: "e2" })
      yield* headline(page, "events wait for a retry")
      yield* click(page, "Waiting")
      yield* click(page, "e1")
      yield* click(page, "Park…")
      yield* confirm(page, "Park", "it is in the way")
      yield* sees(page, "The event is parked.")
      yield* act(() => page.getByRole("dialog").getByText("It is not tried again").waitFor())
      yield* click(page, "Discard…")
      yield* confirm(page, "Discard for good", "nobody needs it")
      yield* sees(page, "The event is discarded.")
      yield* headline(page, "All is published")
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
      yield* headline(page, "All is published")
      yield* click(page, "Pause…")
      yield* press(page, "Escape")
      yield* act(() => page.getByRole("dialog").waitFor({ state: "detached" }))
      assert.strictEqual((yield* Context.get(service.outbox, Pump.Pump).status).state, "idle")
      yield* click(page, "Pause…")
      yield* confirm(page, "Pause", "the broker is moved")
      yield* headline(page, "Paused by hand")
      yield* append(service, {})
      yield* sees(page, "1 event pending")
      yield* click(page, "Resume…")
      yield* confirm(page, "Resume", "it was moved")
      yield* headline(page, "All is published")
      yield* sees(page, "the broker is moved")
    })
  )

  it.scopedLive("asks for the token where one is needed, and keeps it for the tab alone", () =>
    Effect.gen(function* () {
      const { page } = yield* opened({}, { token: "a-secret-of-mine" })
      yield* headline(page, "All is published")
      yield* click(page, "Pause…")
      yield* confirm(page, "Pause", "without a token")
      const give = (token: string) =>
        act(async () => {
          await page.getByRole("textbox", { name: "Token" }).fill(token)
          await page.getByRole("button", { name: "Use this token" }).click()
        })
      yield* sees(page, "The token is missing")
      yield* give("another")
      yield* click(page, "Pause")
      yield* sees(page, "The token is wrong")
      yield* give("a-secret-of-mine")
      yield* click(page, "Pause")
      yield* headline(page, "Paused by hand")
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

  it.scopedLive("opens an event by its address, and goes back to the table with the key filtered", () =>
    Effect.gen(function* () {
      const service = yield* Browser.service(stage)
      yield* parked(service, { event_id: "e1/ü", tenant_id: "t1" })
      const page = yield* Browser.openPage(stage, `${service.url}/#event=${encodeURIComponent("e1/ü")}`)
      yield* act(() => page.getByRole("dialog", { name: "Event e1/ü" }).waitFor())
      yield* sees(page, "Failed attempts")
      yield* click(page, "All of this key")
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
      yield* headline(page, "All is published")
      yield* click(page, "Published")
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
      const focused = act(() =>
        page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent")
      )
      yield* press(page, "Tab")
      assert.strictEqual(yield* focused, "Skip to the events")
      yield* press(page, "Enter")
      assert.strictEqual(yield* focused, "Parked")
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
      assert.strictEqual(yield* focused, "Redrive e1")
      yield* press(page, "Enter")
      yield* act(() => page.getByRole("dialog").waitFor())
      yield* act(() => page.keyboard.type("by hand"))
      yield* press(page, "Enter")
      yield* sees(page, "The event is pending again.")
    })
  )

  it.scopedLive("says that the connection is lost and how old what it shows is, and comes back by itself", () =>
    Effect.gen(function* () {
      const { page, service } = yield* opened()
      yield* headline(page, "All is published")
      yield* service.stop
      yield* sees(page, "The connection is lost.")
      yield* act(() => page.getByText(/^○? ?as of \d+ s ago/).waitFor())
      yield* service.restart
      yield* act(() => page.getByRole("alert").waitFor({ state: "detached" }))
      yield* sees(page, "live")
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

  describe("States", () => {
    const many = (count: number) =>
      Array.from({ length: count }, (_, index) => ({ tenant_id: `t${index % 90}`, type: "entitlement.updated" }))

    /** Time for the charts to have a course; only pictures need one. */
    const course = Effect.sleep(screenshots === "" ? 0 : "18 seconds")

    const troubles = (service: Browser.Service) =>
      Effect.gen(function* () {
        const sink = sinkOf(service)
        yield* append(service, ...many(120))
        const events = [
          ["hostname.bound", "acme", "the stream takes no message larger than 1 MB: this one has 1,482,113 bytes"],
          ["key.changed", "globex", "the subject control.events.key changed has a space"],
          ["stack.activated", "initech", "payload_json is no control event: checksum is malformed"]
        ] as const
        for (const [type, tenant_id] of events) {
          const event_id = `0193${tenant_id}-7c1e-7000-8000-00000000000${type.length % 10}`
          yield* sink.rejectEvent(event_id)
          yield* append(
            service,
            type === "stack.activated"
              ? { event_id, type, tenant_id, stack_id: "s1", version: 41 }
              : { event_id, type, tenant_id }
          )
        }
        yield* sink.failEvent("0193umbra-7c1e-7000-8000-000000000001")
        yield* append(
          service,
          { event_id: "0193umbra-7c1e-7000-8000-000000000001", type: "membership.changed", tenant_id: "umbra" },
          { event_id: "0193umbra-7c1e-7000-8000-000000000002", type: "membership.changed", tenant_id: "umbra" }
        )
      })

    const states: ReadonlyArray<{
      readonly name: string
      readonly title: string
      readonly make: (service: Browser.Service, page: Page) => Effect.Effect<unknown, unknown>
    }> = [
      { name: "empty", title: "All is published", make: () => Effect.void },
      {
        name: "busy",
        title: "It moves",
        make: (service) => {
          const sink = sinkOf(service)
          const slowly: MemorySink.Step = (batch, publish) => Effect.delay(publish(batch), "120 millis")
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
        title: "The sink is unavailable",
        make: (service) =>
          Effect.gen(function* () {
            yield* append(service, ...many(200))
            yield* Effect.zipRight(course, sinkOf(service).setAvailable(false))
            yield* append(service, ...many(340))
            yield* course
          })
      },
      {
        name: "parked",
        title: "events are parked",
        make: (service) => Effect.zipRight(troubles(service), course)
      },
      {
        name: "event",
        title: "events are parked",
        make: (service, page) =>
          Effect.gen(function* () {
            yield* troubles(service)
            yield* act(() => button(page, /^0193acme/).click())
            yield* sees(page, "Failed attempts")
          })
      },
      {
        name: "paused",
        title: "Paused by hand",
        make: (service) =>
          Effect.gen(function* () {
            yield* Context.get(service.outbox, Pump.Pump).pause
            yield* append(service, ...many(80))
          })
      },
      {
        name: "database-down",
        title: "The database does not answer",
        make: (service) =>
          Effect.gen(function* () {
            yield* append(service, ...many(150))
            yield* Effect.sleep("1.5 seconds")
            yield* Context.get(service.outbox, MemoryOutboxStore.MemoryOutboxStore).breakWith(
              new OutboxError({ message: "connect ECONNREFUSED 10.0.4.17:5432", retryable: true })
            )
            yield* course
          })
      }
    ]

    const looks: ReadonlyArray<readonly [string, BrowserContextOptions]> = [
      ["light", {}],
      ["dark", dark],
      ["400 px", narrow]
    ]

    it.scopedLive.each(states)(
      "$name: said at once, without a barrier, in light, dark and at 400 px",
      (state) =>
        Effect.gen(function* () {
          const service = yield* Browser.service(stage)
          yield* Effect.forEach(
            looks,
            ([look, options], index) =>
              Effect.gen(function* () {
                const page = yield* Browser.openPage(stage, service.url, options)
                yield* act(() => page.getByRole("heading", { level: 1 }).waitFor())
                // All look at one service: the first makes the state.
                if (index === 0 || state.name === "event") yield* state.make(service, page)
                return [look, page] as const
              }),
            { concurrency: state.name === "event" ? 1 : 3 }
          ).pipe(
            Effect.flatMap(
              Effect.forEach(([look, page]) =>
                Effect.gen(function* () {
                  yield* headline(page, state.title)
                  if (screenshots !== "") {
                    const name = `${state.name}-${look.replace(" ", "")}.png`
                    const path = fileURLToPath(new URL(`../../${screenshots}/${name}`, import.meta.url))
                    yield* act(() => Fs.mkdir(new URL(`../../${screenshots}`, import.meta.url), { recursive: true }))
                    yield* act(() => page.screenshot({ path, fullPage: state.name !== "event" }))
                  }
                  assert.deepStrictEqual(yield* violations(page), [])
                  assert.isFalse(yield* isWide(page), look)
                })
              )
            )
          )
        }),
      120_000
    )
  })
})
