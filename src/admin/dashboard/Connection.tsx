/** Whether the page hears the service, and how old what it shows is. */
import type { Live } from "./live.js"
import * as Words from "./words.js"

export const ConnectionLost = ({ live }: { readonly live: Live }) =>
  live.connection !== "lost" ? null : (
    <div class="banner" role="alert">
      <b>Connection lost.</b> {live.receivedAt === undefined ? "Nothing received yet." : "This page shows old data."}{" "}
      Reconnecting. {live.problem}
    </div>
  )

/** What the connection is like, and how old what is shown is. */
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
