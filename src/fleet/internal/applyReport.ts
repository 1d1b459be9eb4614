import type { ApplyReport } from "../ApplierStatus.js"

/** What became of one event. */
export type Outcome = keyof ApplyReport

export const nothing: ApplyReport = { applied: 0, skipped: 0, setAside: 0 }

export const add = ({ applied, setAside, skipped }: ApplyReport, outcomes: ReadonlyArray<Outcome>): ApplyReport => {
  const report = { applied, skipped, setAside }
  for (const outcome of outcomes) report[outcome]++
  return report
}
