import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import { rm } from "node:fs/promises"
import type { TestProject } from "vitest/node"
import * as EmbeddedPostgres from "../src/cli/EmbeddedPostgres.js"
import { openDirectory } from "./support/openDirectory.js"
import { buildProgram } from "./support/program.js"

declare module "vitest" {
  export interface ProvidedContext {
    /** A server on which the tests may create databases of their own. */
    readonly databaseUrl: string
    /** The file of the command, for node. */
    readonly program: string
  }
}

/** The server of TEST_DATABASE_URL, or one that is started for this run; and the command, built. */
export default async function setup(project: TestProject) {
  const { program, remove } = await buildProgram()
  project.provide("program", program)
  const given = process.env.TEST_DATABASE_URL
  if (given !== undefined && given !== "") {
    project.provide("databaseUrl", given)
    return remove
  }
  const directory = await openDirectory("controlpublish-test-")
  const scope = await Effect.runPromise(Scope.make())
  const postgres = await Effect.runPromise(EmbeddedPostgres.start({ directory }).pipe(Scope.extend(scope)))
  project.provide("databaseUrl", Redacted.value(postgres.superuserUrl))
  return async () => {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await rm(directory, { recursive: true, force: true })
    await remove()
  }
}
