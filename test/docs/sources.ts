import { readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import ts from "typescript"

const root = fileURLToPath(new URL("../../", import.meta.url))

export interface Source {
  /** Its path below the root of the project. */
  readonly path: string
  readonly text: string
}

/** The modules of `src`, without the dashboard's own. */
export const sources: ReadonlyArray<Source> = readdirSync(`${root}src`, { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts") && !path.startsWith("admin/dashboard/"))
  .sort()
  .map((path) => ({ path: `src/${path}`, text: readFileSync(`${root}src/${path}`, "utf8") }))

const missingIn = (doc: ts.JSDoc | undefined): ReadonlyArray<string> => {
  if (doc === undefined) return ["doc comment"]
  const text = ts.getTextOfJSDocComment(doc.comment) ?? ""
  const tags = new Set(doc.tags?.map(({ tagName }) => tagName.text))
  return [
    ...(/^[\p{Lu}`][^]*?\.(\s|$)/u.test(text) ? [] : ["first sentence"]),
    ...["since", "category"].filter((tag) => !tags.has(tag)).map((tag) => `@${tag}`)
  ]
}

const nameOf = (statement: ts.Statement): string =>
  ts.isVariableStatement(statement)
    ? statement.declarationList.declarations.map(({ name }) => name.getText()).join(", ")
    : ((statement as ts.DeclarationStatement).name?.getText() ?? "default")

/** What the doc comments of a module's exports lack, one line an export. */
export const undocumented = ({ path, text }: Source): ReadonlyArray<string> =>
  ts
    .createSourceFile(path, text, ts.ScriptTarget.ES2022, true)
    .statements.filter(
      (statement) =>
        ts.canHaveModifiers(statement) &&
        ts.getModifiers(statement)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)
    )
    .flatMap((statement) => {
      const missing = missingIn(ts.getJSDocCommentsAndTags(statement).filter(ts.isJSDoc).at(-1))
      return missing.length === 0 ? [] : [`${path}: ${nameOf(statement)} lacks ${missing.join(", ")}`]
    })

const examplesIn = (text: string): ReadonlyArray<string> =>
  Array.from(text.matchAll(/^ \* @example\n((?: \*(?! @since).*\n)+)/gm), ([, lines = ""]) =>
    lines.replace(/^ \* ?/gm, "").replace(/^```(ts)?$/gm, "")
  )

/** The TypeScript of doc comments, one module an example, beside the module that it documents. */
export const docExamples: ReadonlyArray<Source> = sources.flatMap(({ path, text }) =>
  examplesIn(text).map((text, index) => ({ path: path.replace(/\.ts$/, `.example${index + 1}.ts`), text }))
)

/** The TypeScript blocks of a page, one module a block, in the directory of the examples that they may import. */
export const pageExamples = (page: string, text: string): ReadonlyArray<Source> =>
  Array.from(text.matchAll(/^( *)```(?:ts|typescript)\n([^]*?)^\1```$/gm), ([, , text = ""], index) => ({
    path: `test/examples/${page.replaceAll(/\W/g, "-")}.block${index + 1}.ts`,
    text
  }))

/** Compiles examples together, without writing them, and returns their errors. */
export const compile = (examples: ReadonlyArray<Source>): ReadonlyArray<string> => {
  const { config } = ts.readConfigFile(`${root}tsconfig.json`, (path) => ts.sys.readFile(path)) as { config: object }
  const { options } = ts.parseJsonConfigFileContent({ ...config, files: [] }, ts.sys, root)
  const texts = new Map(examples.map(({ path, text }) => [root + path, text]))
  // What an example declares is there to be seen, not to be used.
  const settings: ts.CompilerOptions = { ...options, noUnusedLocals: false }
  const disk = ts.createCompilerHost(settings)
  const host: ts.CompilerHost = {
    ...disk,
    fileExists: (path) => texts.has(path) || disk.fileExists(path),
    readFile: (path) => texts.get(path) ?? disk.readFile(path),
    getSourceFile: (path, version, ...rest) => {
      const text = texts.get(path)
      return text === undefined
        ? disk.getSourceFile(path, version, ...rest)
        : ts.createSourceFile(path, text, version, true)
    }
  }
  const program = ts.createProgram({ rootNames: Array.from(texts.keys()), options: settings, host })
  return Array.from(texts.keys()).flatMap((path) => {
    const file = program.getSourceFile(path)!
    return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)].map((diagnostic) => {
      const { line } = file.getLineAndCharacterOfPosition(diagnostic.start ?? 0)
      const message = ts.flattenDiagnosticMessageText(diagnostic.messageText, " ")
      return `${path.slice(root.length)}:${line + 1} ${message}`
    })
  })
}
