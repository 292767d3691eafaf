package config

import _ "embed"

// schema is generated from the types by hack/reference.
//
//go:embed schema.json
var schema []byte

// Schema returns the JSON schema of the configuration, for editors. What it takes may still have contradictions.
func Schema() []byte { return schema }
