import { Effect, type Scope } from "effect"
import { spawn, spawnSync, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { readdirSync } from "node:fs"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { createConnection, createServer, type AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A program that is a nats-server, and its version. */
export interface Program {
  readonly command: string
  readonly version: string
}

const programAt = (command: string): ReadonlyArray<Program> => {
  const { status, stdout } = spawnSync(command, ["--version"], { encoding: "utf8" })
  const version = status === 0 ? /\d+\.\d+\.\d+/.exec(stdout)?.[0] : undefined
  return version === undefined ? [] : [{ command, version }]
}

const compare = (one: string, other: string): number => {
  const [left, right] = [one, other].map((version) => version.split(".").map(Number))
  const differs = left!.findIndex((number, index) => number !== right![index])
  return differs < 0 ? 0 : left![differs]! - right![differs]!
}

/** Where `.ci/nats-servers` has put newer ones. */
const fetched = process.env.TEST_NATS_SERVERS ?? join(process.cwd(), "../controlpublish-nats-servers")

const suitesIn = (directory: string): ReadonlyArray<string> => {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}

/** Those of this machine, the oldest first: that of the PATH, and those that were fetched. */
export const programs: ReadonlyArray<Program> = [
  "nats-server",
  ...suitesIn(fetched).map((suite) => join(fetched, suite, "nats-server"))
]
  .flatMap(programAt)
  .sort((one, other) => compare(one.version, other.version))

/** The newest one, if it is at least of a version. */
export const programOf = (least: string): Program | undefined =>
  programs.at(-1) !== undefined && compare(programs.at(-1)!.version, least) >= 0 ? programs.at(-1) : undefined

/** What is started where nothing else is asked for: that of the PATH, or another one that is told. */
export const standard = process.env.TEST_NATS_SERVER ?? "nats-server"

/** Whether there is a `nats-server` on the PATH. */
export const isInstalled = programAt(standard).length > 0

export const howToInstall =
  "nats-server is not on the PATH: apt-get install nats-server, brew install nats-server, or a binary from https://github.com/nats-io/nats-server/releases"

/** From this version on, servers have atomic batches that the sink can use. */
export const leastForBatches = "2.12.1"

export const howToFetch =
  "On Debian, fetch newer ones with .ci/nats-servers DIRECTORY, and name the directory in TEST_NATS_SERVERS"

/** Whether the suites can run that need something. In CI they have to; elsewhere it is said once that they do not. */
const judge = (isThere: boolean, what: string, how: string): boolean => {
  if (!isThere && (process.env.CI ?? "") !== "") throw new Error(how)
  if (!isThere) console.warn(`SKIPPED: ${what}. ${how}`)
  return isThere
}

/** Whether the suites that need a broker can run. */
export const available = (): boolean => judge(isInstalled, "the tests against JetStream", howToInstall)

/** Whether the suites that need a broker of at least a version can run. */
export const availableFrom = (least: string): boolean =>
  judge(
    programOf(least) !== undefined,
    `the tests against nats-server ${least} and newer`,
    `There is no nats-server ${least} or newer. ${howToFetch}`
  )

export const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}

const accepts = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = createConnection(port, "127.0.0.1")
    socket.once("data", () => {
      resolve(true)
      socket.destroy()
    })
    socket.once("error", () => resolve(false))
    socket.once("close", () => resolve(false))
  })

export interface NatsServer {
  readonly port: number
  readonly url: string
  /** Its directory: the store, the configuration, and room for more. */
  readonly directory: string
  readonly pid: () => number | undefined
  /** Ends the server, and answers when it is gone. The store stays. */
  readonly kill: (signal?: NodeJS.Signals) => Promise<void>
  /** Starts it again, on the same port and store. */
  readonly start: () => Promise<void>
}

/** A server with JetStream, its port and its store its own. `close` removes both. */
export const startNats = async (
  options: {
    /** Lines of a configuration file, on top of port, store and JetStream. */
    readonly config?: (directory: string) => string
    /** Whether it has JetStream. Default yes. */
    readonly jetStream?: boolean
    /** The program. Default: that of the PATH, or of TEST_NATS_SERVER. */
    readonly command?: string | undefined
  } = {}
): Promise<NatsServer & { readonly close: () => Promise<void> }> => {
  const directory = await mkdtemp(join(tmpdir(), "controlpublish-nats-"))
  const port = await freePort()
  const config = join(directory, "nats.conf")
  const jetStream = options.jetStream === false ? "" : `jetstream { store_dir: "${join(directory, "store")}" }\n`
  await writeFile(config, `listen: "127.0.0.1:${port}"\n${jetStream}${options.config?.(directory) ?? ""}\n`)
  let child: ChildProcess | undefined
  const kill = async (signal: NodeJS.Signals = "SIGKILL") => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, "exit")
    child.kill(signal)
    await exit
  }
  const start = async () => {
    const log: Array<string> = []
    child = spawn(options.command ?? standard, ["-c", config], { stdio: ["ignore", "ignore", "pipe"] })
    child.stderr!.on("data", (data: Buffer) => log.push(data.toString()))
    const deadline = Date.now() + 20_000
    while (!(await accepts(port))) {
      if (child.exitCode !== null || Date.now() > deadline)
        throw new Error(`nats-server did not start:\n${log.join("")}`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    child.stderr!.removeAllListeners("data").resume()
  }
  await start()
  return {
    port,
    url: `nats://127.0.0.1:${port}`,
    directory,
    pid: () => child?.pid,
    kill,
    start,
    close: async () => {
      await kill()
      await rm(directory, { recursive: true, force: true })
    }
  }
}

/** A server that lives as long as the scope. */
export const nats = (options?: Parameters<typeof startNats>[0]): Effect.Effect<NatsServer, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => startNats(options)),
    (server) => Effect.promise(() => server.close())
  )
