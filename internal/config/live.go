package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// takeOver returns the running configuration with what may change while the daemon runs as the file has it, the keys of that which
// changed, and those that differ and wait for a restart.
func takeOver(running, file Config) (next Config, changed, pending []string) {
	next = running
	compare("", reflect.ValueOf(&next).Elem(), reflect.ValueOf(file), false, func(key string, into, from reflect.Value, live bool) {
		if !live {
			pending = append(pending, key)
			return
		}
		into.Set(from)
		changed = append(changed, key)
	})
	return next, changed, pending
}

// LiveKeys are the keys that are taken over without a restart.
func LiveKeys() []string {
	var keys []string
	visitLive("", reflect.TypeFor[Config](), func(key string) { keys = append(keys, key) })
	slices.Sort(keys)
	return keys
}

func visitLive(key string, t reflect.Type, visit func(key string)) {
	for _, f := range reflect.VisibleFields(t) {
		name := keyOf(f)
		switch member := join(key, name); {
		case name == "":
		case isLive(f):
			visit(member)
		case isGroup(f.Type):
			visitLive(member, f.Type, visit)
		}
	}
}

// compare calls differs for every key that differs. What is in a map or behind a pointer counts as one.
func compare(key string, a, b reflect.Value, live bool, differs func(key string, into, from reflect.Value, live bool)) {
	if !isGroup(a.Type()) {
		if !reflect.DeepEqual(a.Interface(), b.Interface()) {
			differs(key, a, b, live)
		}
		return
	}
	for _, f := range reflect.VisibleFields(a.Type()) {
		if name := keyOf(f); name != "" && name != "$schema" {
			compare(join(key, name), a.FieldByIndex(f.Index), b.FieldByIndex(f.Index), live || isLive(f), differs)
		}
	}
}

// isGroup says whether a type has keys of its own, rather than a value.
func isGroup(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != reflect.TypeFor[Duration]()
}

func isLive(f reflect.StructField) bool { return f.Tag.Get("reload") == "live" }

func join(key, name string) string { return strings.TrimPrefix(key+"."+name, ".") }

// clone keeps what runs apart from what its users might change.
func clone(c Config) Config {
	c.Volumes.Classes = maps.Clone(c.Volumes.Classes)
	c.Content.Git.AllowedSchemes = slices.Clone(c.Content.Git.AllowedSchemes)
	c.Service.Rights = slices.Clone(c.Service.Rights)
	c.Content.Egress.Deny = slices.Clone(c.Content.Egress.Deny)
	return c
}
