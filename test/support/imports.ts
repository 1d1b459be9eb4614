import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"
import ts from "typescript"

/** One module of a tree, named by its path from the tree's root. */
export interface Module {
  readonly lines: number
  /** The modules of the tree that it imports, type imports included. */
  readonly imports: ReadonlyArray<string>
  /** What it imports from outside the tree: packages and Node's own modules. */
  readonly packages: ReadonlyArray<string>
}

export type Modules = ReadonlyMap<string, Module>

/** Everything that a module names as another: imports, re-exports and `import()`, types included. */
const specifiersOf = (file: string, text: string): ReadonlyArray<string> => {
  const found: Array<string> = []
  const visit = (node: ts.Node): void => {
    if ((ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier !== undefined) {
      if (ts.isStringLiteral(node.moduleSpecifier)) found.push(node.moduleSpecifier.text)
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      if (ts.isStringLiteral(node.argument.literal)) found.push(node.argument.literal.text)
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [argument] = node.arguments
      if (argument !== undefined && ts.isStringLiteralLike(argument)) found.push(argument.text)
    }
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile(file, text, ts.ScriptTarget.Latest, false))
  return found
}

/** Reads every TypeScript module below a directory. Dies if one imports a module that is not there. */
export const readModules = (root: string): Modules => {
  const names = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((name) => /\.tsx?$/.test(name))
  const known = new Set(names)
  return new Map(
    names.sort().map((name) => {
      const text = readFileSync(join(root, name), "utf8")
      const imports = new Set<string>()
      const packages = new Set<string>()
      for (const specifier of specifiersOf(name, text)) {
        if (!specifier.startsWith(".")) {
          packages.add(specifier)
          continue
        }
        const target = relative(root, resolve(root, dirname(name), specifier))
        const candidates = [target, target.replace(/\.js$/, ".ts"), target.replace(/\.jsx?$/, ".tsx"), `${target}.ts`]
        const module = candidates.find((candidate) => known.has(candidate))
        if (module !== undefined) imports.add(module)
        else if (!/\.(css|json|svg|html)$/.test(target)) throw new Error(`${name} imports ${specifier}: no such module`)
      }
      return [name, { lines: text.split("\n").length - 1, imports: [...imports], packages: [...packages] }]
    })
  )
}

/** The room of a module: its directory below the root, `core` for the root itself and what is internal to it. */
export const roomOf = (module: string): string => {
  const [first = "", ...rest] = module.split("/")
  return rest.length === 0 || first === "internal" ? "core" : first
}

/** Which rooms, and which packages, a room may import. */
export interface Room {
  readonly rooms: ReadonlyArray<string>
  readonly packages?: RegExp
}

/** Imports that leave a room for one that it may not know, or for a package that it may not use. */
export const forbiddenImports = (modules: Modules, rooms: Readonly<Record<string, Room>>): ReadonlyArray<string> =>
  Array.from(modules).flatMap(([name, { imports, packages }]) => {
    const from = roomOf(name)
    const room = rooms[from]
    if (room === undefined) return [`${name} is in a room that no rule names: ${from}`]
    return [
      ...imports
        .filter((target) => roomOf(target) !== from && !room.rooms.includes(roomOf(target)))
        .map((target) => `${name} -> ${target}`),
      ...packages.filter((name) => room.packages?.test(name) === false).map((target) => `${name} -> ${target}`)
    ]
  })

/** One shortest circle for each group of modules that import each other, as `a -> b -> a`. */
export const circles = (modules: Modules): ReadonlyArray<string> => {
  const importsOf = (name: string) => modules.get(name)?.imports ?? []
  /** The shortest way back to where it began. */
  const circleFrom = (start: string): ReadonlyArray<string> | undefined => {
    const cameFrom = new Map<string, string>()
    const next = [start]
    for (let name = next.shift(); name !== undefined; name = next.shift()) {
      for (const target of importsOf(name)) {
        if (target === start) {
          const path = [name, start]
          while (path[0] !== start) path.unshift(cameFrom.get(path[0]!)!)
          return path
        }
        if (!cameFrom.has(target)) {
          cameFrom.set(target, name)
          next.push(target)
        }
      }
    }
    return undefined
  }
  const found: Array<string> = []
  const seen = new Set<string>()
  for (const name of modules.keys()) {
    if (seen.has(name)) continue
    const circle = circleFrom(name)
    if (circle === undefined) continue
    for (const member of circle) seen.add(member)
    found.push(circle.join(" -> "))
  }
  return found
}

/** Modules that have more lines than `most`. */
export const tooLong = (modules: Modules, most: number): ReadonlyArray<string> =>
  Array.from(modules).flatMap(([name, { lines }]) => (lines > most ? [`${name} has ${lines} lines`] : []))
