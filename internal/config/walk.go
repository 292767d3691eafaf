package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// places are the lines of keys.
type places map[string]int

// of returns the line of a key; or that of the other one, if only that is in the file; or of the nearest one above it that is.
func (p places) of(key, other string) int {
	if _, ok := p[key]; !ok && p[other] > 0 {
		return p[other]
	}
	for key != "" {
		if line, ok := p[key]; ok {
			return line
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			break
		}
		key = key[:i]
	}
	return 1
}

// parser compares a document, which is JSON, with the types that it is read into. encoding/json is too patient for a file that a
// person writes: it takes keys of any case, the second of two that are equal, and null for everything.
type parser struct {
	data  []byte
	lines places
	found []*MistakeError
}

func (p *parser) document() {
	p.value("", p.data, 0, reflect.TypeFor[Config]())
}

func (p *parser) mistake(key string, offset int, format string, args ...any) {
	p.found = append(p.found, &MistakeError{Key: key, Line: lineOf(p.data, int64(offset)), Reason: fmt.Sprintf(format, args...)})
}

// value compares the value at an offset with a type.
func (p *parser) value(key string, raw []byte, offset int, t reflect.Type) {
	text := bytes.TrimSpace(raw)
	if string(text) == "null" {
		p.mistake(key, offset, "null says nothing: leave the key out")
		return
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		p.scalar(key, text, offset, t)
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		p.value(key, raw, offset, t.Elem())
	case reflect.Struct:
		p.object(key, raw, offset, func(name string) (reflect.Type, error) { return fieldType(t, name) })
	case reflect.Map:
		p.object(key, raw, offset, func(name string) (reflect.Type, error) { return t.Elem(), validName(name) })
	case reflect.Slice:
		p.list(key, raw, offset, t.Elem())
	default:
		p.scalar(key, text, offset, t)
	}
}

// scalar reads a value into its type.
func (p *parser) scalar(key string, text []byte, offset int, t reflect.Type) {
	into := reflect.New(t)
	err := json.Unmarshal(text, into.Interface())
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && kind != nil {
		p.mistake(key, offset, "must be %s, not %s", nameOf(t), excerpt(text))
		return
	}
	if err != nil {
		p.mistake(key, offset, "%v", err)
	}
}

// nameOf is what people call a type.
func nameOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text in quotes"
	default:
		return fmt.Sprintf("a whole number (%s)", t.Kind())
	}
}

// object visits the members of an object. typeOf says what a member must be.
func (p *parser) object(key string, raw []byte, offset int, typeOf func(name string) (reflect.Type, error)) {
	p.elements(key, raw, offset, '{', func(dec *json.Decoder) bool {
		token, err := dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return false
		}
		at := offset + int(dec.InputOffset())
		member := strings.TrimPrefix(key+"."+name, ".")
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return false
		}
		_, twice := p.lines[member]
		t, err := typeOf(name)
		switch {
		case err != nil:
			p.mistake(member, at, "%v", err)
			return true
		case twice:
			p.mistake(member, at, "stands here a second time")
			return true
		}
		p.lines[member] = lineOf(p.data, int64(at))
		p.value(member, value, offset+int(dec.InputOffset())-len(value), t)
		return true
	})
}

func (p *parser) list(key string, raw []byte, offset int, t reflect.Type) {
	n := 0
	p.elements(key, raw, offset, '[', func(dec *json.Decoder) bool {
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return false
		}
		at := offset + int(dec.InputOffset()) - len(value)
		element := fmt.Sprintf("%s[%d]", key, n)
		p.lines[element] = lineOf(p.data, int64(at))
		p.value(element, value, at, t)
		n++
		return true
	})
}

// elements visits what is in an object or a list.
func (p *parser) elements(key string, raw []byte, offset int, opening json.Delim, visit func(dec *json.Decoder) bool) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	token, err := dec.Token()
	if err != nil || token != opening {
		kind := map[json.Delim]string{'{': "an object, {…}", '[': "a list, […]"}[opening]
		p.mistake(key, offset, "must be %s, not %s", kind, excerpt(raw))
		return
	}
	for dec.More() && visit(dec) {
	}
}

// fieldType returns the type of the member of a struct, those of embedded ones included.
func fieldType(t reflect.Type, name string) (reflect.Type, error) {
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		key := keyOf(f)
		if key == name {
			return f.Type, nil
		}
		if key != "" {
			names = append(names, key)
		}
	}
	return nil, errors.New("there is no such key" + nearest(name, names))
}

// keyOf is the name of a field in the file; empty for one that has none, as embedded structs.
func keyOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" || f.Anonymous {
		return ""
	}
	return name
}

var nameText = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// validName refuses names of classes that could not stand in an object, a path or a key.
func validName(name string) error {
	if !nameText.MatchString(name) {
		return fmt.Errorf("a name has 1 to 63 small letters, digits and inner hyphens, not %q", excerpt([]byte(name)))
	}
	return nil
}
