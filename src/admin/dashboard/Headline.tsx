/** The headline: whether events are published, and if not, why, since when and what to do. */
import type { Verdict } from "./verdict.js"
import * as Words from "./words.js"

export const signs: Record<Verdict["level"], { readonly sign: string; readonly name: string }> = {
  good: { sign: "✓", name: "Good" },
  attention: { sign: "!", name: "Attention" },
  trouble: { sign: "✕", name: "Trouble" }
}

export const Headline = ({ now, told }: { readonly told: Verdict; readonly now: number }) => (
  <section class={`headline ${told.level}`} aria-label="Summary">
    <span class="sign" aria-hidden="true">
      {signs[told.level].sign}
    </span>
    <div>
      <h1>
        <span class="sr">{signs[told.level].name}: </span>
        {told.title}
        {told.since !== undefined && <span class="since"> for {Words.duration(now - told.since)}</span>}
      </h1>
      {told.reason !== undefined && <p class="reason">{told.reason}</p>}
      <p>{told.meaning}</p>
      {told.advice !== undefined && (
        <p>
          <b>What to do:</b> {told.advice}
        </p>
      )}
    </div>
  </section>
)
