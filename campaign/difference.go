package campaign

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Change is a field of a plan that another revision has otherwise.
type Change struct {
	Path   string          `json:"path"`             // as FieldError names it, e.g. "budget[1].amount"
	Before json.RawMessage `json:"before,omitempty"` // empty when it was not there
	After  json.RawMessage `json:"after,omitempty"`  // empty when it is gone
}

// Difference lists what plan next has otherwise than plan now, field by field in the order
// of their paths. Elements of lists are compared by their places.
func Difference(now, next *Plan) ([]Change, error) {
	var changes []Change
	var read [2]any
	for i, p := range []*Plan{now, next} {
		text, err := json.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("write plan: %w", err)
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&read[i]); err != nil {
			return nil, fmt.Errorf("read plan: %w", err)
		}
	}
	err := compare("", read[0], read[1], &changes)
	return changes, err
}

// compare adds the changes between two JSON values, nil for none.
func compare(path string, before, after any, changes *[]Change) error {
	was, wasFields := before.(map[string]any)
	is, isFields := after.(map[string]any)
	if wasFields && isFields {
		names := slices.Collect(maps.Keys(was))
		for name := range is {
			if _, both := was[name]; !both {
				names = append(names, name)
			}
		}
		slices.SortFunc(names, cmp.Compare[string])
		for _, name := range names {
			at := name
			if path != "" {
				at = path + "." + name
			}
			if err := compare(at, was[name], is[name], changes); err != nil {
				return err
			}
		}
		return nil
	}
	first, wasList := before.([]any)
	second, isList := after.([]any)
	if wasList && isList {
		for i := range max(len(first), len(second)) {
			if err := compare(fmt.Sprintf("%s[%d]", path, i), element(first, i), element(second, i), changes); err != nil {
				return err
			}
		}
		return nil
	}
	c := Change{Path: path}
	var err error
	if c.Before, err = written(before); err != nil {
		return err
	}
	if c.After, err = written(after); err != nil {
		return err
	}
	if !bytes.Equal(c.Before, c.After) {
		*changes = append(*changes, c)
	}
	return nil
}

func element(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return nil
}

func written(value any) (json.RawMessage, error) {
	if value == nil {
		return nil, nil
	}
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("write field: %w", err)
	}
	return text, nil
}
