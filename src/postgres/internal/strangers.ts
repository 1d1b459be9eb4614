import * as Lane from "../../Lane.js"
import { buckets, literal, type Names } from "./names.js"

/**
 * Foreign sessions that hold locks of the outbox, as JSON.
 *
 * A pump or an operator holds lanes under its application name and in a transaction. A transaction that appends holds
 * ordering keys and soon the table: a session without the table for seconds is a foreign one. Of another role's
 * sessions the server shows only names, unless the role may read all of `pg_stat_activity`.
 */
export const strangers = ({ laneLock, orderLock, outbox }: Names): string => {
  const ofLane = `classid = ${laneLock >>> 0} AND objid < ${Lane.count}`
  const ofKey = `classid = ${orderLock >>> 0} AND objid < ${buckets}`
  return `(SELECT coalesce(json_agg(json_strip_nulls(json_build_object('pid', pid, 'user', usename,
      'application', application_name, 'since', floor(extract(epoch FROM since) * 1000), 'lanes', lanes, 'keys', keys))), '[]')
    FROM (
      SELECT pid, usename, application_name, coalesce(xact_start, query_start) AS since,
        coalesce(array_agg(objid::bigint ORDER BY objid) FILTER (WHERE ${ofLane}), '{}') AS lanes,
        count(*) FILTER (WHERE ${ofKey}) AS keys
      FROM pg_locks JOIN pg_stat_activity USING (pid)
      WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND pid <> pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND ((${ofLane} AND (application_name NOT LIKE 'controlpublish%' OR state = 'idle'))
          OR (${ofKey} AND (coalesce(xact_start, query_start) > clock_timestamp() - interval '5 s') IS NOT TRUE AND (state = 'idle'
            OR NOT EXISTS (SELECT FROM pg_locks other WHERE other.pid = pg_locks.pid AND other.locktype = 'relation'
              AND other.relation = ${literal(outbox)}::regclass))))
      GROUP BY pid, usename, application_name, xact_start, query_start
      ORDER BY pid LIMIT 20
    ) held)`
}
