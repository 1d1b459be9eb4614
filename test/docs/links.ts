import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join, normalize } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../../", import.meta.url))

export const exists = (path: string) => existsSync(join(root, path))

/** Every page that a reader gets: the README and all Markdown below docs. */
export const pages: ReadonlyArray<string> = [
  "README.md",
  ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".md"))
    .map((path) => `docs/${path}`)
    .sort()
]

export const textOf = (page: string): string => readFileSync(join(root, page), "utf8")

/** A page without its code blocks, in which `[a](b)` is no link and `#` no heading. */
export const proseOf = (page: string): string => textOf(page).replace(/^( *)```.*?^\1```$/gms, "")

/** The anchors that GitHub gives to the headings of a page. */
export const anchorsOf = (page: string): ReadonlySet<string> => {
  const anchors = new Set<string>()
  for (const [, title = ""] of proseOf(page).matchAll(/^#+ (.+)$/gm)) {
    const slug = title
      .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_ -]/gu, "")
      .replace(/ /g, "-")
    let anchor = slug
    for (let n = 1; anchors.has(anchor); n++) anchor = `${slug}-${n}`
    anchors.add(anchor)
  }
  return anchors
}

export interface Link {
  readonly page: string
  readonly target: string
  readonly file: string
  readonly anchor: string | undefined
}

/** The links of a page that lead to files of this repository. */
export const linksOf = (page: string): ReadonlyArray<Link> =>
  Array.from(proseOf(page).matchAll(/\]\(([^)\s]+)\)/g), ([, target = ""]) => target)
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => {
      const [path = "", anchor] = target.split("#")
      return { page, target, anchor, file: path === "" ? page : normalize(join(dirname(page), path)) }
    })

/** What is wrong with a link, if anything. */
export const broken = ({ anchor, file, page, target }: Link): string | undefined => {
  if (!exists(file)) return `${page}: ${target} does not exist`
  if (anchor !== undefined && !(file.endsWith(".md") && anchorsOf(file).has(anchor))) {
    return `${page}: ${target} names no heading of ${file}`
  }
  return undefined
}

/** Paths of the source tree in backticks, such as `test/Pump.test.ts`; those of examples have a `*` or `…`. */
export const pathsOf = (page: string): ReadonlyArray<string> =>
  Array.from(textOf(page).matchAll(/`((?:src|test|docs|\.ci)\/[\w./-]*\w)`/g), ([, path = ""]) => path)
