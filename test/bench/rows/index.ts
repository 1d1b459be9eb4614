import type { Row } from "../support/row.js"
import { appending } from "./append.js"
import { applied, applying } from "./apply.js"
import { competition } from "./competition.js"
import { memory, oneKey, oneKeyByBatch, tableSize } from "./limits.js"
import { pruning, status } from "./operating.js"
import { idle, latency, slowSink } from "./running.js"
import { batches, core, deduplication, oldSnapshot, throughput } from "./throughput.js"

export const rows: ReadonlyArray<Row> = [
  throughput,
  batches,
  competition,
  deduplication,
  appending,
  latency,
  idle,
  oldSnapshot,
  tableSize,
  status,
  pruning,
  memory,
  slowSink,
  oneKey,
  oneKeyByBatch,
  applying,
  applied,
  core
]
