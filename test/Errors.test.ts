import { assert, it } from "@effect/vitest"
import * as Admin from "../src/admin/index.js"
import * as File from "../src/file/index.js"
import * as Fleet from "../src/fleet/index.js"
import * as Core from "../src/index.js"
import * as JetStream from "../src/jetstream/index.js"
import * as Postgres from "../src/postgres/index.js"

interface Exported {
  readonly prototype?: unknown
  readonly _tag?: unknown
}

const errors = Object.values({ ...Core, ...Admin, ...File, ...Fleet, ...JetStream, ...Postgres })
  .flatMap((module): ReadonlyArray<[string, unknown]> => Object.entries(module))
  .filter((entry): entry is [string, Exported] => typeof entry[1] === "function")
  .filter(([, { prototype }]) => prototype instanceof Error)

it("every error has the tag of its own name, by which it is caught alone", () => {
  assert.isAbove(errors.length, 20)
  assert.deepStrictEqual(
    errors.filter(([name, { _tag }]) => _tag !== name).map(([name]) => name),
    []
  )
  const classes = new Map(errors.map(([, value]) => [value, value._tag]))
  assert.strictEqual(new Set(classes.values()).size, classes.size)
})
