import { assert, it } from "@effect/vitest"
import { sources, undocumented } from "./sources.js"

/** Entry points, internals and programs: nothing of theirs is imported by an application. */
const isPublic = (path: string) => !/^src\/node\/|\/internal\/|\/(index|bin)\.ts$/.test(path)

it("every public export has a doc comment with a first sentence, @since and @category", () => {
  const modules = sources.filter(({ path }) => isPublic(path))
  assert.isAbove(modules.length, 60)
  assert.deepStrictEqual(modules.flatMap(undocumented), [])
})

it("says what a doc comment lacks", () => {
  const text = `
/** A row. */
export interface Row { readonly id: number }

/**
 * @since 0.1.0
 * @category models
 */
export type Id = number

/**
 * Counts
 *
 * @since 0.1.0
 * @category models
 */
export const count = 1

export function none() {}

const own = 2

/**
 * The whole of it.
 *
 * @since 0.1.0
 * @category models
 */
export class All {}
`
  assert.deepStrictEqual(undocumented({ path: "a.ts", text }), [
    "a.ts: Row lacks @since, @category",
    "a.ts: Id lacks first sentence",
    "a.ts: count lacks first sentence",
    "a.ts: none lacks doc comment"
  ])
})
