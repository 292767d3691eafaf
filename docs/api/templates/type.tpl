{{- define "type" -}}
{{- $type := . -}}
{{- if markdownShouldRenderType $type }}
## {{ $type.Name }}

{{ $type.Doc }}
{{ if $type.IsAlias }}
A {{ markdownRenderTypeLink $type.UnderlyingType }}.
{{ end }}
{{- if $type.References }}
Used in:
{{- range $i, $reference := $type.SortedReferences }}{{ if $i }},{{ end }} {{ markdownRenderTypeLink $reference }}{{ end }}.
{{ end }}
{{- if $type.Validation }}
Valid only if:
{{ range $type.Validation }}
- {{ . }}
{{- end }}
{{ end }}
{{- if $type.Members }}
| Field | Meaning | Default | Validation |
|---|---|---|---|
{{- range $type.Members }}
{{- if ne .Name "metadata" }}
| `{{ .Name }}` _{{ markdownRenderType .Type }}_ | {{ template "type_members" . }} | {{ markdownRenderDefault .Default }} | {{ range $i, $rule := .Validation }}{{ if $i }}<br>{{ end }}{{ if eq $rule "Optional: {}" }}optional{{ else }}{{ $rule | replace "|" "\\|" }}{{ end }}{{ end }} |
{{- end }}
{{- end }}
{{ end }}
{{- if $type.EnumValues }}
| Value | Meaning |
|---|---|
{{- range $type.EnumValues }}
| `{{ .Name }}` | {{ .Doc | trim | replace "\n" " " }} |
{{- end }}
{{ end }}
{{- end -}}
{{- end -}}
