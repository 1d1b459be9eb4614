import { Effect, type Scope } from "effect"
import { freePort, startNats, type NatsServer } from "./nats.js"

/** Servers of one cluster, which lives as long as the scope. */
export const natsCluster = (size = 3): Effect.Effect<ReadonlyArray<NatsServer>, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const ports = await Promise.all(Array.from({ length: size }, freePort))
        const routes = ports.map((port) => `"nats-route://127.0.0.1:${port}"`).join(", ")
        return Promise.all(
          ports.map((port, index) =>
            startNats({
              config: () =>
                `server_name: "n${index + 1}"\ncluster { name: "test", listen: "127.0.0.1:${port}", routes: [${routes}] }`
            })
          )
        )
      }),
      (servers) => Effect.promise(() => Promise.all(servers.map((server) => server.close())))
    ),
    (servers) => servers
  )
