package client

import (
	"encoding/base64"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// plain returns a message as JSON shall have it, for scripts: every field is there but messages that are absent, names are those of
// the definition in camel case, numbers are numbers, times are of RFC 3339, durations are seconds, and constants are written as in
// the objects (Running). Bytes are text; if they are none, the field has the suffix Base64 and that.
func plain(m proto.Message) any {
	switch known := m.(type) {
	case *timestamppb.Timestamp:
		return known.AsTime().UTC().Format(time.RFC3339Nano)
	case *durationpb.Duration:
		return known.AsDuration().Seconds()
	}
	fields := map[string]any{}
	message := m.ProtoReflect()
	all := message.Descriptor().Fields()
	for i := range all.Len() {
		field := all.Get(i)
		name := field.JSONName()
		switch {
		case field.IsList():
			fields[name] = plainList(field, message.Get(field).List())
		case field.Kind() == protoreflect.MessageKind && !message.Has(field):
		case field.Kind() == protoreflect.BytesKind && !utf8.Valid(message.Get(field).Bytes()):
			fields[name+"Base64"] = base64.StdEncoding.EncodeToString(message.Get(field).Bytes())
		default:
			fields[name] = plainValue(field, message.Get(field))
		}
	}
	return fields
}

func plainList(field protoreflect.FieldDescriptor, list protoreflect.List) []any {
	values := make([]any, 0, list.Len())
	for i := range list.Len() {
		values = append(values, plainValue(field, list.Get(i)))
	}
	return values
}

func plainValue(field protoreflect.FieldDescriptor, value protoreflect.Value) any {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return plain(value.Message().Interface())
	case protoreflect.EnumKind:
		return constant(field.Enum(), value.Enum())
	case protoreflect.BytesKind:
		return string(value.Bytes())
	default:
		return value.Interface()
	}
}

// constant is the name of a constant as the objects write it; empty if none is given.
func constant(kind protoreflect.EnumDescriptor, number protoreflect.EnumNumber) string {
	value := kind.Values().ByNumber(number)
	if value == nil || number == 0 {
		return ""
	}
	// The first one ends in UNSPECIFIED, after the prefix that all have.
	prefix := strings.TrimSuffix(string(kind.Values().ByNumber(0).Name()), "UNSPECIFIED")
	var name strings.Builder
	for word := range strings.SplitSeq(strings.TrimPrefix(string(value.Name()), prefix), "_") {
		name.WriteString(word[:1] + strings.ToLower(word[1:]))
	}
	return name.String()
}
