import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { entries } from "../../src/cli/internal/commands.js"
import * as Help from "../../src/cli/internal/help.js"
import * as Settings from "../../src/cli/Settings.js"
import * as Controlpublish from "./support/controlpublish.js"

const escape = "\u001b"

const piped = { isTTY: false } as unknown as NodeJS.WriteStream

const page = (name: string) => Help.find([name, "--help"], entries, piped)!

describe("The help of a command", () => {
  it("shows its flags by group, with default and variable", () => {
    for (const { name } of entries) {
      const text = page(name)
      assert.notInclude(text, escape)
      assert.match(text, /^Usage: controlpublish \w+/m)
      for (const line of text.split("\n")) assert.isAtMost(line.length, 100, line)
    }
    const serve = page("serve").replace(/\n {6,}/g, " ")
    assert.match(
      serve,
      /^Pump:\n {2}--batch-size <text> +Most events in one publish \(default: 500\) \[FEED_SINK_BATCH_SIZE\]$/m
    )
    assert.match(serve, /^JetStream:\n(?: .*\n)* {2}NATS_TOKEN +\S/m)
    assert.notInclude(serve, "--source")
  })

  it("shows flags that are no settings apart, and nothing of how a flag is parsed", () => {
    const redrive = page("redrive")
    assert.match(redrive, /^Options:\n(?: .*\n)* {2}--all +All parked events$/m)
    assert.notMatch(entries.map(({ name }) => page(name)).join(), /user-defined|This setting|true or false value/)
  })

  it("together show each setting that has a flag", () => {
    const all = entries.map(({ name }) => page(name)).join("\n")
    for (const { flag } of Settings.groups.flatMap(({ settings }) => settings)) {
      if (flag !== undefined) assert.include(all, `--${flag} `)
    }
  })

  it("is found wherever the flag stands, and not behind --", () => {
    assert.include(Help.find(["serve", "--sink", "file", "-h"], entries, piped)!, "Usage: controlpublish serve")
    assert.include(Help.find(["--help", "serve"], entries, piped)!, "Commands:")
    assert.isUndefined(Help.find(["redrive", "--", "--help"], entries, piped))
    assert.isUndefined(Help.find(["nonsense", "--help"], entries, piped))
  })
})

it.layer(Controlpublish.layerProgram, { timeout: 300_000 })("--help", (it) => {
  it.effect("lists the commands, one line each and without escapes, where it is read by a program", () =>
    Effect.gen(function* () {
      const asked = yield* Controlpublish.run(yield* Controlpublish.Program, ["--help"], {})
      assert.deepStrictEqual([asked.code, asked.stderr], [0, ""])
      assert.notInclude(asked.stdout, escape)
      const list = /Commands:\n((?: {2}.*\n)+)/.exec(asked.stdout)![1]!.trimEnd().split("\n")
      assert.deepStrictEqual(
        list.map((line) => /^ {2}(\w+) +\S/.exec(line)?.[1]),
        entries.map(({ name }) => name)
      )
      for (const line of asked.stdout.split("\n")) assert.isAtMost(line.length, 110, line)
    })
  )

  it.effect("has colors on a terminal, unless NO_COLOR or TERM=dumb says otherwise", () =>
    Effect.gen(function* () {
      const program = yield* Controlpublish.Program
      const onTerminal = (env: Record<string, string>) =>
        spawnSync("script", ["-qec", `${process.execPath} ${program} --help`, "/dev/null"], {
          env: { PATH: process.env.PATH!, TERM: "xterm-256color", ...env },
          encoding: "utf8"
        }).stdout
      assert.include(onTerminal({}), `${escape}[1mCommands:`)
      for (const env of [{ NO_COLOR: "1" }, { TERM: "dumb" }]) {
        const text = onTerminal(env)
        assert.include(text, "Commands:")
        assert.notInclude(text, escape)
      }
    })
  )
})

describe("Settings", () => {
  it("are declared once each", () => {
    const settings = Settings.groups.flatMap(({ settings }) => settings)
    // Client and server of the admin API share the token.
    const each = Array.from(new Set(settings))
    for (const names of [each.map(({ env }) => env), each.flatMap(({ flag }) => flag ?? [])]) {
      assert.strictEqual(new Set(names).size, names.length)
    }
  })
})
