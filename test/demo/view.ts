import { styleText } from "node:util"

export interface View {
  readonly feed: { readonly name: string; readonly isUp: boolean }
  readonly pump: { readonly isUp: boolean }
  /** Of the outbox: all events, those that are published, and the newest version. */
  readonly changes: number
  readonly published: number
  readonly newest: number
  readonly nodes: ReadonlyArray<{ readonly name: string; readonly isUp: boolean; readonly position: number }>
  /** What was done last. */
  readonly said: ReadonlyArray<string>
}

const up = (is: boolean) => (is ? styleText("green", "up  ") : styleText("red", "down"))

const behind = (count: number) =>
  count === 0 ? styleText("green", "up to date") : styleText("yellow", `${count} versions behind`)

/** For a terminal. */
export const screen = ({ changes, feed, newest, nodes, published, pump, said }: View): string =>
  [
    styleText("bold", "An admin service and its fleet"),
    "",
    `  admin    ${up(true)}  ${changes} changes, ${changes - published} pending in the outbox`,
    `  pump     ${up(pump.isUp)}  ${published} published`,
    `  feed     ${up(feed.isUp)}  at version ${newest}: ${feed.name}`,
    ...nodes.map(
      ({ isUp, name, position }) =>
        `  ${name}   ${up(isUp)}  at version ${position}, ${behind(Math.max(newest - position, 0))}`
    ),
    "",
    `Keys: 1–${nodes.length} kill -9 or restart a node · p the pump · f take the feed down or up`,
    "      q stop, and compare the nodes with the admin",
    ...said.map((line) => styleText("dim", line))
  ].join("\n")

/** For a log. */
export const line = ({ changes, newest, nodes, published }: View): string =>
  `${changes} changes, ${changes - published} pending, version ${newest}, nodes at ${nodes.map(({ position }) => position).join(", ")}`
