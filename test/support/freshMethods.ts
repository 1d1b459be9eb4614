import { it } from "@effect/vitest"

// `layer(…)` of @effect/vitest assigns its methods to the one `it` that all files of a worker share, so that a file would
// run its tests with the layers of the file before it.
const keep = globalThis as { controlpublishTestMethods?: object }
keep.controlpublishTestMethods ??= { ...it }
Object.assign(it, keep.controlpublishTestMethods)
