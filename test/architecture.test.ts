import { assert, describe, it } from "@effect/vitest"
import {
  circles,
  forbiddenImports,
  readModules,
  tooLong,
  type Module,
  type Modules,
  type Room
} from "./support/imports.js"

/** The rooms of `src`. What a room may import, beside itself; docs/architecture.md says why. */
const rooms: Readonly<Record<string, Room>> = {
  core: { rooms: [], packages: /^(effect|uuid)(\/|$)/ },
  // What Node.js has to be asked for in more than one room.
  node: { rooms: [], packages: /^(effect(\/|$)|node:)/ },
  fleet: { rooms: ["core"], packages: /^(effect(\/|$)|node:crypto$)/ },
  postgres: { rooms: ["core", "fleet"], packages: /^(effect|@effect\/sql|@effect\/sql-pg|pg|node:crypto)(\/|$)/ },
  promise: { rooms: ["core", "postgres"], packages: /^effect(\/|$)/ },
  file: { rooms: ["core", "fleet", "node"], packages: /^(effect(\/|$)|node:)/ },
  jetstream: { rooms: ["core", "fleet", "node"], packages: /^(effect(\/|$)|@nats-io\/|node:)/ },
  sqlite: { rooms: ["core", "fleet"], packages: /^(effect|@effect\/sql)(\/|$)/ },
  testing: { rooms: ["core", "fleet"], packages: /^(effect|@effect\/vitest|@effect\/sql)(\/|$)/ },
  admin: {
    rooms: ["core", "fleet", "node"],
    packages:
      /^(effect|@effect\/platform|@effect\/platform-node|@effect\/opentelemetry|@opentelemetry\/.*|eventsource-parser|preact|uplot|node:.*)(\/|$)/
  },
  cli: { rooms: ["core", "node", "fleet", "postgres", "file", "jetstream", "admin"] }
}

const modules = readModules(new URL("../src", import.meta.url).pathname)

describe("Modules in src", () => {
  it("import each other in no circle, types included", () => {
    assert.deepStrictEqual(circles(modules), [])
  })

  it("import inward only, and no technology imports another", () => {
    assert.deepStrictEqual(forbiddenImports(modules, rooms), [])
  })

  it("import another room's modules by name, not through its index", () => {
    const barrels = Array.from(modules).flatMap(([name, { imports }]) =>
      imports.filter((target) => /(^|\/)index\.ts$/.test(target)).map((target) => `${name} -> ${target}`)
    )
    assert.deepStrictEqual(barrels, [])
  })

  it("have at most 400 lines", () => {
    assert.deepStrictEqual(tooLong(modules, 400), [])
  })
})

describe("The rules of imports", () => {
  const tree = (imports: Readonly<Record<string, ReadonlyArray<string>>>): Modules =>
    new Map(
      Object.entries(imports).map(([name, targets]): [string, Module] => [
        name,
        {
          lines: 1,
          imports: targets.filter((target) => target.endsWith(".ts")),
          packages: targets.filter((target) => !target.endsWith(".ts"))
        }
      ])
    )

  it("find a circle of one, of two and of many modules, once each", () => {
    assert.deepStrictEqual(
      circles(
        tree({
          "a.ts": ["b.ts"],
          "b.ts": ["c.ts", "d.ts"],
          "c.ts": ["b.ts"],
          "d.ts": ["e.ts"],
          "e.ts": ["f.ts", "e.ts"],
          "f.ts": [],
          "g.ts": ["h.ts"],
          "h.ts": ["i.ts"],
          "i.ts": ["g.ts", "a.ts"]
        })
      ),
      ["b.ts -> c.ts -> b.ts", "e.ts -> e.ts", "g.ts -> h.ts -> i.ts -> g.ts"]
    )
    assert.deepStrictEqual(circles(tree({ "a.ts": ["b.ts", "c.ts"], "b.ts": ["c.ts"], "c.ts": [] })), [])
  })

  it("reject an arrow outward, one from technology to technology, a package and a room without a rule", () => {
    assert.deepStrictEqual(
      forbiddenImports(
        tree({
          "Pump.ts": ["fleet/Source.ts", "node:fs", "effect/Effect"],
          "internal/worker.ts": ["Pump.ts", "postgres/Postgres.ts"],
          "fleet/Applier.ts": ["Pump.ts", "file/FileSource.ts"],
          "file/FileSink.ts": ["Sink.ts", "fleet/Source.ts", "jetstream/internal/link.ts"],
          "admin/AdminApi.ts": ["postgres/Postgres.ts", "cli/Cli.ts"],
          "kafka/KafkaSink.ts": ["Sink.ts"]
        }),
        rooms
      ),
      [
        "Pump.ts -> fleet/Source.ts",
        "Pump.ts -> node:fs",
        "internal/worker.ts -> postgres/Postgres.ts",
        "fleet/Applier.ts -> file/FileSource.ts",
        "file/FileSink.ts -> jetstream/internal/link.ts",
        "admin/AdminApi.ts -> postgres/Postgres.ts",
        "admin/AdminApi.ts -> cli/Cli.ts",
        "kafka/KafkaSink.ts is in a room that no rule names: kafka"
      ]
    )
  })

  it("find a module that is too long", () => {
    const of = (lines: number): Module => ({ lines, imports: [], packages: [] })
    assert.deepStrictEqual(
      tooLong(
        new Map([
          ["a.ts", of(400)],
          ["b.tsx", of(401)]
        ]),
        400
      ),
      ["b.tsx has 401 lines"]
    )
  })

  it("see type imports, re-exports and lazy imports", () => {
    const seen = (name: string) => modules.get(name)!.imports
    assert.include(seen("Pump.ts"), "PumpStatus.ts", "import type")
    assert.include(seen("index.ts"), "Pump.ts", "export from")
    assert.include(seen("cli/Telemetry.ts"), "cli/internal/openTelemetry.ts", "import()")
    assert.isAbove(modules.size, 100)
  })
})
