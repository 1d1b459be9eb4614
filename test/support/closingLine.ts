import type { Reporter, TestModule } from "vitest/node"

/** Ends the output with one line that counts the tests. */
export default class ClosingLine implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>) {
    const counts = { passed: 0, failed: 0, skipped: 0, pending: 0 }
    for (const module of modules) {
      for (const test of module.children.allTests()) counts[test.result().state]++
      if (module.errors().length > 0) counts.failed++
    }
    // After the other reporters.
    process.once("exit", () => {
      process.stdout.write(
        `\n${counts.passed} passed, ${counts.failed + counts.pending} failed, ${counts.skipped} skipped\n`
      )
    })
  }
}
