import { assert, describe, it } from "@effect/vitest"
import { readFile } from "node:fs/promises"
import { fileURLToPath } from "node:url"

const read = (path: string) => readFile(fileURLToPath(new URL(`../../${path}`, import.meta.url)), "utf8")

describe("Examples", () => {
  it.each([
    ["README.md", "compose.ts"],
    ["README.md", "node.ts"],
    ["README.md", "testing.test.ts"],
    ["docs/writing-a-sink.md", "httpSink.ts"],
    ["docs/mounting-the-dashboard.md", "mounted.ts"],
    ["docs/mounting-the-dashboard.md", "mountedNode.ts"]
  ])("%s shows %s as it is compiled and run here", async (page, name) => {
    const blocks = Array.from((await read(page)).matchAll(/```ts\n(.*?)```/gs), (match) => match[1])
    assert.include(blocks, await read(`test/examples/${name}`))
  })
})
