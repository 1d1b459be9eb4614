import { assert, describe, it } from "@effect/vitest"
import { readFile } from "node:fs/promises"
import * as Nats from "../support/nats.js"
import { breaks } from "./breaks.js"
import { violations, type History, type Transaction } from "./history.js"
import * as Plan from "./plan.js"
import { run } from "./run.js"

const transaction = (number: number, ids: ReadonlyArray<string>, more: Partial<Transaction> = {}): Transaction => ({
  writer: "w",
  number,
  kept: ids.map((id) => ({ id, key: "k" })),
  dropped: [],
  end: "committed",
  ...more
})

const row = (eventId: string, version: number | undefined) => ({ eventId, key: "k", version, parked: false })

const message = (eventId: string, sequence: number) => ({ eventId, sequence })

const good: History = {
  transactions: [
    transaction(1, ["a"], { dropped: ["x"] }),
    transaction(2, ["b", "c"], { end: "unknown" }),
    transaction(3, ["d"], { end: "unknown" }),
    transaction(4, ["e"], { end: "rolledBack" })
  ],
  rows: [row("a", 1), row("b", 3), row("c", 4)],
  messages: [message("a", 1), message("b", 3), message("c", 4)]
}

describe("Faults", () => {
  describe("the look at what happened", () => {
    it("finds nothing wrong with what is right", () => {
      assert.deepStrictEqual(violations(good), [])
    })

    it.each<[string, Partial<History>, RegExp]>([
      [
        "an event that is not in the outbox",
        { transactions: [transaction(1, ["a", "z"])], rows: [row("a", 1)], messages: [message("a", 1)] },
        /^lost: transaction 1 of w/
      ],
      ["an event that is not in the feed", { messages: good.messages.slice(1) }, /^lost: a is not in the feed/],
      [
        "a transaction that was rolled back",
        { transactions: [transaction(1, ["a"], { end: "rolledBack" }), ...good.transactions.slice(1)] },
        /^invented: transaction 1/
      ],
      [
        "a savepoint that was rolled back",
        { transactions: [transaction(1, ["a"], { dropped: ["b"] }), ...good.transactions.slice(1)] },
        /^invented: b of transaction 1/
      ],
      [
        "half a transaction",
        { transactions: [transaction(1, ["a"]), transaction(2, ["b", "c", "z"], { end: "unknown" })] },
        /^torn: transaction 2/
      ],
      ["a row that nobody appended", { transactions: good.transactions.slice(1) }, /^invented: nobody appended a/],
      [
        "an event in the feed that was not committed",
        { messages: [...good.messages, message("e", 5)] },
        /^invented: e is in the feed/
      ],
      ["a second copy", { messages: [...good.messages, message("a", 5)] }, /^doubled: a is in the feed at 1, 5/],
      ["a version of another event", { rows: [row("a", 3), row("b", 3), row("c", 4)] }, /^misrecorded: a/],
      ["a version that is not recorded", { rows: [row("a", undefined), row("b", 3), row("c", 4)] }, /^unrecorded: a/],
      ["a parked event", { rows: [{ ...row("a", undefined), parked: true }, row("b", 3), row("c", 4)] }, /^parked: a/],
      [
        "another order in the feed",
        {
          rows: [row("a", 1), row("b", 4), row("c", 3)],
          messages: [message("a", 1), message("c", 3), message("b", 4)]
        },
        /^reordered: c of key k is in the feed/
      ],
      [
        "another order in the outbox",
        {
          rows: [row("b", 1), row("a", 3), row("c", 4)],
          messages: [message("b", 1), message("a", 3), message("c", 4)]
        },
        /^reordered: b of key k is in the outbox/
      ]
    ])("notices %s", (_, change, expected) => {
      const found = violations({ ...good, ...change })
      assert.isTrue(
        found.some((violation) => expected.test(violation)),
        found.join("\n")
      )
    })
  })

  it("have the same plan for the same seed, and others for others", () => {
    assert.deepStrictEqual(Plan.make("7", 60_000), Plan.make("7", 60_000))
    assert.notDeepEqual(Plan.make("7", 60_000).faults, Plan.make("8", 60_000).faults)
  })

  it("can be looked for with every promise broken", async () => {
    for (const [name, replacements] of Object.entries(breaks)) {
      for (const { file, from } of replacements) {
        const text = await readFile(file, "utf8")
        assert.strictEqual(text.split(from).length, 2, `${name}: ${file} has changed`)
      }
    }
  })

  it.skipIf(!Nats.available())(
    "lose, invent, double and reorder nothing",
    async () => {
      const seed = process.env.FAULTS_SEED ?? String(Date.now())
      const lines: Array<string> = []
      const plan = Plan.make(seed, 25_000)
      const report = await run(plan, { millis: 25_000, log: (line) => lines.push(line) })
      const story = [`Again with FAULTS_SEED=${seed}`, ...lines, ...report.violations].join("\n")
      assert.deepStrictEqual(report.violations, [], story)
      assert.isAbove(report.events, 100, story)
    },
    240_000
  )
})
