package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/postgresql"
	"go.temporal.io/server/tools/common/schema"
	"go.temporal.io/server/tools/sql"
)

const (
	historySchema    = "postgresql/v12/temporal"
	visibilitySchema = "postgresql/v12/visibility"

	// A killed predecessor's connection may outlive it for a moment.
	lockPatience = 10 * time.Second
)

// storeConfig describes one Temporal database on the server that the URL
// names. The URL's parameters (sslmode and the like) are kept.
func storeConfig(server *url.URL, database string, maxConns int) *config.SQL {
	password, _ := server.User.Password()
	attributes := make(map[string]string)
	for name, values := range server.Query() {
		attributes[name] = values[len(values)-1]
	}
	return &config.SQL{
		PluginName: postgresql.PluginNamePGX,
		// Temporal puts the user name into a URL as it is.
		User:              url.User(server.User.Username()).String(),
		Password:          password,
		ConnectProtocol:   "tcp",
		ConnectAddr:       server.Host,
		ConnectAttributes: attributes,
		DatabaseName:      database,
		MaxConns:          maxConns,
		MaxIdleConns:      maxConns,
		MaxConnLifetime:   time.Hour,
	}
}

// databaseLock keeps a second server off the same databases. PostgreSQL lets
// go of it when the connection ends, however this process ends.
type databaseLock struct{ conn *pgx.Conn }

func acquireLock(ctx context.Context, server *url.URL, database string) (*databaseLock, error) {
	conn, err := pgx.Connect(ctx, server.String())
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not answer: %w", err)
	}
	deadline := time.Now().Add(lockPatience)
	for {
		var locked bool
		err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock(hashtextextended('temporal-dev ' || $1, 0))`, database).Scan(&locked)
		if err == nil && locked {
			return &databaseLock{conn: conn}, nil
		}
		if err == nil && time.Now().After(deadline) {
			err = fmt.Errorf("another temporal-dev is using the database %q on %s: stop it, or choose another with --database", database, server.Host)
		}
		if err == nil {
			select {
			case <-time.After(200 * time.Millisecond):
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		_ = conn.Close(context.WithoutCancel(ctx))
		return nil, err
	}
}

func (l *databaseLock) release() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = l.conn.Close(ctx)
}

// ensureDatabase creates the database of cfg with its schema, or brings an
// existing one up to this server's schema version.
//
// A new database is built under another name and renamed when its schema is
// complete: the schema's statements cannot all be repeated, so a start that
// dies half-way must not leave the real name behind.
func (l *databaseLock) ensureDatabase(ctx context.Context, cfg *config.SQL, schemaName string, logger log.Logger) error {
	var exists bool
	if err := l.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, cfg.DatabaseName).Scan(&exists); err != nil {
		return fmt.Errorf("look for database %s: %w", cfg.DatabaseName, err)
	}
	if exists {
		return applySchema(cfg, schemaName, cfg.DatabaseName, logger)
	}

	unfinished := *cfg
	unfinished.DatabaseName += "_unfinished"
	from := pgx.Identifier{unfinished.DatabaseName}.Sanitize()
	to := pgx.Identifier{cfg.DatabaseName}.Sanitize()
	// An unfinished database never held a workflow: the server runs only on the final name.
	for _, statement := range []string{"DROP DATABASE IF EXISTS " + from, "CREATE DATABASE " + from} {
		if _, err := l.conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("create database %s: %w", cfg.DatabaseName, err)
		}
	}
	if err := applySchema(&unfinished, schemaName, cfg.DatabaseName, logger); err != nil {
		return err
	}
	return l.rename(ctx, from, to)
}

// rename waits for the backends of the schema's closed connections to leave.
func (l *databaseLock) rename(ctx context.Context, from, to string) error {
	for attempt := 0; ; attempt++ {
		_, err := l.conn.Exec(ctx, "ALTER DATABASE "+from+" RENAME TO "+to)
		if err == nil {
			return nil
		}
		if attempt == 50 || ctx.Err() != nil {
			return fmt.Errorf("name database %s: %w", to, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// applySchema runs the schema statements between the database's version and
// this server's. finalName is the name under which the version is recorded.
func applySchema(cfg *config.SQL, schemaName, finalName string, logger log.Logger) (err error) {
	conn, err := sql.NewConnection(cfg, logger)
	if err != nil {
		return fmt.Errorf("connect to database %s: %w", cfg.DatabaseName, err)
	}
	defer conn.Close()
	err = schema.NewSetupSchemaTask(conn, &schema.SetupConfig{InitialVersion: "0.0"}, logger).Run()
	if err == nil {
		err = schema.NewUpdateSchemaTask(conn, &schema.UpdateConfig{SchemaName: schemaName}, logger).Run()
	}
	if err == nil && finalName != cfg.DatabaseName {
		err = conn.Exec(`UPDATE schema_version SET db_name = $1 WHERE db_name = $2`, finalName, cfg.DatabaseName)
	}
	if err != nil {
		return fmt.Errorf("schema %s of database %s: %w", schemaName, cfg.DatabaseName, err)
	}
	return nil
}
