import { assert, describe, it } from "@effect/vitest"
import { pages, textOf } from "./links.js"
import { compile, docExamples, pageExamples } from "./sources.js"

describe("Examples", () => {
  it.each([
    ["README.md", "compose.ts"],
    ["README.md", "typed.ts"],
    ["README.md", "node.ts"],
    ["README.md", "testing.test.ts"],
    ["docs/writing-a-sink.md", "httpSink.ts"],
    ["docs/mounting-the-dashboard.md", "mounted.ts"],
    ["docs/mounting-the-dashboard.md", "mountedNode.ts"]
  ])("%s shows %s as it is compiled and run here", (page, name) => {
    const blocks = pageExamples(page, textOf(page)).map(({ text }) => text)
    assert.include(blocks, textOf(`test/examples/${name}`))
  })

  it("every example of a page and of a doc comment compiles", () => {
    const shown = pages.flatMap((page) => pageExamples(page, textOf(page)))
    assert.isAbove(shown.length, 6)
    assert.isAbove(docExamples.length, 15)
    assert.deepStrictEqual(compile([...shown, ...docExamples]), [])
  })

  it("an example that does not compile is reported with its line", () => {
    const text = 'import { Outbox } from "controlpublish"\n\nexport const none: Outbox.Nothing = 1\n'
    const page = `# A page\n\n\`\`\`ts\n${text}\`\`\`\n`
    assert.deepStrictEqual(compile(pageExamples("docs/page.md", page)), [
      `test/examples/docs-page-md.block1.ts:3 Namespace '"${new URL("../../src/Outbox", import.meta.url).pathname}"' has no exported member 'Nothing'.`
    ])
  })
})
