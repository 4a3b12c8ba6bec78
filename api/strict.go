package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/musterhq/muster/campaign"
)

// maxNesting is far above any body of the API and far below what a parser's stack minds.
const maxNesting = 32

// maxFaults bounds the list of faults in one answer.
const maxFaults = 20

// checkBody refuses what a lenient decoder would take in silence: unknown fields,
// duplicate fields and variants in case, a second value, text that is not fit to be
// read, numbers that do not fit a whole number. Everything else that a schema can
// say is checked by validate.
func checkBody(body []byte, schema *openapi3.Schema) error {
	if !utf8.Valid(body) {
		return campaign.Errorf(campaign.CodeInvalidText, "the body is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	var first json.RawMessage
	if err := d.Decode(&first); err != nil {
		return &campaign.Error{Code: campaign.CodeMalformedBody, Message: malformed(err), Err: err}
	}
	if err := d.Decode(new(json.RawMessage)); !errors.Is(err, io.EOF) {
		return campaign.Errorf(campaign.CodeTrailingData, "there is something after the end of the JSON value")
	}
	s := &bodyCheck{tokens: json.NewDecoder(bytes.NewReader(first))}
	s.tokens.UseNumber()
	if err := s.value("", schema, 0); err != nil {
		return err
	}
	return faults(s.fields)
}

func malformed(err error) string {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Sprintf("the body is not JSON: %s at byte %d", syntax.Error(), syntax.Offset)
	}
	return "the body is not JSON: it ends too early"
}

// faults is the error about fields, with the code of the first; nil when there are none.
func faults(fields []campaign.FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	message := "1 field is at fault"
	if len(fields) > 1 {
		message = fmt.Sprintf("%d fields are at fault", len(fields))
	}
	return &campaign.Error{Code: fields[0].Code, Message: message, Fields: fields}
}

// inPlan says of an error about a plan's fields that the plan is the field "plan" of the
// body.
func inPlan(err error) error {
	var e *campaign.Error
	if !errors.As(err, &e) || len(e.Fields) == 0 {
		return err
	}
	outer := *e
	outer.Fields = slices.Clone(e.Fields)
	for i := range outer.Fields {
		outer.Fields[i].Field = "plan." + outer.Fields[i].Field
	}
	return &outer
}

type bodyCheck struct {
	tokens *json.Decoder
	fields []campaign.FieldError
}

func (s *bodyCheck) add(path string, code campaign.Code, format string, args ...any) {
	if len(s.fields) < maxFaults {
		s.fields = append(s.fields, campaign.FieldError{Field: path, Code: code, Message: fmt.Sprintf(format, args...)})
	}
}

// value walks the next value along its schema, which is nil where nothing is known.
func (s *bodyCheck) value(path string, schema *openapi3.Schema, depth int) error {
	if depth > maxNesting {
		return campaign.Errorf(campaign.CodeMalformedBody, "the body is nested deeper than %d levels", maxNesting)
	}
	t, err := s.tokens.Token()
	if err != nil {
		return &campaign.Error{Code: campaign.CodeMalformedBody, Message: malformed(err), Err: err}
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '{' {
			err = s.object(path, schema, depth)
		} else {
			err = s.array(path, schema, depth)
		}
		if err != nil {
			return err
		}
		_, err = s.tokens.Token() // the closing bracket
		return err
	case string:
		if isMoney(schema) {
			s.add(path, campaign.CodeAmountNotInteger, "must be a whole number of minor units, not text")
		} else if fault := campaign.TextFault(t); fault != "" {
			s.add(path, campaign.CodeInvalidText, "%s", fault)
		}
	case json.Number:
		s.number(path, schema, t.String())
	}
	return nil
}

func (s *bodyCheck) object(path string, schema *openapi3.Schema, depth int) error {
	seen := map[string]string{}
	for s.tokens.More() {
		t, err := s.tokens.Token()
		if err != nil {
			return &campaign.Error{Code: campaign.CodeMalformedBody, Message: malformed(err), Err: err}
		}
		name := t.(string)
		at := name
		if path != "" {
			at = path + "." + name
		}
		var child *openapi3.Schema
		if other, twice := seen[strings.ToLower(name)]; twice {
			s.add(at, campaign.CodeDuplicateField, "is the field %q again", other)
		} else if property := propertyOf(schema, name); property != nil {
			child = property
		} else if isClosed(schema) {
			s.fields = append(s.fields, campaign.FieldError{
				Field: at, Code: campaign.CodeUnknownField, Message: "there is no such field here", Allowed: propertyNames(schema),
			})
		}
		seen[strings.ToLower(name)] = name
		if len(s.fields) >= maxFaults {
			return faults(s.fields)
		}
		if err := s.value(at, child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (s *bodyCheck) array(path string, schema *openapi3.Schema, depth int) error {
	var items *openapi3.Schema
	if schema != nil && schema.Items != nil {
		items = schema.Items.Value
	}
	for i := 0; s.tokens.More(); i++ {
		if err := s.value(fmt.Sprintf("%s[%d]", path, i), items, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// number checks what float arithmetic in a schema validator would round away.
func (s *bodyCheck) number(path string, schema *openapi3.Schema, digits string) {
	if schema == nil || !schema.Type.Is(openapi3.TypeInteger) {
		return
	}
	if strings.ContainsAny(digits, ".eE") {
		if isMoney(schema) {
			s.add(path, campaign.CodeAmountNotInteger, "must be a whole number of minor units, written with digits only")
		} else {
			s.add(path, campaign.CodeInvalidParameter, "must be a whole number, written with digits only")
		}
		return
	}
	if _, err := strconv.ParseInt(digits, 10, 64); err != nil {
		code := campaign.CodeInvalidParameter
		if isMoney(schema) {
			code = campaign.CodeAmountOutOfRange
		}
		s.add(path, code, "is larger than any number Muster holds")
	}
}

func propertyOf(schema *openapi3.Schema, name string) *openapi3.Schema {
	if schema == nil || schema.Properties[name] == nil {
		return nil
	}
	return schema.Properties[name].Value
}

func propertyNames(schema *openapi3.Schema) []any {
	names := make([]any, 0, len(schema.Properties))
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		names = append(names, name)
	}
	return names
}

// isClosed reports whether a schema allows no properties but its own.
func isClosed(schema *openapi3.Schema) bool {
	return schema != nil && schema.AdditionalProperties.Has != nil && !*schema.AdditionalProperties.Has
}

func isMoney(schema *openapi3.Schema) bool {
	if schema == nil {
		return false
	}
	money, _ := schema.Extensions["x-money"].(bool)
	return money
}
