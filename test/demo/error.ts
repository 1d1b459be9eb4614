import { Data } from "effect"

/** The demo cannot go on. */
export class DemoError extends Data.TaggedError("DemoError")<{ readonly message: string }> {}
