import { defineConfig } from "vitest/config"

const src = new URL("../src/", import.meta.url).pathname

export default defineConfig({
  resolve: {
    alias: [
      { find: /^controlpublish$/, replacement: `${src}index.ts` },
      { find: /^controlpublish\/(\w+)$/, replacement: `${src}$1/index.ts` }
    ]
  },
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/globalSetup.ts"],
    reporters: ["default", "./test/support/closingLine.ts"],
    // Guards against tests that hang; waits within tests have deadlines of their own.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    // Suites start real servers and processes on a machine that may be small.
    maxWorkers: 3,
    minWorkers: 1
  }
})
