import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Metric, Schema, TestClock } from "effect"
import * as Fs from "node:fs/promises"
import { fileURLToPath } from "node:url"
import { parse } from "yaml"
import { Outbox, PumpMetrics } from "../../src/index.js"
import * as Prometheus from "../../src/admin/Prometheus.js"
import { MemoryOutboxStore, MemorySink } from "../../src/testing/index.js"
import { layerPump } from "../support/pump.js"

const Test = Layer.merge(Outbox.layer, layerPump()).pipe(Layer.provideMerge(MemoryOutboxStore.layer))

/** A scrape after a pump has published, failed and parked events, and somebody has looked at the outbox. */
const scrape = Effect.gen(function* () {
  const outbox = yield* Outbox.Outbox
  const sink = yield* MemorySink.MemorySink
  yield* sink.failEvent("fails", { times: 1 })
  yield* sink.rejectEvent("rejected")
  yield* TestClock.adjust("1 second")
  const before = samplesOf(yield* Prometheus.render)
  const events = ["fine", "fails", "rejected"].map((event_id) => ({ type: "a", event_id, tenant_id: event_id }))
  yield* outbox.withTransaction(outbox.appendAll(events))
  yield* TestClock.adjust("10 millis")
  const count = { value: 1, exact: true }
  yield* PumpMetrics.setBacklog({ pending: count, waiting: count, parked: count, oldestPendingAt: 1_000 }, 1_250)
  yield* PumpMetrics.setHealthy({ database: true, sink: false, pump: true })
  return { before, text: yield* Prometheus.render }
}).pipe(Effect.provide(Test))

const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*(?:\{.*\})?) (\S+)$/

const samplesOf = (text: string): ReadonlyMap<string, number> =>
  new Map(
    text.split("\n").flatMap((line) => {
      const [, series, value] = sample.exec(line) ?? []
      return series === undefined ? [] : [[series, value === "+Inf" ? Infinity : Number(value)]]
    })
  )

