import { violations, type History } from "./history.js"
import type { Flows } from "../support/valve.js"
import { serves, writers, type Fault, type Plan, type Server } from "./plan.js"
import { openRig, pause, until, type Rig } from "./rig.js"

export interface Report {
  readonly seed: string
  readonly deduplication: string
  readonly faults: Readonly<Record<string, number>>
  readonly transactions: number
  readonly events: number
  readonly messages: number
  readonly violations: ReadonlyArray<string>
}

/** How long a stop may take: the drain timeout, and a second to end. */
const stopTime = 5_500

/** How long a fault waits for the moment that it aims at: for events to publish, and a lane for the victim. */
const aimTime = 10_000

/** How long the pumps may take to publish what is left, once everything is well again. */
const drainTime = 90_000

const inject = async (
  rig: Rig,
  fault: Fault,
  log: (line: string) => void,
  complain: (violation: string) => void
): Promise<void> => {
  const { pump, untilRunning, valve } = rig
  /** Kills a `serve` at the moment that it is brought to, and says so where it did not come to that. */
  const killAt = async (victim: number, moment: () => Promise<boolean>, down = 0) => {
    // Nobody else may publish what it leaves, so that it comes again beyond the duplicate window.
    const others = down === 0 ? [] : [0, 1, 2].filter((index) => index !== victim)
    await untilRunning(victim)
    for (const other of others) await rig.killServe(other)
    if (!(await moment())) log("          it did not come to that")
    await rig.killServe(victim)
    for (const server of ["database", "broker"] as const) valve(victim, server).cut()
    await pause(down)
    for (const index of [victim, ...others]) rig.startServe(index)
  }
  const withheld = (victim: number, server: Server, way: keyof Flows) =>
    until(() => valve(victim, server).withheld()[way] > 0, aimTime)
  switch (fault._tag) {
    case "kill":
      await rig.killServe(fault.victim)
      await pause(fault.down)
      rig.startServe(fault.victim)
      return
    case "freeze":
      pump(fault.victim).kill("SIGSTOP")
      await pause(fault.millis)
      pump(fault.victim).kill("SIGCONT")
      return
    case "terminate": {
      const before = performance.now()
      const child = pump(fault.victim)
      const wasRunning = rig.isRunning(child)
      await rig.killServe(fault.victim, "SIGTERM")
      const took = performance.now() - before
      if (took > stopTime) complain(`a stop took ${Math.round(took)} ms`)
      if (wasRunning && child.exitCode !== 0) complain(`a stop ended with ${child.exitCode ?? child.signalCode}`)
      rig.startServe(fault.victim)
      return
    }
    case "killClaimed":
      await killAt(fault.victim, () => {
        valve(fault.victim, "broker").set({ toServer: "drop" })
        return withheld(fault.victim, "broker", "toServer")
      })
      return
    case "killPublished":
      await killAt(
        fault.victim,
        () => {
          valve(fault.victim, "broker").set({ toClient: "drop" })
          return withheld(fault.victim, "broker", "toClient")
        },
        fault.down
      )
      return
    case "killAcknowledged":
      await killAt(
        fault.victim,
        async () => {
          // It has claimed what it waits for acknowledgements of; what it says to the database then is the write-back.
          valve(fault.victim, "broker").set({ toClient: "hold" })
          const isPublished = await withheld(fault.victim, "broker", "toClient")
          valve(fault.victim, "database").set({ toServer: "drop" })
          valve(fault.victim, "broker").set({ toClient: "pass" })
          return isPublished && (await withheld(fault.victim, "database", "toServer"))
        },
        fault.down
      )
      return
    case "killDraining":
      await killAt(fault.victim, async () => {
        valve(fault.victim, "broker").set({ toClient: "hold" })
        const isPublished = await withheld(fault.victim, "broker", "toClient")
        pump(fault.victim).kill("SIGTERM")
        await pause(300)
        return isPublished
      })
      return
    case "cut":
      valve(fault.victim, fault.server).cut()
      return
    case "hold":
      valve(fault.victim, fault.server).set({ toServer: "hold", toClient: "hold" })
      await pause(fault.millis)
      valve(fault.victim, fault.server).set({ toServer: "pass", toClient: "pass" })
      return
    case "halfOpen":
      valve(fault.victim, fault.server).set({ toServer: "drop", toClient: "drop" })
      await pause(fault.millis)
      valve(fault.victim, fault.server).set({ toServer: "pass", toClient: "pass" })
      return
    case "crashDatabase":
      // A start without a database ends, as it should.
      for (let index = 0; index < serves; index++) await untilRunning(index)
      await rig.crashDatabase()
      return
    case "crashBroker":
      await rig.crashBroker(fault.down)
      return
    case "killReplica":
      await rig.killReplica(fault.role, fault.down)
      return
    case "stepDown":
      await rig.stepDown()
      return
    case "killWriter":
      await rig.killWriter(fault.victim)
      rig.startWriter(fault.victim)
      return
    case "restore":
      await rig.stopServes()
      // What the stream held until now nobody sees later. What is not published yet, or not told yet, is not wrong.
      for (const violation of violations(await rig.history())) {
        if (/^(doubled|reordered|misrecorded)/.test(violation)) complain(violation)
      }
      await rig.restore()
      for (let index = 0; index < serves; index++) rig.startServe(index)
  }
}

/** Carries out a plan, heals everything, and looks at what came of it. */
export const run = async (
  plan: Plan,
  options: {
    readonly millis: number
    readonly break?: string | undefined
    readonly clients?: 1 | 2 | undefined
    readonly keep?: boolean
    readonly log: (line: string) => void
  }
): Promise<Report> => {
  const { log } = options
  const rig = await openRig(plan, { ...options, clients: options.clients ?? 1 })
  const complaints: Array<string> = []
  const counts: Record<string, number> = {}
  try {
    await rig.ready()
    for (let index = 0; index < writers; index++) rig.startWriter(index)
    const start = performance.now()
    const elapsed = () => performance.now() - start
    for (const [done, { after, fault }] of plan.faults.entries()) {
      // What every plan begins with is done, however slow the machine is.
      if (elapsed() >= options.millis && done >= plan.least) break
      await pause(after)
      log(`${(elapsed() / 1_000).toFixed(1).padStart(6)} s  ${JSON.stringify(fault)}`)
      counts[fault._tag] = (counts[fault._tag] ?? 0) + 1
      await inject(rig, fault, log, (violation) => complaints.push(violation))
    }
    for (let index = 0; index < writers; index++) await rig.killWriter(index)
    for (let index = 0; index < serves; index++) await rig.untilRunning(index)
    // What a writer had at the server when it was killed ends there.
    await pause(500)
    const deadline = performance.now() + drainTime
    let pending = await rig.pending()
    while (pending > 0 && performance.now() < deadline) {
      await pause(200)
      pending = await rig.pending()
    }
    if (pending > 0)
      complaints.push(`stuck: ${pending} events are pending ${drainTime / 1_000} s after everything was well`)
    await rig.stopServes()
    const history: History = await rig.history()
    return {
      seed: plan.seed,
      deduplication: plan.deduplication,
      faults: counts,
      transactions: history.transactions.length,
      events: history.rows.length,
      messages: history.messages.length,
      violations: [...complaints, ...violations(history)]
    }
  } finally {
    if (options.keep === true) log(`Kept ${rig.directory}`)
    await rig.close(options.keep === true)
  }
}
