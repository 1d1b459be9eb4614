/*
 * Types, and the diagnostics of @effect/language-service, by one reading and checking of the program: `tsc` from a copy
 * of the compiler that the language service has patched. The installed compiler stays as it came.
 */
import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { cp, mkdir, mkdtemp, readFile, rename, rm } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))
const modules = join(root, "node_modules")
const cache = join(modules, ".cache", "controlpublish")

const version = async (name) => JSON.parse(await readFile(join(modules, name, "package.json"), "utf8")).version

/** Runs a program of Node.js, and answers its exit code. */
const node = (args, options) => spawnSync(process.execPath, args, { cwd: root, stdio: "inherit", ...options }).status

const compiler = join(
  cache,
  `typescript-${await version("typescript")}-effect-${await version("@effect/language-service")}`
)

if (!existsSync(compiler)) {
  await mkdir(cache, { recursive: true })
  const copy = await mkdtemp(`${compiler}-`)
  await cp(join(modules, "typescript"), copy, { recursive: true })
  const patch = ["patch", "--dir", copy, "--module", "tsc", "--log-level", "warn"]
  if (node([join(modules, "@effect/language-service/cli.js"), ...patch]) !== 0) {
    await rm(copy, { recursive: true, force: true })
    throw new Error("@effect/language-service could not patch a copy of typescript")
  }
  // Whole or not at all, also for a second run beside this one.
  await rename(copy, compiler).catch(async (error) => {
    await rm(copy, { recursive: true, force: true })
    if (!existsSync(compiler)) throw error
  })
}

process.exitCode = node([join(compiler, "lib", "tsc.js"), ...process.argv.slice(2)]) ?? 1
