package api

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/musterhq/muster/campaign"
)

//go:embed openapi.yaml
var specText []byte

// description reads the API's description and checks it, once. Nobody changes it.
var description = sync.OnceValues(func() (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromData(specText)
	if err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	if err := doc.Validate(context.Background()); err != nil { //nolint:forbidigo // once a process, for no request
		return nil, fmt.Errorf("check openapi.yaml: %w", err)
	}
	return doc, nil
})

// operation is one operation of the description, ready to validate requests.
type operation struct {
	route *routers.Route
	query map[string]bool  // the names of its query parameters
	open  bool             // others may come with them and are not looked at
	body  *openapi3.Schema // nil when it takes none

	bodyOptional bool
}

// operationsOf indexes the description by operationId.
func operationsOf(doc *openapi3.T) map[string]operation {
	// For 3.1 the validator compiles each schema anew on each request. The built-in
	// one of 3.0 gives the same answers for the keywords that the description uses.
	plain := *doc
	plain.OpenAPI = "3.0.3"
	all := map[string]operation{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			o := operation{
				route: &routers.Route{Spec: &plain, Path: path, PathItem: item, Method: method, Operation: op},
				query: map[string]bool{},
			}
			o.open, _ = op.Extensions["x-other-parameters"].(bool)
			for _, p := range op.Parameters {
				if p.Value.In == openapi3.ParameterInQuery {
					o.query[p.Value.Name] = true
				}
			}
			if op.RequestBody != nil {
				if text := op.RequestBody.Value.Content.Get("application/json"); text != nil {
					o.body = text.Schema.Value
				}
				o.bodyOptional = !op.RequestBody.Value.Required
			}
			all[op.OperationID] = o
		}
	}
	return all
}

// uuidFormat takes ids of every version in the form that Muster writes them.
var uuidFormat = openapi3.NewRegexpFormatValidator(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// validate checks a request against its operation and names every field at fault.
func (o operation) validate(req *http.Request, path map[string]string) error {
	var fields []campaign.FieldError
	query, err := url.ParseQuery(req.URL.RawQuery)
	if err != nil {
		return &campaign.Error{Code: campaign.CodeInvalidParameter, Message: "the query of the address cannot be read", Err: err}
	}
	for name, values := range query {
		switch {
		case !o.query[name] && o.open:
		case !o.query[name]:
			fields = append(fields, campaign.FieldError{Field: name, Code: campaign.CodeInvalidParameter, Message: "there is no such parameter here"})
		case len(values) > 1:
			fields = append(fields, campaign.FieldError{Field: name, Code: campaign.CodeInvalidParameter, Message: "is given more than once"})
		}
	}
	err = openapi3filter.ValidateRequest(req.Context(), &openapi3filter.RequestValidationInput{
		Request: req, PathParams: path, Route: o.route,
		Options: &openapi3filter.Options{
			MultiError: true, ExcludeRequestBody: o.body == nil, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, SkipSettingDefaults: true,
			SchemaValidationOptions: []openapi3.SchemaValidationOption{openapi3.WithStringFormatValidator("uuid", uuidFormat)},
		},
	})
	fields = slices.Concat(fields, fieldErrors("", err))
	slices.SortStableFunc(fields, func(a, b campaign.FieldError) int { return strings.Compare(a.Field, b.Field) })
	return faults(fields[:min(len(fields), maxFaults)])
}

// fieldErrors flattens the validator's errors. base is the parameter they are about.
func fieldErrors(base string, err error) []campaign.FieldError {
	if err == nil {
		return nil
	}
	fault := campaign.FieldError{Field: base, Code: campaign.CodeInvalidParameter, Message: "cannot be read"}
	switch e := err.(type) { //nolint:errorlint // the validator nests its errors and never wraps them
	case openapi3.MultiError:
		var all []campaign.FieldError
		for _, one := range e {
			all = append(all, fieldErrors(base, one)...)
		}
		return all
	case *openapi3filter.RequestError:
		if e.Parameter != nil {
			base = e.Parameter.Name
		}
		if e.Err != nil {
			return fieldErrors(base, e.Err)
		}
		fault.Field = base
	case *openapi3.SchemaError:
		fault.Field = fieldPath(base, e.JSONPointer())
		fault.Message = e.Reason
		if e.SchemaField == "enum" && e.Schema != nil {
			fault.Allowed = e.Schema.Enum
			fault.Message = "is none of the values allowed here"
		}
		if e.SchemaField == "required" {
			fault.Message = "is missing"
		}
	default:
		if errors.Is(err, openapi3filter.ErrInvalidRequired) {
			fault.Message = "is missing"
		}
	}
	return []campaign.FieldError{fault}
}

// fieldPath writes a JSON pointer the way fields are named everywhere, a.b[0].c.
func fieldPath(base string, pointer []string) string {
	path := base
	for _, step := range pointer {
		switch {
		case step != "" && strings.Trim(step, "0123456789") == "":
			path += "[" + step + "]"
		case path == "":
			path = step
		default:
			path += "." + step
		}
	}
	return path
}
