-- What the application may do, told by the catalogue: it reads the ledger, and writes it by
-- functions alone; it adds to tables that are never changed; it deletes nothing where a
-- trigger looks at deletions; it writes all others. It has no TRUNCATE and owns nothing, so it
-- cannot change a table or take a trigger away.
DO $$
DECLARE
    app    oid;
    one    record;
    wanted text[];
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('rights', 0));
    -- Databases of one cluster share their roles and may be made at the same time.
    IF to_regrole('muster_app') IS NULL THEN
        BEGIN
            CREATE ROLE muster_app NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END IF;
    app := to_regrole('muster_app');
    BEGIN -- not every member of a role may also become it
        PERFORM set_config('role', 'muster_app', true);
        PERFORM set_config('role', 'none', true);
    EXCEPTION WHEN insufficient_privilege THEN
        EXECUTE format('GRANT muster_app TO %I', current_user);
    END;

    FOR one IN
        SELECT c.oid::regclass AS name, c.relacl,
               starts_with(c.relname, 'ledger_') OR c.relname = 'goose_db_version' AS read_only,
               EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = 'refuse_change'::regproc AND t.tgtype & 16 <> 0) AS append_only,
               EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgtype & 8 <> 0) AS kept -- a trigger looks at deletions
        FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
    LOOP
        wanted := CASE WHEN one.read_only THEN ARRAY['SELECT'] WHEN one.append_only THEN ARRAY['INSERT', 'SELECT']
                       WHEN one.kept THEN ARRAY['INSERT', 'SELECT', 'UPDATE'] ELSE ARRAY['DELETE', 'INSERT', 'SELECT', 'UPDATE'] END;
        CONTINUE WHEN wanted = ARRAY(SELECT a.privilege_type FROM aclexplode(one.relacl) a WHERE a.grantee = app ORDER BY 1);
        EXECUTE format('REVOKE ALL ON %s FROM muster_app', one.name);
        EXECUTE format('GRANT %s ON %s TO muster_app', array_to_string(wanted, ', '), one.name);
    END LOOP;

    FOR one IN
        SELECT p.oid::regprocedure AS name, p.prosecdef FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace AND (p.prosecdef OR starts_with(p.proname, 'ledger_'))
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', one.name);
        IF one.prosecdef THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO muster_app', one.name);
        END IF;
    END LOOP;
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    -- Tables of its own it makes where nothing else is.
    GRANT USAGE, CREATE ON SCHEMA workspace TO muster_app;
END $$;
