import { Effect, type Scope } from "effect"
import { freePort, startNats, type NatsServer } from "./nats.js"

/** The servers of one cluster. `close` removes each. */
export const startNatsCluster = async (
  size = 3,
  command?: string
): Promise<ReadonlyArray<Awaited<ReturnType<typeof startNats>>>> => {
  const ports = await Promise.all(Array.from({ length: size }, freePort))
  const routes = ports.map((port) => `"nats-route://127.0.0.1:${port}"`).join(", ")
  return Promise.all(
    ports.map((port, index) =>
      startNats({
        command,
        config: () =>
          `server_name: "n${index + 1}"\ncluster { name: "test", listen: "127.0.0.1:${port}", routes: [${routes}] }`
      })
    )
  )
}

/** The servers of a cluster that lives as long as the scope. */
export const natsCluster = (
  size?: number,
  command?: string
): Effect.Effect<ReadonlyArray<NatsServer>, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => startNatsCluster(size, command)),
    (servers) => Effect.promise(() => Promise.all(servers.map((server) => server.close())))
  )
