/** A chart over time of the last minutes, with the same in words. */
import { useEffect, useRef } from "preact/hooks"
import UPlot from "uplot"
import * as Words from "./words.js"

export interface Series {
  readonly name: string
  /** The class that gives it its color. */
  readonly color: string
  /** Beside its color. */
  readonly dashed?: boolean
  readonly values: ReadonlyArray<number | null>
}

const height = 150

const colorOf = (element: Element): string => getComputedStyle(element).color

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" })

const compact = new Intl.NumberFormat("en", { notation: "compact" })

const range = (_: UPlot, _min: number | null, max: number | null): UPlot.Range.MinMax => [
  0,
  Math.max(4, (max ?? 0) * 1.1)
]

const summary = ({ name, values }: Series): string => {
  const known = values.filter((value) => value !== null)
  const latest = values[values.length - 1] ?? undefined
  return known.length === 0
    ? `${name}: not known`
    : `${name}: now ${latest === undefined ? "not known" : Words.rate(latest)}, lowest ${Words.rate(Math.min(...known))}, highest ${Words.rate(Math.max(...known))}`
}

export const Chart = (props: {
  readonly title: string
  readonly unit: string
  readonly times: ReadonlyArray<number>
  readonly series: ReadonlyArray<Series>
  /** Changes when the colors do. */
  readonly theme: string
}) => {
  const { series, theme, times, title, unit } = props
  const figure = useRef<HTMLElement>(null)
  const area = useRef<HTMLDivElement>(null)
  const plot = useRef<UPlot>(null)
  const data: UPlot.AlignedData = [times.map((at) => at / 1000), ...series.map(({ values }) => [...values])]

  useEffect(() => {
    const swatch = (name: string): string => colorOf(figure.current!.querySelector(`.${name}`)!)
    const axis = { stroke: () => colorOf(area.current!), font: "11px system-ui", ticks: { show: false } }
    const grid = { stroke: () => swatch("grid-color"), width: 1 }
    const made = new UPlot(
      {
        width: area.current!.clientWidth,
        height,
        padding: [8, 28, 0, 0],
        legend: { show: false },
        cursor: { show: false },
        scales: { y: { range } },
        axes: [
          {
            ...axis,
            grid: { show: false },
            size: 24,
            space: 110,
            values: (_, ticks) => ticks.map((tick) => clock.format(tick * 1000))
          },
          { ...axis, grid, size: 44, values: (_, ticks) => ticks.map((tick) => compact.format(tick)) }
        ],
        series: [
          {},
          ...series.map(({ color, dashed }): UPlot.Series => ({
            stroke: () => swatch(color),
            width: 2,
            spanGaps: false,
            points: { show: false },
            ...(dashed === true ? { dash: [6, 4] } : {})
          }))
        ]
      },
      data,
      area.current!
    )
    plot.current = made
    const resized = new ResizeObserver(() => made.setSize({ width: area.current!.clientWidth, height }))
    resized.observe(area.current!)
    return () => {
      resized.disconnect()
      made.destroy()
    }
  }, [])

  useEffect(() => plot.current?.setData(data), [times])
  useEffect(() => plot.current?.redraw(), [theme])

  return (
    <figure ref={figure} class="panel chart">
      <figcaption>
        <h2>
          {title} <span class="dim">{unit}</span>
        </h2>
        <span class="legend">
          {series.map(({ color, dashed, name }) => (
            <span key={name}>
              <span class={`swatch ${color} ${dashed === true ? "dashed" : ""}`} aria-hidden="true" /> {name}
            </span>
          ))}
          <span class="grid-color" />
        </span>
      </figcaption>
      <div class="plot" role="img" aria-label={`${title}, ${unit}. ${series.map(summary).join(". ")}`} ref={area} />
      <p class="dim small">{series.map(summary).join(" · ")}</p>
    </figure>
  )
}
