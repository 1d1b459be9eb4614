import { createInterface } from "node:readline"
import { connect, createInbox, MsgHdrsImpl, type NatsConnection } from "@nats-io/transport-node"

/** What a contestant is told: where its rows are, and where they go. */
export interface Task {
  readonly databaseUrl: string
  readonly schema: string
  readonly natsUrl: string
  readonly stream: string
  readonly options?: Readonly<Record<string, number | string>>
}

export interface Result {
  readonly milliseconds: number
  /** Of the process while it worked, in milliseconds. */
  readonly cpu: number
  /** What the contestant tells beside. */
  readonly figures: Readonly<Record<string, number>>
}

/** Milliseconds on a clock that all processes of the machine share. */
export const sharedClock = (): number => Number(process.hrtime.bigint()) / 1e6

/**
 * The main function of a contestant's process: prepares, says that it is ready, works each time it is told to, and prints
 * its result. What is measured is the work alone.
 */
export const contestant = (
  prepare: (task: Task) => Promise<{
    /** `millis`: for how long, where that is not the work's to say. */
    readonly work: (millis: number) => Promise<Record<string, number>>
    readonly close: () => Promise<void>
  }>
): void => {
  const run = async () => {
    const { close, work } = await prepare(JSON.parse(process.argv[2]!) as Task)
    console.log("ready")
    for await (const line of createInterface({ input: process.stdin })) {
      const [command, millis] = line.split(" ")
      if (command !== "go") break
      const cpu = process.cpuUsage()
      const from = performance.now()
      const figures = await work(Number(millis))
      const milliseconds = performance.now() - from
      const { system, user } = process.cpuUsage(cpu)
      console.log(JSON.stringify({ milliseconds, cpu: (system + user) / 1000, figures } satisfies Result))
    }
    await close()
    process.exit(0)
  }
  run().catch((error: unknown) => {
    console.error(error)
    process.exit(1)
  })
}

export interface Message {
  readonly eventId: string
  readonly type: string
  readonly tenant: string
  readonly payload: string
}

/** Publishes to JetStream with one reply inbox and own matching of acknowledgements: what is fastest by hand. */
export const publisher = async (url: string, stream: string) => {
  const nc: NatsConnection = await connect({ servers: url, noAsyncTraces: true })
  const inbox = createInbox()
  const waiting = new Map<number, (sequence: number) => void>()
  let ticket = 0
  nc.subscribe(`${inbox}.*`, {
    callback: (error, message) => {
      if (error !== null) throw error
      const number = Number(message.subject.slice(inbox.length + 1))
      const ack = message.json<{ seq?: number; error?: object }>()
      if (ack.seq === undefined || ack.error !== undefined) throw new Error(`Not acknowledged: ${message.string()}`)
      const resolve = waiting.get(number)!
      waiting.delete(number)
      resolve(ack.seq)
    }
  })
  /** Calls back with the sequence. */
  const send = ({ eventId, payload, tenant, type }: Message, stored: (sequence: number) => void) => {
    const number = ++ticket
    const header = MsgHdrsImpl.fromRecord({
      "Nats-Msg-Id": [eventId],
      "Nats-Expected-Stream": [stream],
      "Control-Event-Type": [type],
      "Control-Event-Tenant": [tenant]
    })
    waiting.set(number, stored)
    nc.publish(`${stream}.${type}`, payload, { headers: header, reply: `${inbox}.${number}` })
  }
  let batches = 0
  /** Publishes an atomic batch, and calls back with the sequence of its last message. */
  const sendBatch = (messages: ReadonlyArray<Message>, stored: (last: number) => void) => {
    const number = ++ticket
    const id = `${inbox.slice(-22)}${++batches}`
    waiting.set(number, stored)
    messages.forEach(({ eventId, payload, tenant, type }, index) => {
      const isLast = index === messages.length - 1
      const headers = MsgHdrsImpl.fromRecord({
        "Nats-Msg-Id": [eventId],
        "Nats-Expected-Stream": [stream],
        "Control-Event-Type": [type],
        "Control-Event-Tenant": [tenant],
        "Nats-Batch-Id": [id],
        "Nats-Batch-Sequence": [String(index + 1)],
        ...(isLast ? { "Nats-Batch-Commit": ["1"] } : {})
      })
      nc.publish(`${stream}.${type}`, payload, isLast ? { headers, reply: `${inbox}.${number}` } : { headers })
    })
  }
  return {
    send,
    sendBatch,
    publish: (message: Message) => new Promise<number>((resolve) => send(message, resolve)),
    close: () => nc.close()
  }
}
