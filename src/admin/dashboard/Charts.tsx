/** Backlog and rates of the last ten minutes. */
import { useMemo } from "preact/hooks"
import { Chart } from "./Chart.js"
import type { Live } from "./live.js"

export const Charts = ({ points, theme }: { readonly points: Live["points"]; readonly theme: string }) => {
  const times = useMemo(() => points.map(({ at }) => at), [points])
  const column = (name: "appended" | "pending" | "published") => points.map((point) => point[name])
  return (
    <div class="charts">
      <Chart
        title="Backlog"
        unit="pending events"
        theme={theme}
        times={times}
        series={[{ name: "pending", color: "color-1", values: column("pending") }]}
      />
      <Chart
        title="Rates"
        unit="events a second"
        theme={theme}
        times={times}
        series={[
          { name: "published", color: "color-2", values: column("published") },
          { name: "appended", color: "color-3", dashed: true, values: column("appended") }
        ]}
      />
    </div>
  )
}
