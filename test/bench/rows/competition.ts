import { makeWorkerUtils } from "graphile-worker"
import PgBoss from "pg-boss"
import { DatabaseSetupExporter } from "pg-transactional-outbox"
import { createStream, deleteStream, stored, withClient } from "../support/outbox.js"
import { prepare } from "../support/processes.js"
import { interleaved, median, type Bench, type Row } from "../support/row.js"
import { onOutbox } from "./throughput.js"

const keys = 500

/** A message as it is published, as JSON in SQL. */
const messageSql = `jsonb_build_object('eventId', 'e-' || n, 'type', 'tenant.created', 'tenant', 't' || n % ${keys}, 'payload',
  '{"event_id":"e-' || n || '","type":"tenant.created","tenant_id":"t' || n % ${keys} || '","created_at":"2026-01-01T00:00:00.000Z","note":"' || repeat('x', 150) || '"}')`

/** Jobs a second of a library's queue that was filled by `fill`. */
const onQueue = async (
  bench: Bench,
  entry: string,
  options: {
    readonly events: number
    readonly create: (schema: string) => Promise<void>
    readonly fill: (schema: string) => string
  }
): Promise<number> => {
  const { databaseUrl, log, natsUrl } = bench
  const [schema, stream] = [bench.fresh(), bench.fresh()]
  await options.create(schema)
  await createStream(natsUrl, stream)
  const { end, go } = await prepare(entry, {
    databaseUrl,
    natsUrl,
    schema,
    stream,
    options: { events: options.events }
  })
  await withClient(databaseUrl, async (client) => {
    await client.query(options.fill(schema))
    await client.query("VACUUM ANALYZE")
    await client.query("CHECKPOINT")
  })
  const { milliseconds } = await go()
  await end()
  const messages = await stored(natsUrl, stream)
  if (messages !== options.events) throw new Error(`${entry}: ${messages} messages for ${options.events} events`)
  await deleteStream(natsUrl, stream)
  await withClient(databaseUrl, (client) => client.query(`DROP SCHEMA "${schema}" CASCADE`))
  const rate = options.events / (milliseconds / 1_000)
  log(`${entry}: ${Math.round(rate)} events/s`)
  return rate
}

export const competition: Row = {
  name: "competition",
  run: async (bench) => {
    const { databaseUrl, rounds, scale } = bench
    const events = 100_000 / scale
    const jobs = 20_000 / scale
    const few = 4_000 / scale
    const results = await interleaved(rounds, {
      pump: () => onOutbox(bench, "contestants/pump.ts", { events, keys }),
      "the original's algorithm": () => onOutbox(bench, "contestants/original.ts", { events: jobs, keys }),
      "pg-boss": () =>
        onQueue(bench, "contestants/pgBoss.ts", {
          events: jobs,
          create: async (schema) => {
            const boss = new PgBoss({ connectionString: databaseUrl, schema, supervise: false, schedule: false })
            await boss.start()
            await boss.createQueue("events")
            await boss.stop({ graceful: false })
          },
          fill: (schema) =>
            `INSERT INTO "${schema}".job (name, data) SELECT 'events', ${messageSql} FROM generate_series(1, ${jobs}) n`
        }),
      "graphile-worker": () =>
        onQueue(bench, "contestants/graphileWorker.ts", {
          events: jobs,
          create: async (schema) => {
            const utils = await makeWorkerUtils({ connectionString: databaseUrl, schema })
            await utils.migrate()
            await utils.release()
          },
          fill: (schema) =>
            `SELECT count(*) FROM (SELECT "${schema}".add_job('publish', ${messageSql}::json) FROM generate_series(1, ${jobs}) n) jobs`
        }),
      "pg-transactional-outbox": () =>
        onQueue(bench, "contestants/pgTransactionalOutbox.ts", {
          events: few,
          create: async (schema) => {
            const { pathname, username } = new URL(databaseUrl)
            const script = DatabaseSetupExporter.createPollingScript(
              {
                outboxOrInbox: "outbox",
                database: pathname.slice(1),
                schema,
                table: "outbox",
                listenerRole: decodeURIComponent(username),
                nextMessagesSchema: schema,
                nextMessagesName: "next_outbox_messages"
              },
              true
            )
            await withClient(databaseUrl, (client) => client.query(script))
          },
          fill: (schema) => `
            INSERT INTO "${schema}".outbox (id, aggregate_type, aggregate_id, message_type, segment, payload)
              SELECT gen_random_uuid(), 'tenant', n::text, 'tenant.created', 't' || n % ${keys}, ${messageSql}
              FROM generate_series(1, ${few}) n`
        })
    })
    const { pump, ...others } = results
    const best = Object.entries(others).toSorted(([, one], [, other]) => median(other) - median(one))[0]!
    return Object.entries(others).map(([what, samples]) => ({
      row: `the same against ${what}`,
      unit: "events/s",
      ours: pump,
      against: { what, samples },
      ...(what === best[0]
        ? {
            target: {
              text: `${(median(pump) / median(samples)).toFixed(1)} × (≥ 7 × the best)`,
              met: median(pump) >= 7 * median(samples)
            }
          }
        : {})
    }))
  }
}
