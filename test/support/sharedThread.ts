import { it } from "@effect/vitest"

const key = Symbol.for("controlpublish/test/it")

type Methods = Pick<typeof it, "effect" | "flakyTest" | "layer" | "live" | "prop" | "scoped" | "scopedLive">

/**
 * Runs before each file of those that share a thread: `it.layer` of @effect/vitest writes the methods of its suite over
 * those of `it` itself, where the next file would find them.
 */
const thread: { [key]?: Methods | undefined } = globalThis as object
const { effect, flakyTest, layer, live, prop, scoped, scopedLive } = it
thread[key] ??= { effect, flakyTest, layer, live, prop, scoped, scopedLive }
Object.assign(it, thread[key])
