import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { build } from "esbuild"
import { fileURLToPath } from "node:url"
import { vi } from "vitest"
import * as Controlpublish from "../cli/support/controlpublish.js"
import * as Nats from "../support/nats.js"

vi.setConfig({ testTimeout: 120_000 })

const root = fileURLToPath(new URL("../..", import.meta.url))

/** The demo without a terminal, and the line of each node at its end. */
const run = (...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const program = yield* Controlpublish.Program
    const outfile = `${root}/node_modules/.cache/controlpublish/demo-${process.pid}.mjs`
    yield* Effect.promise(() =>
      build({
        entryPoints: [`${root}/test/demo/main.ts`],
        outfile,
        bundle: true,
        packages: "external",
        platform: "node",
        format: "esm",
        target: "node20"
      })
    )
    const result = yield* Controlpublish.run(outfile, ["--headless", "--program", program, ...args])
    const nodes = result.stdout.split("\n").filter((line) => /^node_\d: /.test(line))
    return { ...result, nodes: nodes.map((line) => line.slice("node_1: ".length)) }
  })

const same = "the same as the admin's"

layer(Controlpublish.layerProgram, { excludeTestServices: true, timeout: 300_000 })("the demo", (it) => {
  it.effect("ends with nodes like the admin, whatever was killed", () =>
    Effect.gen(function* () {
      const { code, nodes, stdout } = yield* run("--seconds", "4")
      assert.deepStrictEqual([code, nodes], [0, [same, same, same]], stdout)
      for (const line of ["restarted node_1", "restarted the pump", "the feed is up again"]) {
        assert.include(stdout, `${line}\n`)
      }
      const [, changes, published] = /(\d+) changes, (\d+) of them published/.exec(stdout)!
      assert.isAbove(Number(changes), 10)
      assert.strictEqual(changes, published)
    })
  )

  it.effect.skipIf(!Nats.available())("finds a node that lost events, and one that applied them twice", () =>
    Effect.gen(function* () {
      const { code, nodes, stdout } = yield* run("--jetstream", "--break", "--seconds", "1")
      assert.deepStrictEqual([code, nodes[2]], [1, same], stdout)
      assert.match(nodes[0]!, /^DIFFERS in .*journal$/)
      // Its tables are as they should be: only the journal tells.
      assert.strictEqual(nodes[1], "DIFFERS in journal")
    })
  )

  it.effect("refuses an option that cannot be", () =>
    Effect.gen(function* () {
      const { code, stderr } = yield* run("--nodes", "ten")
      assert.deepStrictEqual([code, stderr], [1, '--nodes: got "ten", valid is an integer from 1 to 9\n'])
    })
  )
})
