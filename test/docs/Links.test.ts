import { assert, describe, it } from "@effect/vitest"
import { anchorsOf, broken, exists, linksOf, pages, pathsOf, proseOf, textOf } from "./links.js"

/** Pages that others link already and that are still to be written. Empty when the docs are complete. */
const pagesToCome: ReadonlyArray<string> = []

describe("Links", () => {
  it("finds the pages, their links and their anchors", () => {
    assert.isAbove(pages.length, 40)
    assert.isAbove(pages.flatMap(linksOf).length, 150)
    assert.isTrue(anchorsOf("docs/nodes.md").has("a-new-node"))
    assert.isDefined(broken({ page: "README.md", target: "x", file: "docs/none.md", anchor: undefined }))
    assert.isDefined(broken({ page: "README.md", target: "x", file: "README.md", anchor: "none" }))
  })

  it.each(pages)("every link and anchor of %s resolves", (page) => {
    const found = linksOf(page)
      .filter(({ file }) => !pagesToCome.includes(file))
      .flatMap((link) => broken(link) ?? [])
    assert.deepStrictEqual(found, [])
  })

  it("a page that is still to be written does not exist yet", () => {
    assert.deepStrictEqual(pagesToCome.filter(exists), [])
  })

  it("every path of the source tree that a page names exists", () => {
    const missing = pages.flatMap((page) =>
      pathsOf(page)
        .filter((path) => !exists(path))
        .map((path) => `${page}: ${path}`)
    )
    assert.deepStrictEqual(missing, [])
  })
})

it("every setting that a page names is declared", () => {
  const declared = textOf("docs/configuration.md")
  const unknown = pages.flatMap((page) =>
    Array.from(proseOf(page).matchAll(/`((?:FEED|PUMP|NATS|ADMIN|APPLY|ARTIFACT|DATABASE|LOG)_[A-Z_]+)\b/g))
      .filter(([, name]) => !declared.includes(`\`${name}\``))
      .map(([, name]) => `${page}: ${name}`)
  )
  assert.deepStrictEqual(unknown, [])
})

describe("Index", () => {
  it.each([
    ["docs/README.md", /^docs\/[^/]+\.md$/],
    ["docs/decisions/README.md", /^docs\/decisions\/[^/]+\.md$/]
  ] as const)("%s names every page of its directory once", (index, directory) => {
    const linked = linksOf(index).map(({ file }) => file)
    const listed = linked.filter((file) => directory.test(file)).sort()
    assert.deepStrictEqual(
      listed,
      pages.filter((page) => directory.test(page) && page !== index)
    )
  })
})

describe("Prose", () => {
  it.each(pages)("no table cell of %s holds a sentence", (page) => {
    const cells = Array.from(proseOf(page).matchAll(/^\|(.*)\|$/gm), ([, row = ""]) => row.split("|")).flat()
    const long = cells.map((cell) => cell.trim()).filter((cell) => !/^:?-+:?$/.test(cell) && cell.length > 100)
    assert.deepStrictEqual(long, [])
  })
})
