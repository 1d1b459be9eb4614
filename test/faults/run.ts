import { violations, type History } from "./history.js"
import { serves, writers, type Fault, type Plan } from "./plan.js"
import { openRig, pause, type Rig } from "./rig.js"

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

/** How long the pumps may take to publish what is left, once everything is well again. */
const drainTime = 90_000

const inject = async (rig: Rig, fault: Fault, complain: (violation: string) => void): Promise<void> => {
  /** Kills a `serve` while something of it is stuck, and starts it again. */
  const killStuck = async (victim: number, stick: () => void, down: number) => {
    stick()
    await pause(300)
    await rig.killServe(victim)
    for (const server of ["database", "broker"] as const) rig.valve(victim, server).cut()
    await pause(down)
    rig.startServe(victim)
  }
  switch (fault._tag) {
    case "kill":
      await rig.killServe(fault.victim)
      await pause(fault.down)
      rig.startServe(fault.victim)
      return
    case "freeze":
      rig.pump(fault.victim).kill("SIGSTOP")
      await pause(fault.millis)
      rig.pump(fault.victim).kill("SIGCONT")
      return
    case "terminate": {
      const before = performance.now()
      const child = rig.pump(fault.victim)
      const wasRunning = rig.isRunning(child)
      await rig.killServe(fault.victim, "SIGTERM")
      const took = performance.now() - before
      if (took > stopTime) complain(`a stop took ${Math.round(took)} ms`)
      if (wasRunning && child.exitCode !== 0) complain(`a stop ended with ${child.exitCode ?? child.signalCode}`)
      rig.startServe(fault.victim)
      return
    }
    case "killClaimed":
      await killStuck(fault.victim, () => rig.valve(fault.victim, "broker").set({ toServer: "drop" }), 0)
      return
    case "killPublished": {
      // Nobody else may publish it meanwhile, so that it comes again beyond the duplicate window.
      const others = fault.down === 0 ? [] : [0, 1, 2].filter((index) => index !== fault.victim)
      for (const other of others) await rig.killServe(other)
      await killStuck(fault.victim, () => rig.valve(fault.victim, "broker").set({ toClient: "drop" }), fault.down)
      for (const other of others) rig.startServe(other)
      return
    }
    case "killAcknowledged": {
      const others = fault.down === 0 ? [] : [0, 1, 2].filter((index) => index !== fault.victim)
      for (const other of others) await rig.killServe(other)
      await killStuck(fault.victim, () => rig.valve(fault.victim, "database").set({ toServer: "drop" }), fault.down)
      for (const other of others) rig.startServe(other)
      return
    }
    case "killDraining":
      await killStuck(
        fault.victim,
        () => {
          rig.valve(fault.victim, "broker").set({ toClient: "hold" })
          rig.pump(fault.victim).kill("SIGTERM")
        },
        0
      )
      return
    case "cut":
      rig.valve(fault.victim, fault.server).cut()
      return
    case "hold":
      rig.valve(fault.victim, fault.server).set({ toServer: "hold", toClient: "hold" })
      await pause(fault.millis)
      rig.valve(fault.victim, fault.server).set({ toServer: "pass", toClient: "pass" })
      return
    case "halfOpen":
      rig.valve(fault.victim, fault.server).set({ toServer: "drop", toClient: "drop" })
      await pause(fault.millis)
      rig.valve(fault.victim, fault.server).set({ toServer: "pass", toClient: "pass" })
      return
    case "crashDatabase":
      await rig.crashDatabase()
      return
    case "crashBroker":
      await rig.crashBroker(fault.down)
      return
    case "killWriter":
      await rig.killWriter(fault.victim)
      rig.startWriter(fault.victim)
      return
    case "restore":
      await rig.stopServes()
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
    readonly keep?: boolean
    readonly log: (line: string) => void
  }
): Promise<Report> => {
  const { log } = options
  const rig = await openRig(plan, options)
  const complaints: Array<string> = []
  const counts: Record<string, number> = {}
  try {
    await rig.ready()
    for (let index = 0; index < writers; index++) rig.startWriter(index)
    const start = performance.now()
    const elapsed = () => performance.now() - start
    for (const { after, fault } of plan.faults) {
      if (elapsed() >= options.millis) break
      await pause(after)
      log(`${(elapsed() / 1_000).toFixed(1).padStart(6)} s  ${JSON.stringify(fault)}`)
      counts[fault._tag] = (counts[fault._tag] ?? 0) + 1
      await inject(rig, fault, (violation) => complaints.push(violation))
    }
    for (let index = 0; index < writers; index++) await rig.killWriter(index)
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
