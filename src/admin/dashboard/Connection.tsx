/** Shows whether the page is connected, and how old its data is. */
import type { Live } from "./live.js"
import * as Words from "./words.js"

export const ConnectionLost = ({ live }: { readonly live: Live }) =>
  live.connection !== "lost" ? null : (
    <div class="banner" role="alert">
      <b>Connection lost.</b> {live.receivedAt === undefined ? "Nothing received yet." : "This page shows old data."}{" "}
      Reconnecting. {live.problem}
    </div>
  )

/** The state of the connection and the age of the data. */
export const Freshness = ({ live }: { readonly live: Live }) => {
  const age = live.receivedAt === undefined ? undefined : Date.now() - live.receivedAt
  const stale = live.connection !== "connected"
  return (
    <span class={`freshness ${stale ? "stale" : ""}`}>
      <span aria-hidden="true">{stale ? "○" : "●"}</span>{" "}
      {stale ? (age === undefined ? "Connecting" : `Data is ${Words.duration(age)} old`) : "Connected"}
    </span>
  )
}