/** What Prometheus knows of a text: names with type and help, and the labels of each. */
const catalogOf = (text: string) => {
  const types = new Map(Array.from(text.matchAll(/^# TYPE (\S+) (\S+)$/gm), ([, name = "", type = ""]) => [name, type]))
  const help = new Map(Array.from(text.matchAll(/^# HELP (\S+) (.+)$/gm), ([, name = "", help = ""]) => [name, help]))
  const labels = new Map<string, Set<string>>()
  for (const series of samplesOf(text).keys()) {
    const name = series.split("{", 1)[0]!
    const known = labels.get(name) ?? new Set(["instance", "job"])
    for (const [, label = ""] of series.matchAll(/[{,](\w+)="/g)) known.add(label)
    labels.set(name, known)
  }
  return { types, help, labels }
}

const docs = (path: string) =>
  Effect.promise(() => Fs.readFile(fileURLToPath(new URL(`../../docs/${path}`, import.meta.url)), "utf8"))

const Alerts = Schema.Struct({
  groups: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      rules: Schema.Array(
        Schema.Struct({
          alert: Schema.String,
          expr: Schema.String,
          for: Schema.optional(Schema.String.pipe(Schema.pattern(/^\d+[smh]$/))),
          labels: Schema.Struct({ severity: Schema.Literal("critical", "warning", "info") }),
          annotations: Schema.Struct({ summary: Schema.String, runbook: Schema.String })
        })
      )
    })
  )
})

const Dashboard = Schema.Struct({
  templating: Schema.Struct({
    list: Schema.Array(
      Schema.Struct({
        name: Schema.String,
        query: Schema.Union(Schema.String, Schema.Struct({ query: Schema.String, refId: Schema.String }))
      })
    )
  }),
  panels: Schema.Array(
    Schema.Struct({
      title: Schema.String,
      type: Schema.String,
      targets: Schema.optional(Schema.Array(Schema.Struct({ expr: Schema.String })))
    })
  )
})

const pumpMetrics = /controlpublish_\w+/g

/** Names and labels that an expression wants, of those that there are. */
const check = (where: string, expr: string, { labels }: ReturnType<typeof catalogOf>) => {
  const names = expr.match(pumpMetrics) ?? []
  assert.isNotEmpty(names, where)
  for (const name of names) assert.isTrue(labels.has(name), `${where}: there is no ${name}`)
  const known = new Set(names.flatMap((name) => Array.from(labels.get(name)!)))
  const wanted = [
    ...Array.from(expr.matchAll(/\b(?:by|on) \(([^)]*)\)/g), ([, list = ""]) => list.split(/, */)),
    ...Array.from(expr.matchAll(/(\w+)(?:=~|!~|!=|=)"/g), ([, label = ""]) => [label])
  ].flat()
  for (const label of wanted)
    assert.isTrue(known.has(label), `${where}: none of ${names.join()} has the label ${label}`)
}

describe("Prometheus", () => {
  it.scoped("says what a pump did, under the names that are documented", () =>
    Effect.gen(function* () {
      const { before, text } = yield* scrape
      const samples = samplesOf(text)
      const grown = (series: string) => samples.get(series)! - (before.get(series) ?? 0)
      assert.strictEqual(grown("controlpublish_published_total"), 1)
      assert.strictEqual(grown("controlpublish_failed_total"), 1)
      assert.strictEqual(grown("controlpublish_parked_total"), 1)
      assert.strictEqual(grown("controlpublish_batch_size_sum"), 3)
      assert.strictEqual(grown('controlpublish_wake_ups_total{reason="notify"}'), 1)
      assert.strictEqual(samples.get('controlpublish_pump_state{state="idle"}'), 1)
      assert.strictEqual(samples.get('controlpublish_pump_state{state="unavailable"}'), 0)
      assert.strictEqual(samples.get('controlpublish_healthy{part="sink"}'), 0)
      assert.strictEqual(samples.get("controlpublish_oldest_pending_age_seconds"), 0.25)
      for (const [series, value] of samples) assert.isFalse(Number.isNaN(value), series)

      const { help, types } = catalogOf(text)
      const ours = Array.from(types.keys()).filter((name) => name.startsWith("controlpublish_"))
      assert.lengthOf(ours, 16)
      const page = yield* docs("metrics.md")
      for (const name of ours) {
        assert.notMatch(help.get(name)!, /description missing/, name)
        assert.match(page, new RegExp(`^\\| \`${name}\` +\\| ${types.get(name)} `, "m"))
        assert.strictEqual(name.endsWith("_total"), types.get(name) === "counter", name)
      }
    })
  )

  it.scoped("has buckets for one event to ten thousand, and for a millisecond to half a minute", () =>
    Effect.gen(function* () {
      const { text } = yield* scrape
      const buckets = (name: string) =>
        Array.from(text.matchAll(new RegExp(`^${name}_bucket\\{le="(.+)"\\}`, "gm")), ([, le = ""]) => le)
      const sizes = buckets("controlpublish_batch_size")
      assert.deepStrictEqual([sizes[0], ...sizes.slice(-2)], ["1", "10000", "+Inf"])
      for (const name of ["claim", "publish", "write_back"]) {
        const seconds = buckets(`controlpublish_${name}_duration_seconds`)
        assert.deepStrictEqual([seconds[0], ...seconds.slice(-2)], ["0.001", "30", "+Inf"])
      }
    })
  )

  it.scoped("also has what others measure, with values that need escaping", () =>
    Effect.gen(function* () {
      yield* Metric.increment(
        Metric.tagged(Metric.counter("other_events", { incremental: true }), "path", 'C:\\ "new"\nline')
      )
      const text = yield* Prometheus.render
      assert.include(text, 'other_events_total{path="C:\\\\ \\"new\\"\\nline"} 1\n')
      // Each series is described, and those of Effect's fibers are none of an outbox.
      assert.notMatch(text, /description missing|effect_fiber/)
    })
  )

  it.scoped("has every metric of the alert rules, and each rule its paragraph", () =>
    Effect.gen(function* () {
      const catalog = catalogOf((yield* scrape).text)
      catalog.labels.set("controlpublish_applied_bound_used_ratio", new Set())
      const { groups } = yield* Schema.decodeUnknown(Alerts, { onExcessProperty: "error" })(
        parse(yield* docs("alerts.yml"))
      )
      const page = yield* docs("alerts.md")
      const anchors = new Set(
        Array.from(page.matchAll(/^#+ (.+)$/gm), ([, title = ""]) => title.toLowerCase().replace(/ /g, "-"))
      )
      const rules = groups.flatMap(({ rules }) => rules)
      assert.isAtLeast(rules.length, 10)
      for (const { alert, annotations, expr } of rules) {
        check(alert, expr, catalog)
        const [file, anchor = ""] = annotations.runbook.split("#")
        assert.strictEqual(file, "alerts.md")
        assert.isTrue(anchors.has(anchor), `${alert}: there is no paragraph #${anchor}`)
      }
    })
  )

  it.scoped("has every metric of the dashboard", () =>
    Effect.gen(function* () {
      const catalog = catalogOf((yield* scrape).text)
      const dashboard = yield* Schema.decodeUnknown(Schema.parseJson(Dashboard))(
        yield* docs("grafana/controlpublish.json")
      )
      const shown = new Set<string>()
      for (const { targets = [], title, type } of dashboard.panels) {
        assert.strictEqual(targets.length === 0, type === "row", title)
        for (const { expr } of targets) {
          check(title, expr, catalog)
          for (const name of expr.match(pumpMetrics) ?? []) shown.add(name.replace(/_bucket$/, ""))
        }
      }
      for (const name of catalog.types.keys()) {
        if (name.startsWith("controlpublish_")) assert.isTrue(shown.has(name), `${name} is on no panel`)
      }
      for (const { name, query } of dashboard.templating.list) {
        const names = (typeof query === "string" ? query : query.query).match(pumpMetrics) ?? []
        for (const metric of names) assert.isTrue(catalog.labels.has(metric), `the variable ${name}: ${metric}`)
      }
    })
  )
})
