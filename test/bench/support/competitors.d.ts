// As much of the competitors as is used: their packages are installed by `npm run bench` alone, and everything here is
// checked without them.
declare module "graphile-worker" {
  import type { Pool } from "pg"

  export class Logger {
    constructor(factory: () => (level: string, message: string) => void)
  }

  interface WorkerOptions {
    readonly concurrentJobs: number
    readonly schema: string
    readonly localQueue: { readonly size: number }
    readonly completeJobBatchDelay: number
    readonly failJobBatchDelay: number
  }

  export const runOnce: (options: {
    readonly pgPool: Pool
    readonly schema: string
    readonly noHandleSignals: boolean
    readonly logger: Logger
    readonly preset: { readonly worker: WorkerOptions }
    readonly taskList: Readonly<Record<string, (payload: unknown) => Promise<void>>>
  }) => Promise<void>

  export const makeWorkerUtils: (options: {
    readonly connectionString: string
    readonly schema: string
  }) => Promise<{ readonly migrate: () => Promise<void>; readonly release: () => Promise<void> }>
}

declare module "pg-boss" {
  export default class PgBoss {
    constructor(options: {
      readonly connectionString: string
      readonly schema: string
      readonly max?: number
      readonly supervise: boolean
      readonly schedule: boolean
    })
    start(): Promise<unknown>
    stop(options: { readonly graceful: boolean }): Promise<void>
    createQueue(name: string): Promise<void>
    fetch(
      name: string,
      options: { readonly batchSize: number }
    ): Promise<ReadonlyArray<{ readonly id: string; readonly data: unknown }>>
    complete(name: string, ids: ReadonlyArray<string>): Promise<unknown>
  }
}

declare module "pg-transactional-outbox" {
  import type { PoolConfig } from "pg"

  export interface Logger {
    readonly level: string
  }

  export const getDisabledLogger: () => Logger

  export const DatabaseSetupExporter: {
    readonly createPollingScript: (
      config: {
        readonly outboxOrInbox: "outbox"
        readonly database: string
        readonly schema: string
        readonly table: string
        readonly listenerRole: string
        readonly nextMessagesSchema: string
        readonly nextMessagesName: string
      },
      skipRoles: boolean
    ) => string
  }

  export const initializePollingMessageListener: (
    config: {
      readonly outboxOrInbox: "outbox"
      readonly dbListenerConfig: PoolConfig
      readonly settings: {
        readonly dbSchema: string
        readonly dbTable: string
        readonly nextMessagesFunctionSchema: string
        readonly nextMessagesFunctionName: string
        readonly nextMessagesBatchSize: number
        readonly nextMessagesPollingIntervalInMs: number
        readonly enableMaxAttemptsProtection: boolean
        readonly enablePoisonousMessageProtection: boolean
      }
    },
    handler: { readonly handle: (message: { readonly payload: unknown }) => Promise<void> },
    logger: Logger,
    strategies: { readonly batchSizeStrategy: (handling: number) => Promise<number> }
  ) => readonly [shutdown: () => Promise<void>]
}
