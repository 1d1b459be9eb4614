import { nkeys } from "@nats-io/transport-node"
import { createHash } from "node:crypto"

const json = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url")

/** A JWT as NATS has them. */
const jwt = (issuer: nkeys.KeyPair, subject: string, name: string, claims: object): string => {
  const body = {
    iss: issuer.getPublicKey(),
    sub: subject,
    name,
    iat: Math.floor(Date.now() / 1000),
    nats: { ...claims, version: 2 }
  }
  const jti = createHash("sha256").update(JSON.stringify(body)).digest("hex")
  const text = `${json({ typ: "JWT", alg: "ed25519-nkey" })}.${json({ ...body, jti })}`
  return `${text}.${Buffer.from(issuer.sign(Buffer.from(text))).toString("base64url")}`
}

/** An operator with an account that has JetStream, as configuration of a server, and the creds file of a user of it. */
export const accounts = () => {
  const operator = nkeys.createOperator()
  const system = nkeys.createAccount()
  const account = nkeys.createAccount()
  const user = nkeys.createUser()
  const unlimited = { subs: -1, data: -1, payload: -1, imports: -1, exports: -1, wildcards: true, conn: -1, leaf: -1 }
  const storage = { mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 }
  const accountJwt = jwt(operator, account.getPublicKey(), "A", {
    type: "account",
    limits: { ...unlimited, ...storage }
  })
  const systemJwt = jwt(operator, system.getPublicKey(), "SYS", { type: "account", limits: unlimited })
  const operatorJwt = jwt(operator, operator.getPublicKey(), "O", {
    type: "operator",
    system_account: system.getPublicKey()
  })
  const userJwt = jwt(account, user.getPublicKey(), "U", { type: "user", subs: -1, data: -1, payload: -1 })
  return {
    config: `operator: ${operatorJwt}
      system_account: ${system.getPublicKey()}
      resolver: MEMORY
      resolver_preload: { ${account.getPublicKey()}: ${accountJwt}, ${system.getPublicKey()}: ${systemJwt} }`,
    creds: `-----BEGIN NATS USER JWT-----
${userJwt}
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
${Buffer.from(user.getSeed()).toString()}
------END USER NKEY SEED------
`
  }
}
