import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/globalSetup.ts"],
    testTimeout: 30_000,
    hookTimeout: 120_000,
    // Suites start real servers and processes on a machine that may be small.
    maxWorkers: 4,
    minWorkers: 1
  }
})
