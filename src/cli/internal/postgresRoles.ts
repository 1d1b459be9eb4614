/** The roles of an embedded PostgreSQL, also of one whose application was a superuser. */
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs/promises"
import { Client } from "pg"
import { owner, superuser, type Place } from "./postgresData.js"
import { readIfPresent } from "./processes.js"

/** The server has no TLS: PGSSLMODE must not require it. */
export const urlOf = (port: number, role: string, password: string, database = owner): string =>
  `postgres://${role}:${password}@127.0.0.1:${port}/${database}?sslmode=disable`

const withClient = async <A>(url: string, use: (client: Client) => Promise<A>): Promise<A> => {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 5_000 })
  client.on("error", () => {})
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end().catch(() => {})
  }
}

const upgrader = "controlpublish_upgrade"

/** Everything that the superuser created in the database becomes the application's. */
const handOver = `DO $do$
DECLARE
  made record;
BEGIN
  FOR made IN SELECT nspname FROM pg_namespace WHERE nspowner = 10 AND nspname !~ '^(pg_|information_schema$|public$)' LOOP
    EXECUTE format('ALTER SCHEMA %I OWNER TO ${owner}', made.nspname);
  END LOOP;
  FOR made IN SELECT c.oid::regclass AS name, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relowner = 10 AND c.relkind IN ('r', 'p', 'v', 'm', 'S') AND n.nspname !~ '^(pg_|information_schema$)'
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i') AND c.relkind = 'S') LOOP
    EXECUTE format('ALTER %s %s OWNER TO ${owner}',
      CASE made.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, made.name);
  END LOOP;
  FOR made IN SELECT p.oid::regprocedure AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE p.proowner = 10 AND n.nspname !~ '^(pg_|information_schema$)' LOOP
    EXECUTE format('ALTER ROUTINE %s OWNER TO ${owner}', made.name);
  END LOOP;
END $do$`

/**
 * Returns the superuser's password. Data of earlier versions had one role, the application's, which was a superuser: it
 * becomes `postgres`, and the application gets a new role with its old password. An interrupted upgrade is repeated.
 */
export const superuserPassword = async (place: Place, port: number, password: string): Promise<string> => {
  const known = await readIfPresent(place.superuser)
  if (known !== undefined) return known
  const coming = `${place.superuser}.new`
  const secret = (await readIfPresent(coming)) ?? randomBytes(24).toString("base64url")
  await Fs.writeFile(coming, secret, { mode: 0o600 })
  const application = urlOf(port, owner, password)
  const isSuperuser = await withClient(application, async (client) => {
    const { rows } = await client.query<{ readonly rolsuper: boolean }>(
      "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    )
    return rows[0]?.rolsuper === true
  })
  if (isSuperuser) {
    const once = randomBytes(24).toString("base64url")
    await withClient(application, async (client) => {
      await client.query(`DROP ROLE IF EXISTS ${upgrader}`)
      await client.query(`CREATE ROLE ${upgrader} LOGIN SUPERUSER PASSWORD '${once}'`)
    })
    await withClient(urlOf(port, upgrader, once), async (client) => {
      await client.query("BEGIN")
      await client.query(`ALTER ROLE ${owner} RENAME TO ${superuser}`)
      await client.query(`ALTER ROLE ${superuser} PASSWORD '${secret}'`)
      await client.query(`CREATE ROLE ${owner} LOGIN PASSWORD '${password}'`)
      await client.query(`ALTER DATABASE ${owner} OWNER TO ${owner}`)
      await client.query(handOver)
      await client.query("COMMIT")
    })
  }
  await withClient(urlOf(port, superuser, secret), (client) => client.query(`DROP ROLE IF EXISTS ${upgrader}`))
  await Fs.rename(coming, place.superuser)
  return secret
}
