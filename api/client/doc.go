// Package client is the Go client of Muster's API, generated from api/openapi.yaml,
// with the session handling that a program needs around it.
package client

//go:generate go tool oapi-codegen -config oapi-codegen.yaml ../openapi.yaml
