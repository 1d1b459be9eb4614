import { execFile } from "node:child_process"
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

export const root = fileURLToPath(new URL("../..", import.meta.url))

export interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end, whatever its exit code is. */
export const run = (cwd: string, file: string, args: ReadonlyArray<string>, env: NodeJS.ProcessEnv = {}) =>
  new Promise<Ended>((resolve) => {
    const options = { cwd, env: { ...process.env, NODE_OPTIONS: "", ...env }, maxBuffer: 64 * 1024 * 1024 }
    execFile(file, args, options, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : 1
      resolve({ code, stdout, stderr })
    })
  })

export const tool = (name: string) => join(root, "node_modules", ".bin", name)

/** Runs a program that has to succeed. */
const must = async (cwd: string, file: string, args: ReadonlyArray<string>): Promise<string> => {
  const { code, stderr, stdout } = await run(cwd, file, args)
  if (code !== 0) throw new Error(`${file} ${args.join(" ")} ended with code ${code}:\n${stdout}\n${stderr}`)
  return stdout
}

/** The packed files of both packages. */
export interface Packed {
  readonly library: string
  readonly cli: string
}

/** Builds and packs a copy: whoever runs the build of this checkout meanwhile keeps its files. */
const pack = async (directory: string): Promise<Packed> => {
  const copy = join(directory, "checkout")
  await mkdir(copy)
  for (const name of ["LICENSE", "README.md", "package.json", "tsconfig.json", "src", "docs"]) {
    await cp(join(root, name), join(copy, name), {
      recursive: true,
      filter: (path) => !path.includes(join("src", "cli", "dist"))
    })
  }
  await symlink(join(root, "node_modules"), join(copy, "node_modules"))
  await must(copy, "npm", ["run", "--silent", "build"])
  await must(copy, "npm", ["pack", "--silent", "--pack-destination", directory])
  await must(join(copy, "src", "cli"), "npm", [
    "pack",
    "--silent",
    "--workspaces=false",
    "--pack-destination",
    directory
  ])
  const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { readonly version: string }
  return {
    library: join(directory, `controlpublish-${version}.tgz`),
    cli: join(directory, `controlpublish-cli-${version}.tgz`)
  }
}

export interface Project {
  readonly packed: Packed
  readonly directory: string
  /** Installs more packages, in the versions of this checkout's lock file, or from files. */
  readonly install: (...packages: ReadonlyArray<string>) => Promise<void>
  readonly remove: () => Promise<void>
}

/** npm could not reach its registry. */
export class Unreachable extends Error {}

/** Packs this checkout, and makes an empty project beside the packed files. */
export const open = async (): Promise<Project> => {
  const base = await mkdtemp(join(tmpdir(), "controlpublish-package-"))
  const packed = await pack(base)
  const directory = join(base, "project")
  await mkdir(directory)
  await writeFile(join(directory, "package.json"), `{ "name": "empty", "private": true, "type": "module" }`)
  const lock = JSON.parse(await readFile(join(root, "package-lock.json"), "utf8")) as {
    readonly packages: Readonly<Record<string, { readonly version: string }>>
  }
  return {
    packed,
    directory,
    install: async (...packages) => {
      const names = packages.map((name) =>
        name.endsWith(".tgz") ? name : `${name}@${lock.packages[`node_modules/${name}`]!.version}`
      )
      const options = ["--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
      const { code, stderr } = await run(directory, "npm", ["install", ...options, ...names])
      if (code === 0) return
      const text = `npm install ${names.join(" ")} ended with code ${code}: ${stderr}`
      throw /ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED|ECONNRESET|ENOTCACHED|network/.test(stderr)
        ? new Unreachable(text)
        : new Error(text)
    },
    remove: () => rm(base, { recursive: true, force: true })
  }
}
