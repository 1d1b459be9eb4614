import { SqlError } from "@effect/sql/SqlError"
import { AppliedEventsError } from "../../fleet/AppliedEvents.js"

/** A transaction of another client than the store's. */
export class OtherDatabase extends Error {
  override readonly name = "OtherDatabase"
  constructor() {
    super("the transaction around it is of another client. Begin the transaction with the node's own client")
  }
}

// Another process writes, the disk is full or fails: it can be different at the next time.
const temporary = /^SQLITE_(BUSY|LOCKED|FULL|IOERR|CANTOPEN|PROTOCOL|NOMEM|INTERRUPT)/

/** An `AppliedEventsError` for what the client reported. */
export const toError =
  (doing: string) =>
  (error: unknown): AppliedEventsError => {
    const cause = error instanceof SqlError ? error.cause : error
    const code = cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : undefined
    const what = cause instanceof Error && cause.message !== "" ? cause.message : String(cause)
    return new AppliedEventsError({
      message: `Could not ${doing}: ${what}${code === undefined ? "" : ` (${code})`}`,
      retryable: code !== undefined && temporary.test(code),
      ...(cause instanceof OtherDatabase ? { reason: "OtherDatabase" } : {}),
      cause
    })
  }
