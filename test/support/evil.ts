import { Effect } from "effect"
import { asOwner } from "./roles.js"

/**
 * A schema `evil` with an object for everything that pg_catalog has under a name: functions, aggregates, operators,
 * tables, types, each of the same arguments. What is called is counted by the server.
 */
const shadows = `
SET search_path = pg_catalog;
CREATE SCHEMA evil;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION evil.seen(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN true; END $$;
DO $do$
DECLARE
  made record;
  body text;
BEGIN
  FOR made IN SELECT oid, proname, prokind, proretset, prorettype, pg_get_function_identity_arguments(oid) AS args,
      pg_get_function_result(oid) AS result, provariadic FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind IN ('f', 'a', 'w') AND proname !~ '(in|out|recv|send)$'
  LOOP
    BEGIN
      IF made.prokind = 'f' THEN
        body := CASE WHEN made.proretset OR made.result = 'void' THEN 'BEGIN RETURN; END' ELSE 'BEGIN RETURN NULL; END' END;
        EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', made.proname, made.args, made.result, body);
      ELSE
        EXECUTE format('CREATE FUNCTION evil.%I(int%s) RETURNS int LANGUAGE plpgsql AS %L', 'step_' || made.proname || made.oid,
          CASE WHEN made.args = '' THEN '' ELSE ', ' || replace(made.args, '"any"', 'anyelement') END, 'BEGIN RETURN 1; END');
        EXECUTE format('CREATE AGGREGATE evil.%I(%s) (SFUNC = evil.%I, STYPE = int)', made.proname,
          CASE WHEN made.args = '' THEN '*' ELSE replace(made.args, '"any"', 'anyelement') END, 'step_' || made.proname || made.oid);
      END IF;
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
  FOR made IN SELECT o.oid, oprname, format_type(oprleft, NULL) AS l, format_type(oprright, NULL) AS r,
      format_type(oprresult, NULL) AS result, oprleft FROM pg_operator o
    WHERE oprnamespace = 'pg_catalog'::regnamespace
  LOOP
    BEGIN
      EXECUTE format('CREATE FUNCTION evil.%I(%s%s) RETURNS %s LANGUAGE plpgsql AS %L', 'operator_' || made.oprname || made.oid,
        CASE WHEN made.oprleft = 0 THEN '' ELSE made.l || ', ' END, made.r, made.result, 'BEGIN RETURN NULL; END');
      EXECUTE format('CREATE OPERATOR evil.%s (FUNCTION = evil.%I, %s RIGHTARG = %s)', made.oprname,
        'operator_' || made.oprname || made.oid,
        CASE WHEN made.oprleft = 0 THEN '' ELSE 'LEFTARG = ' || made.l || ',' END, made.r);
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
  FOR made IN SELECT relname, (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = pg_class.oid AND attnum > 0 AND atttypid NOT IN ('anyarray'::regtype, 'pg_statistic[]'::regtype)) AS columns
      FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v') LOOP
    EXECUTE format('CREATE VIEW evil.%I AS SELECT %s FROM pg_catalog.%I WHERE evil.seen(%L)', made.relname, made.columns, made.relname, made.relname);
    EXECUTE format('GRANT SELECT ON evil.%I TO PUBLIC', made.relname);
  END LOOP;
  -- A type is not called: who takes it fails.
  FOR made IN SELECT typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typcategory <> 'A' LOOP
    EXECUTE format('CREATE DOMAIN evil.%I AS pg_catalog.point CHECK (false)', made.typname);
  END LOOP;
END $do$`

/** Puts the schema `evil` in the database. */
export const plantEvil = asOwner(shadows)

/** What of the schema was called, by whomever, in sessions that counted. */
export const calledEvil = Effect.map(
  asOwner(`SET search_path = pg_catalog; SET track_functions = none;
    SELECT funcname FROM pg_stat_user_functions WHERE schemaname = 'evil' AND calls > 0 ORDER BY 1`),
  (results) =>
    (results as unknown as ReadonlyArray<{ readonly rows: ReadonlyArray<{ readonly funcname: string }> }>)[2]!.rows.map(
      ({ funcname }) => funcname
    )
)
