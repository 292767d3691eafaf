package main

import (
	"bytes"
	"encoding/json"
)

// schema is a part of a JSON schema, its keys in a fixed order.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        string             `json:"type"`
	Enum        []string           `json:"enum,omitempty"`
	Pattern     string             `json:"pattern,omitempty"`
	Minimum     int                `json:"minimum,omitempty"`
	Default     any                `json:"default,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Names       *schema            `json:"propertyNames,omitempty"`
	Required    []string           `json:"required,omitempty"`
	// Additional is false, or what the values of a map are.
	Additional any `json:"additionalProperties,omitempty"`
}

const className = `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`

// schemaOf returns the schema of the whole file.
func schemaOf(keys []key) ([]byte, error) {
	root := group(keys)
	root.Schema = "https://json-schema.org/draft/2020-12/schema"
	root.Title = "The configuration of ws-daemon"
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(root)
	return out.Bytes(), err
}

func group(keys []key) *schema {
	s := &schema{Type: "object", Properties: map[string]*schema{}, Additional: false}
	for _, k := range keys {
		s.Properties[k.name] = value(k)
		if k.required {
			s.Required = append(s.Required, k.name)
		}
	}
	return s
}

func value(k key) *schema {
	s := &schema{Type: k.kind}
	switch k.kind {
	case "object":
		s = group(k.members)
	case "map":
		s = &schema{Type: "object", Names: &schema{Type: "string", Pattern: className}, Additional: group(k.members)}
	case "array":
		if len(k.members) > 0 {
			s.Items = group(k.members)
			break
		}
		s.Items = &schema{Type: "string", Enum: k.enum}
	default:
		s.Enum = k.enum
	}
	if k.format != nil {
		s.Pattern = k.format.pattern
	}
	s.Description, s.Minimum, s.Default = k.comment, k.least, k.fallback
	return s
}
