import { PrismaPg } from "@prisma/adapter-pg"
import * as Runtime from "@prisma/client/runtime/client"

const compiler = "@prisma/client/runtime/query_compiler_fast_bg.postgresql"

/** Imports a module that has no declarations. */
const imported = (name: string) => import(name) as Promise<never>

declare const WebAssembly: { readonly Module: new (bytes: Uint8Array) => object }

/**
 * What `prisma generate` of 7.10.0 makes, for a schema without models. The generator itself downloads a program that only
 * migrations use.
 */
const config: Runtime.GetPrismaClientConfig = {
  previewFeatures: [],
  clientVersion: "7.10.0",
  engineVersion: "0edf323efd1d98336f3f0a68684b56f689b900d3",
  activeProvider: "postgresql",
  inlineSchema: 'datasource db {\n  provider = "postgresql"\n}\n',
  runtimeDataModel: { models: {}, enums: {}, types: {} },
  parameterizationSchema: { strings: [], graph: "AAAA" },
  compilerWasm: {
    getRuntime: () => imported(`${compiler}.mjs`),
    getQueryCompilerWasmModule: async () => {
      const { wasm } = (await imported(`${compiler}.wasm-base64.mjs`)) as { readonly wasm: string }
      return new WebAssembly.Module(Buffer.from(wasm, "base64"))
    },
    importName: "./query_compiler_fast_bg.js"
  }
}

interface Transaction {
  readonly $queryRawUnsafe: (text: string, ...values: Array<unknown>) => Promise<unknown>
  readonly $executeRawUnsafe: (text: string, ...values: Array<unknown>) => Promise<number>
}

/** The methods of a generated client that need no model. */
export interface PrismaClient extends Transaction {
  readonly $transaction: <A>(run: (tx: Transaction) => Promise<A>) => Promise<A>
  readonly $disconnect: () => Promise<void>
}

export const makePrisma = (connectionString: string): PrismaClient => {
  const Client = Runtime.getPrismaClient(config) as unknown as new (options: object) => PrismaClient
  return new Client({
    adapter: new PrismaPg({ connectionString }),
    transactionOptions: { maxWait: 60_000, timeout: 60_000 }
  })
}
