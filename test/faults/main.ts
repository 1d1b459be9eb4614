/**
 * Faults that must lose nothing: `npm run faults [-- --minutes N --seed SEED --cluster --clients 2 --publish batch --break NAME
 * --json FILE --keep]`.
 *
 * Real processes, real kills. A seed gives the same plan again; what the processes make of it differs from run to run.
 */
import { writeFile } from "node:fs/promises"
import { parseArgs } from "node:util"
import { howToFetch, howToInstall, isInstalled, leastForBatches, programOf } from "../support/nats.js"
import * as Plan from "./plan.js"
import { run } from "./run.js"

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "1" },
    seed: { type: "string", default: String(Date.now()) },
    cluster: { type: "boolean", default: false },
    clients: { type: "string", default: "1" },
    publish: { type: "string", default: "message" },
    break: { type: "string" },
    json: { type: "string" },
    keep: { type: "boolean", default: false }
  }
})

const main = async () => {
  if (!isInstalled) throw new Error(howToInstall)
  const millis = Number(values.minutes) * 60_000
  if (!(millis > 0)) throw new Error(`--minutes: got ${values.minutes}, valid is a number above 0`)
  if (values.clients !== "1" && values.clients !== "2") {
    throw new Error(`--clients: got ${values.clients}, valid is 1 or 2`)
  }
  const clients = values.clients === "1" ? 1 : 2
  const { publish } = values
  if (publish !== "message" && publish !== "batch" && publish !== "auto") {
    throw new Error(`--publish: got ${publish}, valid is message, batch or auto`)
  }
  if (publish !== "message" && programOf(leastForBatches) === undefined) throw new Error(howToFetch)
  const plan = Plan.make(values.seed, millis, values.cluster, publish)
  console.log(
    `seed ${plan.seed}, deduplication by ${plan.deduplication}, publishing by ${publish}, ${values.minutes} min`
  )
  const report = await run(plan, {
    millis,
    clients,
    break: values.break,
    keep: values.keep,
    log: (line) => console.log(line)
  })
  console.log(
    `${report.transactions} transactions, ${report.events} events committed, ${report.messages} messages in the feed`
  )
  for (const violation of report.violations.slice(0, 20)) console.log(`VIOLATION ${violation}`)
  console.log(
    report.violations.length === 0
      ? "Nothing was lost, invented, doubled or reordered."
      : `${report.violations.length} violations; again with --seed ${plan.seed}`
  )
  if (values.json !== undefined) await writeFile(values.json, JSON.stringify(report, null, 2))
  if (report.violations.length > 0) process.exitCode = 1
}

main().catch((error: unknown) => {
  console.error(error)
  process.exitCode = 1
})
