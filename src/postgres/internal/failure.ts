import { OutboxError } from "../../OutboxStore.js"

/** A transaction in another database than the client's. */
export class OtherDatabase extends Error {
  override readonly name = "OtherDatabase"
  readonly database: string
  constructor(database: string) {
    super(`the transaction around it is in another database (${database})`)
    this.database = database
  }
}

/** A COMMIT that the server answered with a rollback. */
export class LostCommit extends Error {
  override readonly name = "LostCommit"
  /** The server's answer to any other statement of such a transaction. */
  readonly code = "25P02"
  constructor() {
    super("the server rolled the transaction back because a statement in it failed or was interrupted")
  }
}

// Codes after which a retry can succeed: class 40 is rollbacks by the server (deadlock, serialization), 08 and 57P are
// lost connections and shutdowns, 53 is a lack of resources, 55P03 a lock.
const isRetryable = (cause: unknown): boolean =>
  cause instanceof Error &&
  !(cause instanceof OtherDatabase) &&
  (!("code" in cause) || typeof cause.code !== "string" || /^(40|08|53|57P|55P03|E)/.test(cause.code))

const codeOf = (cause: unknown): string | undefined =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : undefined

/** The transaction's part in a failure, and the advice. */
const stateOf = (cause: unknown) => {
  if (cause instanceof OtherDatabase) {
    return { reason: "OtherDatabase", advice: "Begin the transaction with a client of the same database" } as const
  }
  switch (codeOf(cause)) {
    case "25006":
      return { reason: "ReadOnlyTransaction", advice: "Use a transaction that can write, on the primary" } as const
    case "25P02":
      return {
        reason: "FailedTransaction",
        advice:
          "An earlier statement failed or was interrupted: let its error fail the transaction, or run what may fail in a nested transaction"
      } as const
    default:
      return undefined
  }
}

/** The outbox's advice for rows that it rejects. The server's own hints are about its syntax. */
const adviceOf = (cause: unknown): string | undefined => {
  const hint = cause instanceof Error && "hint" in cause ? cause.hint : undefined
  return /^(23514|428C9)$/.test(codeOf(cause) ?? "") && typeof hint === "string" ? hint : undefined
}

/** Describes an error of the driver. */
export const failureOf = (doing: string, cause: unknown) => {
  const code = codeOf(cause)
  const what = cause instanceof Error && cause.message !== "" ? cause.message : String(cause)
  const state = stateOf(cause)
  const advice = state?.advice ?? adviceOf(cause)
  return {
    message: `Could not ${doing}: ${what}${code === undefined ? "" : ` (${code})`}${advice === undefined ? "" : `. ${advice}`}`,
    retryable: isRetryable(cause),
    ...(state === undefined ? {} : { reason: state.reason }),
    cause
  }
}

/** Makes an `OutboxError` from an error of the driver. */
export const toOutboxError =
  (doing: string) =>
  (cause: unknown): OutboxError =>
    new OutboxError(failureOf(doing, cause))
