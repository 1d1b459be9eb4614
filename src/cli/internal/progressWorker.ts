/** The thread that draws the progress bar, see `progress.ts`. */
import { progress, spinner } from "@clack/prompts"
import { parentPort, workerData } from "node:worker_threads"
import type { Message } from "./progress.js"

const { bytes } = workerData as { readonly bytes: number | undefined }
const options = { output: process.stderr, withGuide: false }
const bar = bytes === undefined ? undefined : progress({ ...options, max: bytes })
const shown = bar ?? spinner(options)

shown.start("0 events")

parentPort?.on("message", (message: Message) => {
  if (message._tag === "End") {
    shown.clear()
    parentPort?.close()
  } else if (bar === undefined) {
    shown.message(message.message)
  } else {
    bar.advance(message.bytes, message.message)
  }
})
