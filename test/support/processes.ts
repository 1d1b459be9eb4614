import { build } from "esbuild"
import { spawn, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { Effect } from "effect"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** Bundles a TypeScript program of the tests for plain node, and answers its path. */
export const bundle = (name: string): Effect.Effect<string> =>
  Effect.promise(async () => {
    // Inside the project, so that packages resolve.
    const outfile = `${root}/node_modules/.cache/controlpublish/${name}-${process.pid}.mjs`
    await build({
      entryPoints: [`${root}/test/support/${name}.ts`],
      outfile,
      bundle: true,
      packages: "external",
      platform: "node",
      format: "esm",
      target: "node20"
    })
    return outfile
  })

/** A process that is killed when the scope closes, if it still runs. Answers when it has printed its first line. */
export const run = (program: string, args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "inherit"] })
      await Promise.race([once(child.stdout, "data"), once(child, "exit")])
      return child
    }),
    (child) => kill(child, "SIGKILL")
  )

export const kill = (child: ChildProcess, signal: NodeJS.Signals): Effect.Effect<number | null> =>
  Effect.promise(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode
    const exit = once(child, "exit")
    child.kill(signal)
    await exit
    return child.exitCode
  })
