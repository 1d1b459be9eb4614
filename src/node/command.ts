#!/usr/bin/env node
/**
 * The command `controlpublish`, for those who installed the library: it runs the package controlpublish-cli, which has the
 * program and what only that needs.
 *
 * @since 0.1.0
 */
import { createRequire } from "node:module"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

/** Where the program is: beside this package, or in the project in whose directory the command is run. */
const locate = (): string | undefined => {
  for (const from of [import.meta.url, join(process.cwd(), "package.json")]) {
    try {
      return createRequire(from).resolve("controlpublish-cli")
    } catch {
      // It is not there.
    }
  }
  return undefined
}

const program = locate()
if (program === undefined) {
  process.stderr.write("The command is a package of its own, which is not installed: npm install controlpublish-cli\n")
  process.exitCode = 1
} else {
  await import(pathToFileURL(program).href)
}
