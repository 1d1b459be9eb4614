import { OutboxError } from "../../OutboxStore.js"

// Transactions that fail with these can succeed when they are tried again: class 40 is rollbacks by the server
// (deadlock, serialization), 08 and 57P are lost connections and shutdowns, 53 is a lack of resources, 55P03 a lock.
const isRetryable = (cause: unknown): boolean =>
  cause instanceof Error &&
  (!("code" in cause) || typeof cause.code !== "string" || /^(40|08|53|57P|55P03|E)/.test(cause.code))

const codeOf = (cause: unknown): string =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" ? ` (${cause.code})` : ""

/** What to say of an error of the driver's. */
export const failureOf = (doing: string, cause: unknown) => ({
  message: `Could not ${doing}: ${cause instanceof Error && cause.message !== "" ? cause.message : String(cause)}${codeOf(cause)}`,
  retryable: isRetryable(cause),
  cause
})

/** An `OutboxError` for what the driver reported. */
export const toOutboxError =
  (doing: string) =>
  (cause: unknown): OutboxError =>
    new OutboxError(failureOf(doing, cause))
