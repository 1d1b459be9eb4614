/**
 * Registers the running services of a directory. Each has a file named after its process, which counts only while that
 * process runs.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { directory } from "./database.js"
import * as Processes from "./processes.js"

/** What a service tells the commands of its directory. */
const Service = Schema.Struct({
  pid: Schema.Number,
  /** Distinguishes the process from a later one with its pid. */
  birth: Schema.String,
  /** The URL of its admin API. */
  url: Schema.String,
  /** The database that it publishes from, without a password. */
  database: Schema.String,
  schema: Schema.String
})

export type Service = typeof Service.Type

const decode = Schema.decodeUnknownOption(Schema.parseJson(Service))

const place = Path.join(directory, "services")

/** Only what the service created is removed: the directory may hold a database. */
const removeEmpty = async () => {
  for (const each of [place, directory]) await Fs.rmdir(each).catch(() => {})
}

/** Registers this process's API until the scope closes. A directory that is not writable is logged and skipped. */
export const announce = (service: Omit<Service, "pid" | "birth">): Effect.Effect<void, never, Scope.Scope> => {
  const file = Path.resolve(place, `${process.pid}.json`)
  return Effect.acquireRelease(
    Effect.tryPromise(async () => {
      const birth = await Processes.birthOf(process.pid)
      await Fs.mkdir(place, { recursive: true })
      const text = JSON.stringify({ pid: process.pid, birth: birth ?? "", ...service }, null, 2)
      // Complete as soon as it is visible: a reader takes a partial file for a stale one.
      await Fs.writeFile(`${file}.new`, `${text}\n`, { mode: 0o600 })
      await Fs.rename(`${file}.new`, file)
    }),
    () =>
      Effect.promise(async () => {
        await Fs.rm(file, { force: true }).catch(() => {})
        await removeEmpty()
      })
  ).pipe(Effect.catchAll(({ error }) => Effect.logInfo("Commands in this directory need ADMIN_URL", error)))
}

/** The running services of the directory. Removes the files of others. */
export const running: Effect.Effect<ReadonlyArray<Service>> = Effect.promise(async () => {
  const found: Array<Service> = []
  for (const name of await Fs.readdir(place).catch(() => [])) {
    const file = Path.join(place, name)
    const service = decode(await Fs.readFile(file, "utf8").catch(() => ""))
    if (!name.endsWith(".json") || service._tag === "None") continue
    if (await Processes.isBorn(service.value.pid, service.value.birth)) found.push(service.value)
    else await Fs.rm(file, { force: true }).catch(() => {})
  }
  return found.sort((one, other) => one.pid - other.pid)
})
