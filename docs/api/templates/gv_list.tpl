{{- define "gvList" -}}
# The objects, field by field

This page is generated from `api/v1` by `make api-docs`. Defaults are filled in by the API server, and what it refuses is in
the column on the right. Conditions and their reasons are in the last section.
{{ range . }}
{{ template "gvDetails" . }}
{{- end }}
{{- end -}}
