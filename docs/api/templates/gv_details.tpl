{{- define "gvDetails" -}}
{{- $gv := . -}}
API version `{{ $gv.GroupVersionString }}`; objects:
{{ range $gv.SortedKinds }}
- [{{ . }}](#{{ lower . }})
{{- end }}
{{ range $gv.SortedKinds }}
{{- template "type" ($gv.TypeForKind .) }}
{{- end }}
{{- range $gv.SortedTypes }}
{{- if not .GVK }}{{ template "type" . }}{{ end }}
{{- end }}
{{- end -}}
