import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Source } from "../Source.js"
import * as Status from "./applierStatus.js"
import * as Report from "./applyReport.js"

/** The applier of a source of nothing. */
export const makeInert = (source: Source["Type"]) =>
  Effect.map(Status.initial(source, "inert"), (status) => ({
    drain: Effect.succeed(Report.nothing),
    pause: Effect.void,
    resume: Effect.void,
    status: Effect.succeed(status),
    changes: Stream.make(status)
  }))
