import { configDefaults, defineConfig, type TestProjectInlineConfiguration } from "vitest/config"

const src = new URL("../src/", import.meta.url).pathname

/**
 * Tests that need a process to themselves: they change or measure what a process has one of (its environment, signals,
 * handlers, memory, the registry of metrics, a mocked module of Node.js), or start programs for most of their time.
 */
const alone = [
  "test/PumpMetrics.test.ts",
  "test/admin/{Access,AdminServer,Dashboard,Prometheus}.test.ts",
  "test/cli/{Apply,Cli,EmbeddedPostgres,Help,Operating,Rights,RowsArtifact,Serve*,Tail,Telemetry}.test.ts",
  "test/demo/Demo.test.ts",
  "test/faults/Faults.test.ts",
  "test/file/{FileSink,FileSource,PowerLoss,SharedDirectory}.test.ts",
  "test/fleet/{Applier,Crash}.test.ts",
  "test/jetstream/{JetStreamSink,Replicas,Versions}.test.ts",
  "test/package/Package.test.ts",
  "test/postgres/{Crash,LargeRows,Session,Transactions}.test.ts"
]

const project = (test: TestProjectInlineConfiguration["test"]): TestProjectInlineConfiguration => ({
  resolve: {
    alias: [
      { find: /^controlpublish$/, replacement: `${src}index.ts` },
      { find: /^controlpublish\/(\w+)$/, replacement: `${src}$1/index.ts` }
    ]
  },
  test: {
    // Guards against tests that hang; waits within tests have deadlines of their own.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    ...test
  }
})

export default defineConfig({
  test: {
    globalSetup: ["test/globalSetup.ts"],
    reporters: ["default", "./test/support/closingLine.ts"],
    // Suites start real servers and processes on a machine that may be small: two processes, and a thread beside them.
    maxWorkers: 2,
    minWorkers: 1,
    poolOptions: { threads: { isolate: false, minThreads: 1, maxThreads: 1 } },
    projects: [
      // The packages are loaded once for all files; the modules of src and test are each file's own nevertheless.
      project({
        name: "shared",
        pool: "threads",
        isolate: false,
        setupFiles: ["test/support/sharedThread.ts"],
        include: ["test/**/*.test.ts"],
        exclude: [...configDefaults.exclude, ...alone]
      }),
      project({ name: "alone", pool: "forks", include: alone })
    ]
  }
})
