/** What a node reports, and what it does when a report is not taken. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import { version } from "../../internal/version.js"
import type { AppliedEvents } from "../AppliedEvents.js"
import type { ApplierStatus } from "../ApplierStatus.js"
import { mostAsides, reasonOf, type Asides, type Registration, type Report } from "../NodeReport.js"
import { ReportsUnavailable, type NodeReports, type Ticket } from "../NodeReports.js"
import type { Source } from "../Source.js"
import * as Lagging from "./lagging.js"

export const ownVersion = version

interface Parts {
  readonly applied: AppliedEvents["Type"]
  readonly reports: NodeReports["Type"]
  readonly source: Source["Type"]
}

/** Two registrations of others within this are a second process of the same name, in milliseconds. */
const often = 60_000

export const make = ({ applied, reports, source }: Parts, registration: Registration) => {
  const { node } = registration
  const lagging = Lagging.make()
  let ticket: Ticket | undefined
  let sequence = 0
  let before: { readonly feed: string; readonly position: number } | undefined
  let asides: Asides | undefined
  let counted = -1
  let supersededAt = -Infinity
  let failing = false

  /** Read before the position counts: what was set aside must not be reported as applied. */
  const readAsides = ({ setAside, skipped }: ApplierStatus) =>
    Effect.suspend(() => {
      // An event that another applier of the database has set aside is skipped here.
      const count = setAside + skipped
      if (asides !== undefined && count === counted) return Effect.succeed(asides)
      return Effect.map(applied.asides({ limit: mostAsides + 1 }), (found) => {
        const versions = found.map((aside) => aside.version).sort((one, other) => other - one)
        const completeFrom = versions.length > mostAsides ? versions[mostAsides - 1]! : 0
        counted = count
        return (asides = { versions: versions.slice(0, mostAsides), completeFrom })
      })
    })

  /** A node that reads a part of the feed has all of its part up to what the feed had when nothing lacked. */
  const throughOf = ({ position }: ApplierStatus): Effect.Effect<{ readonly through?: number }> =>
    Effect.map(
      Effect.orElseSucceed(source.look, () => undefined),
      (feed) => (feed?.head === undefined || position < feed.newest ? {} : { through: Math.max(position, feed.head) })
    )

  const cursorOf = (status: ApplierStatus, now: number) =>
    Effect.gen(function* () {
      const { feed, newest, position } = status
      if (feed === undefined) return undefined
      // Without them an event that was set aside would count as applied: then where the node is, is not known.
      const asides = yield* Effect.orElseSucceed(readAsides(status), () => undefined)
      if (asides === undefined) return undefined
      const through = isPartial ? yield* throughOf(status) : {}
      const behindForMillis = lagging.behindFor(position, now)
      return {
        feed,
        position,
        newest: Math.max(newest, position),
        ...through,
        ...(behindForMillis === undefined ? {} : { behindForMillis }),
        asides
      }
    })

  // Asked once: whether a source reads a part does not change.
  let isPartial = false
  let looked = false
  const learn = Effect.suspend(() =>
    looked
      ? Effect.void
      : Effect.matchEffect(source.look, {
          onFailure: () => Effect.void,
          onSuccess: ({ head }) =>
            Effect.sync(() => {
              looked = true
              isPartial = head !== undefined
            })
        })
  )

  const reportOf = (status: ApplierStatus) =>
    Effect.gen(function* () {
      yield* learn
      const now = yield* Clock.currentTimeMillis
      const cursor = yield* cursorOf(status, now)
      const { lastError, since, state } = status
      const held = state === "halted" || state === "unavailable" ? lastError : undefined
      const report: Omit<Report, "sequence"> = {
        state: state === "inert" ? "idle" : state,
        stateForMillis: Math.max(0, now - since),
        ...(cursor === undefined ? {} : { cursor }),
        ...(held === undefined
          ? {}
          : {
              trouble: {
                message: reasonOf(held.message),
                ...(held.version === undefined ? {} : { version: held.version })
              }
            })
      }
      return report
    })

  const register = Effect.tap(reports.register(registration), (given) =>
    Effect.sync(() => {
      ticket = given
      sequence = 0
    })
  )

  const send = (report: Omit<Report, "sequence">) =>
    Effect.gen(function* () {
      // A position that falls was set back: it begins a new registration, as the receiver takes no lower one.
      const { cursor } = report
      if (before !== undefined && cursor?.feed === before.feed && cursor.position < before.position) ticket = undefined
      const valid = ticket ?? (yield* register)
      yield* reports.report(node, valid, { ...report, sequence: ++sequence })
      if (cursor !== undefined) before = { feed: cursor.feed, position: cursor.position }
    })

  const registerAgain = (message: string, isSuperseded: boolean) =>
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const isAgain = isSuperseded && now - supersededAt < often
      if (isSuperseded) supersededAt = now
      yield* isAgain
        ? Effect.logWarning(
            `${message}, and again: two processes report as this node, and what is known of it is now the one's, now the other's. Give each a name of its own`
          )
        : Effect.logDebug(`${message}: registering again`)
      ticket = undefined
    })

  return {
    /** Is told every status, so that lag is measured between reports as well. */
    watch: (status: ApplierStatus, now: number): void => {
      if (status.feed !== undefined && status.newest > 0) lagging.watch(status.position, status.newest, now)
    },

    /** Reports a status. Registers before it where that is needed. */
    report: (status: ApplierStatus) =>
      Effect.flatMap(reportOf(status), (report) =>
        Effect.catchTag(send(report), "Unregistered", (error) =>
          Effect.zipRight(registerAgain(error.message, error.reason === "superseded"), send(report))
        )
      ),

    /** Logs once that reports are not delivered, and once that they are again. */
    told: <E>(report: Effect.Effect<Option.Option<void>, E>): Effect.Effect<void> =>
      report.pipe(
        Effect.flatMap((sent) =>
          sent._tag === "Some" ? Effect.void : new ReportsUnavailable({ message: "no answer in time" })
        ),
        Effect.matchCauseEffect({
          onFailure: (cause) => {
            if (Cause.isInterruptedOnly(cause)) return Effect.failCause(cause as Cause.Cause<never>)
            const error = Cause.squash(cause)
            const log = failing ? Effect.logDebug : Effect.logWarning
            failing = true
            return log(
              `This node cannot report how far it is, and goes on applying (${reports.name}): ${error instanceof Error ? error.message : String(error)}`
            )
          },
          onSuccess: () =>
            Effect.suspend(() => {
              if (!failing) return Effect.void
              failing = false
              return Effect.logInfo(`This node reports again (${reports.name})`)
            })
        })
      )
  }
}
