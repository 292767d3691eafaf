package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/config"
)

// key is one key of the configuration, or a group of them.
type key struct {
	// path of names with dots; <name> where the user chooses one.
	path, name, comment string
	// kind is that of JSON: object, map, array, string, boolean or integer. format is what a text must look like.
	kind   string
	format *format
	// fallback is the default, as it is written; empty if there is none.
	fallback any
	required bool
	live     bool
	enum     []string
	least    int
	members  []key
}

// format is how a text is written that is more than a text.
type format struct{ name, pattern string }

var (
	durationFormat = format{"duration", `^-?([0-9]+d)?([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))*$`}
	sizeFormat     = format{"size", `^[0-9]{1,19}(\.[0-9]{1,9})?([kMGTPE]|[KMGTPE]i)?$`}
)

// reader makes keys of types.
type reader struct {
	comments comments
}

// members returns the keys of a group. value has the defaults.
func (r reader) members(path string, value reflect.Value, live bool) ([]key, error) {
	var keys []key
	for i := range value.NumField() {
		f := value.Type().Field(i)
		if f.Anonymous {
			embedded, err := r.members(path, value.Field(i), live)
			if err != nil {
				return nil, err
			}
			keys = append(keys, embedded...)
			continue
		}
		k, err := r.key(path, value.Type(), f, value.Field(i), live)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (r reader) key(path string, owner reflect.Type, f reflect.StructField, value reflect.Value, live bool) (key, error) {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	said, err := r.comments.of(owner, f, name)
	if err != nil {
		return key{}, err
	}
	k := key{path: strings.TrimPrefix(path+"."+name, "."), name: name, comment: said, live: live || f.Tag.Get("reload") == "live"}
	if err := k.read(f.Tag.Get("schema")); err != nil {
		return key{}, fmt.Errorf("%s: %w", k.path, err)
	}
	return k, r.fill(&k, f.Type, value)
}

// read takes what the tag of a field says.
func (k *key) read(tag string) (err error) {
	for word := range strings.SplitSeq(tag, ",") {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "":
		case "required":
			k.required = true
		case "enum":
			k.enum = strings.Split(value, "|")
		case "min":
			if k.least, err = strconv.Atoi(value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("schema tag %q is not known", word)
		}
	}
	return nil
}

// fill takes what the type says.
func (r reader) fill(k *key, t reflect.Type, value reflect.Value) (err error) {
	switch {
	case t == reflect.TypeFor[config.Duration]():
		k.kind, k.format, k.fallback = "string", &durationFormat, shown(value)
	case t == reflect.TypeFor[config.Size]():
		k.kind, k.format, k.fallback = "string", &sizeFormat, shown(value)
	case t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct:
		k.kind = "object"
		k.members, err = r.members(k.path, reflect.New(t.Elem()).Elem(), k.live)
	case t.Kind() == reflect.Pointer:
		err = r.fill(k, t.Elem(), reflect.Zero(t.Elem()))
		k.fallback = nil // it depends
		return err
	case t.Kind() == reflect.Struct:
		k.kind = "object"
		k.members, err = r.members(k.path, value, k.live)
	case t.Kind() == reflect.Map:
		k.kind = "map"
		k.members, err = r.members(k.path+".<name>", reflect.New(t.Elem()).Elem(), k.live)
	case t.Kind() == reflect.Slice:
		err = r.list(k, t.Elem(), value)
	case t.Kind() == reflect.Bool:
		k.kind, k.fallback = "boolean", value.Interface()
	case t.Kind() == reflect.String:
		k.kind, k.fallback = "string", shown(value)
	default:
		k.kind, k.fallback = "integer", value.Interface()
	}
	if value.IsZero() && k.kind != "boolean" && k.format != &sizeFormat {
		k.fallback = nil
	}
	return err
}

// list takes what the type of the elements says.
func (r reader) list(k *key, elements reflect.Type, value reflect.Value) (err error) {
	k.kind, k.fallback = "array", value.Interface()
	if elements.Kind() == reflect.Struct {
		k.fallback = nil
		k.members, err = r.members(k.path+"[]", reflect.New(elements).Elem(), k.live)
	}
	return err
}

func shown(value reflect.Value) any {
	if text, ok := reflect.TypeAssert[fmt.Stringer](value); ok {
		return text.String()
	}
	return value.Interface()
}
