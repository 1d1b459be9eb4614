import { assert, describe, it } from "@effect/vitest"
import { readFile } from "node:fs/promises"
import { fileURLToPath } from "node:url"

const read = (path: string) => readFile(fileURLToPath(new URL(`../${path}`, import.meta.url)), "utf8")

describe("README", () => {
  it.each(["compose.ts", "testing.test.ts"])("shows %s as it is compiled and run here", async (name) => {
    const blocks = Array.from((await read("README.md")).matchAll(/```ts\n(.*?)```/gs), (match) => match[1])
    assert.include(blocks, await read(`test/examples/${name}`))
  })
})
