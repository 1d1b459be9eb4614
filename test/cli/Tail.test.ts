import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { exec } from "node:child_process"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { vi } from "vitest"
import * as Nats from "../support/nats.js"
import * as Controlpublish from "./support/controlpublish.js"
import * as Feeds from "./support/feeds.js"

vi.setConfig({ testTimeout: 120_000 })

const events = (from: number, to: number): ReadonlyArray<Feeds.Event> =>
  Array.from({ length: to - from }, (_, index) => ({
    event_id: `e${from + index}`,
    type: "stack.activated",
    tenant_id: "t1",
    stack_id: `s${from + index}`,
    version: 7,
    created_at: "2024-05-06T07:08:09.000Z"
  }))

const ids = (stdout: string) =>
  stdout
    .trim()
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => (JSON.parse(line) as Feeds.Event).event_id)

const idsOf = (from: number, to: number) => events(from, to).map(({ event_id }) => event_id)

layer(Controlpublish.layerProgram, { excludeTestServices: true, timeout: 300_000 })("controlpublish tail", (it) => {
  const command = Effect.gen(function* () {
    const program = yield* Controlpublish.Program
    const cwd = yield* Controlpublish.workingDirectory
    const feed = yield* Feeds.file(cwd)
    return {
      program,
      cwd,
      feed,
      start: (...args: ReadonlyArray<string>) =>
        Controlpublish.start(program, ["tail", ...args], { cwd, env: feed.env }),
      run: (...args: ReadonlyArray<string>) => Controlpublish.run(program, ["tail", ...args], { cwd, env: feed.env })
    }
  })

  it.scoped("shows the newest events, or those after a version", () =>
    Effect.gen(function* () {
      const { feed, run } = yield* command
      assert.deepStrictEqual(yield* run("--no-follow"), { code: 0, stdout: "", stderr: "" })
      yield* feed.publish([...events(1, 25), { event_id: "x", type: "odd\ntype", plan: "gold" }])
      const [newest, all, none] = yield* Effect.all(
        [run("--no-follow"), run("--no-follow", "--after", "0", "--json"), run("--no-follow", "--after", "25")],
        { concurrency: 3 }
      )
      assert.strictEqual(newest.code, 0, newest.stderr)
      const lines = newest.stdout.split("\n")
      assert.strictEqual(lines.length, 11)
      assert.strictEqual(lines[0], "      16  2024-05-06T07:08:09.000Z  stack.activated           t1 s16@7  e16")
      assert.strictEqual(lines[9], "      25  -                         odd type                  -  x")
      assert.deepStrictEqual(ids(all.stdout), [...idsOf(1, 25), "x"])
      assert.deepStrictEqual(JSON.parse(all.stdout.trim().split("\n")[24]!), {
        event_id: "x",
        type: "odd\ntype",
        plan: "gold",
        control_version: 25
      })
      assert.deepStrictEqual(none, { code: 0, stdout: "", stderr: "" })
    })
  )

  it.scoped("prints nothing that moves a terminal's cursor or turns its text, and scripts read what there was", () =>
    Effect.gen(function* () {
      const { feed, run } = yield* command
      const text = "a\u001b[31m\u007f\u009b2J\u202e\u2066\u061c\u200eü😀"
      const event = { event_id: `x${text.slice(1)}`, type: `t${text.slice(1)}`, note: [text, { [text]: text }] }
      yield* feed.publish([event])
      const [lines, json] = yield* Effect.all([run("--no-follow"), run("--no-follow", "--json")], { concurrency: 2 })
      for (const { code, stderr, stdout } of [lines, json]) {
        assert.strictEqual(code, 0, stderr)
        assert.notMatch(stdout, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/)
        assert.lengthOf(stdout.trimEnd().split("\n"), 1)
      }
      assert.deepStrictEqual(JSON.parse(json.stdout), { ...event, control_version: 1 })
    })
  )

  it.scoped("follows until it is stopped, or nobody reads it any more", () =>
    Effect.gen(function* () {
      const { cwd, feed, program, start } = yield* command
      yield* feed.publish(events(1, 4))
      const running = yield* start("--json", "--after", "1")
      yield* running.waitFor(/"e3"/)
      yield* feed.publish(events(4, 6))
      yield* running.waitFor(/"e5"/)
      const { code, stderr, stdout } = yield* running.stop("SIGINT")
      assert.deepStrictEqual([code, stderr, ids(stdout)], [0, "", idsOf(2, 6)])

      yield* feed.publish(events(6, 2_000))
      const piped = `'${process.execPath}' '${program}' tail --after 0 --json 2>err | head -2; echo "\${PIPESTATUS[0]}"`
      const printed = yield* Effect.promise(
        () =>
          new Promise<string>((done) => {
            exec(piped, { cwd, env: { ...process.env, ...feed.env }, shell: "/bin/bash" }, (_error, stdout) =>
              done(stdout)
            )
          })
      )
      const lines = printed.trim().split("\n")
      assert.deepStrictEqual(ids(lines.slice(0, 2).join("\n")), idsOf(1, 3))
      assert.strictEqual(lines[2], "0")
      assert.strictEqual(yield* Effect.promise(() => Fs.readFile(Path.join(cwd, "err"), "utf8")), "")
    })
  )

  it.scoped("ends with what is wrong in one line", () =>
    Effect.gen(function* () {
      const { cwd, feed, run } = yield* command
      yield* feed.publish(events(1, 3))
      const fails = (result: Controlpublish.Result, code: number, line: RegExp) => {
        assert.strictEqual(result.code, code, result.stderr)
        assert.match(result.stderr, line)
        assert.match(result.stderr, /^controlpublish: [^\n]*\n$/)
      }
      fails(yield* run("--source", "nop"), 2, /there is no feed: set FEED_SOURCE \(--source\) to file or jetstream/)
      fails(yield* run("--after", "3"), 1, /--after: got 3, and the feed ends at control version 2/)
      fails(yield* run("--source-file-dir", "nowhere"), 1, /Cannot read the feed in the directory .*nowhere/)
      yield* Effect.promise(() => Fs.writeFile(Path.join(cwd, "feed", "bad.json"), "{"))
      fails(yield* run("--no-follow", "--after", "0"), 1, /The file .*bad\.json holds no JSON/)
    })
  )

  it.scoped.skipIf(!Nats.available())("shows a stream, also one that has dropped its oldest events", () =>
    Effect.gen(function* () {
      const { program } = yield* command
      const feed = yield* Feeds.jetStream
      yield* feed.publish(events(1, 7))
      const tail = (...args: ReadonlyArray<string>) =>
        Controlpublish.run(program, ["tail", "--no-follow", "--json", ...args], { env: feed.env })
      const whole = yield* tail()
      assert.deepStrictEqual(ids(whole.stdout), idsOf(1, 7), whole.stderr)
      yield* feed.purge(3)
      for (const args of [[], ["--after", "0"]]) {
        const shown = yield* tail(...args)
        assert.deepStrictEqual(ids(shown.stdout), idsOf(4, 7), shown.stderr)
      }
    })
  )
})
