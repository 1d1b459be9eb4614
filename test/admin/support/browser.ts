/** A real browser, and the dashboard over an outbox in memory. */
import { MemoryOutboxAdmin, MemoryOutboxStore, MemorySink } from "controlpublish/testing"
import { HttpServer } from "@effect/platform"
import { Context, Effect, Layer, Redacted, type Scope } from "effect"
import { existsSync } from "node:fs"
import { execFile } from "node:child_process"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core"
import * as Outbox from "../../../src/Outbox.js"
import * as Pump from "../../../src/Pump.js"
import * as PumpConfig from "../../../src/PumpConfig.js"
import * as Retention from "../../../src/Retention.js"
import * as AdminServer from "../../../src/admin/AdminServer.js"

const root = fileURLToPath(new URL("../../..", import.meta.url))

const executable = ["/usr/bin/chromium", "/usr/bin/chromium-browser", process.env.CHROMIUM ?? ""].find(
  (path) => path !== "" && existsSync(path)
)

const howToInstall =
  "chromium is not at /usr/bin/chromium: apt-get install chromium, or set CHROMIUM to the path of a Chromium or Chrome"

/** Whether the suites that need a browser can run. In CI they have to; elsewhere it is said once that they do not. */
export const available = (): boolean => {
  if (executable === undefined && (process.env.CI ?? "") !== "") throw new Error(howToInstall)
  if (executable === undefined) console.warn(`SKIPPED: the tests of the dashboard in a browser. ${howToInstall}`)
  return executable !== undefined
}

export const launch = (): Promise<Browser> =>
  chromium.launch({
    executablePath: executable!,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync"
    ]
  })

/** Builds the page as `npm run build` does, and answers its directory. */
export const buildPage = async (directory: string): Promise<string> => {
  await promisify(execFile)("npm", ["run", "--silent", "dashboard", "--", `--outdir=${directory}`], { cwd: root })
  return directory
}

/** The page, built once, and the browser. */
export interface Stage {
  readonly browser: Browser
  readonly directory: string
}

export const setStage = async (): Promise<Stage> => {
  const cache = Path.join(root, "node_modules", ".cache", "controlpublish")
  await Fs.mkdir(cache, { recursive: true })
  const directory = await buildPage(await Fs.mkdtemp(Path.join(cache, "dashboard-")))
  return { browser: await launch(), directory }
}

export const clearStage = async ({ browser, directory }: Stage): Promise<void> => {
  await browser.close()
  await Fs.rm(directory, { recursive: true, force: true })
}

export const openPage = (
  { browser }: Stage,
  url: string,
  options: BrowserContextOptions = {}
): Effect.Effect<Page, never, Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Effect.acquireRelease(
      Effect.promise(() => browser.newContext({ viewport: { width: 1280, height: 900 }, locale: "en-GB", ...options })),
      (context) => Effect.promise(() => context.close())
    )
    const page = yield* Effect.promise(() => context.newPage())
    // A guard against a hang: a machine that is busy takes its time.
    page.setDefaultTimeout(60_000)
    yield* Effect.promise(() => page.goto(url))
    return page
  })

/** The real server over an outbox in memory. */
export const service = (stage: Stage, options: { readonly token?: string } = {}) =>
  Effect.gen(function* () {
    const store = Layer.mergeAll(MemoryOutboxStore.layer, MemorySink.layer)
    const outbox = yield* Layer.build(
      Layer.mergeAll(Outbox.layer, Pump.layer, Retention.layer({ keep: "all" })).pipe(
        Layer.provideMerge(MemoryOutboxAdmin.layer),
        Layer.provideMerge(store),
        Layer.provide(PumpConfig.layer({ batchSize: 50 }))
      )
    )
    const settings: AdminServer.Options = {
      host: "127.0.0.1",
      port: 0,
      orFree: false,
      token: options.token === undefined ? undefined : Redacted.make(options.token),
      dashboard: stage.directory
    }
    const server = yield* Layer.build(
      AdminServer.layer(settings).pipe(
        Layer.provideMerge(AdminServer.layerServer(settings)),
        Layer.provide(Layer.succeedContext(outbox))
      )
    )
    return { url: AdminServer.urlOf(Context.get(server, HttpServer.HttpServer)), outbox }
  })

export type Service = Effect.Effect.Success<ReturnType<typeof service>>
