import tseslint from "typescript-eslint"

const inward = (files, outside) => ({
  files,
  rules: {
    "no-restricted-imports": [
      "error",
      {
        patterns: outside.map((regex) => ({ regex, message: "Arrows point inward: see docs/architecture.md." }))
      }
    ]
  }
})

export default tseslint.config(
  { ignores: ["dist/**", "**/*.js", "**/*.mjs"] },
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        project: ["./tsconfig.json", "./src/admin/dashboard/tsconfig.json"],
        tsconfigRootDir: new URL("..", import.meta.url).pathname
      }
    },
    rules: {
      // Template literals hold numbers, and Effect's constructors are called in expression position.
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      // An index that was checked is as good as an element to the reader, not to the compiler.
      "@typescript-eslint/no-non-null-assertion": "off",
      // Yieldable errors are thrown by `yield*`, not by `throw`, and a tag class has no members.
      "@typescript-eslint/no-extraneous-class": "off",
      // Effects of void are named in type arguments: Deferred.make<void>().
      "@typescript-eslint/no-invalid-void-type": "off",
      "@typescript-eslint/consistent-type-imports": "error"
    }
  },
  {
    files: ["test/**"],
    // Errors are iterable because they can be yielded; tests spread them to compare their fields.
    rules: { "@typescript-eslint/no-misused-spread": "off" }
  },
  inward(
    ["src/*.ts", "src/internal/**"],
    [
      "^\\.{1,2}/(postgres|sqlite|file|jetstream|fleet|admin|cli|testing|node)/",
      "^@effect/(sql|sql-pg|platform|platform-node|cli)",
      "^pg$",
      "^node:"
    ]
  ),
  inward(
    ["src/fleet/**"],
    [
      "/(postgres|sqlite|file|jetstream|admin|cli|testing|node)/",
      "^@effect/(sql|sql-pg|platform|platform-node|cli)",
      "^pg$"
    ]
  ),
  inward(["src/promise/**"], ["/(sqlite|file|jetstream|fleet|admin|cli|testing|node)/", "^@effect/", "^pg$"]),
  inward(["src/node/**"], ["/(postgres|sqlite|file|jetstream|fleet|admin|cli|testing)/", "^@effect/", "^pg$"]),
  inward(["src/postgres/**"], ["/(sqlite|file|jetstream|admin|cli|testing)/"]),
  inward(["src/sqlite/**"], ["/(postgres|file|jetstream|admin|cli|testing|node)/"]),
  inward(["src/file/**"], ["/(postgres|sqlite|jetstream|admin|cli|testing)/"]),
  inward(["src/jetstream/**"], ["/(postgres|sqlite|file|admin|cli|testing)/"]),
  inward(["src/admin/**"], ["/(postgres|sqlite|file|jetstream|cli|testing)/"]),
  // Of the fleet the ports alone, and what registries in memory share.
  inward(
    ["src/testing/**"],
    [
      "/(postgres|sqlite|file|jetstream|admin|cli)/",
      "/fleet/(?!(AppliedEvents|Source|NodeRegistry|NodeReports|internal/knownNodes)\\.js$)"
    ]
  )
)
