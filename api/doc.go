// Package api is Muster's HTTP interface: the operations of openapi.yaml behind
// sessions, permissions, strict decoding and idempotency keys, live events, and
// the health and metrics endpoints. It writes rows and talks to the campaigns'
// workflows; it decides nothing that a workflow decides.
package api

//go:generate go tool oapi-codegen -config oapi-codegen.yaml openapi.yaml
