{{- /*
Merges a value into what the chart renders: mappings deeply, and lists as Kubernetes does. An entry of `containers` or `initContainers` is merged into
the one of its name; another entry replaces the one of its name (of its mountPath in volumeMounts), or else is appended. null removes a key.
Arguments: what the chart renders, and the value. Returns JSON.
*/}}
{{- define "tailfill.merged" -}}
{{- $merged := deepCopy (index . 0) -}}
{{- range $key, $value := index . 1 -}}
{{- $old := get $merged $key -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $merged $key -}}
{{- else if and (kindIs "map" $value) (kindIs "map" $old) -}}
{{- $_ := set $merged $key (include "tailfill.merged" (list $old $value) | fromJson) -}}
{{- else if and (kindIs "slice" $value) (kindIs "slice" $old) -}}
{{- $_ := set $merged $key (include "tailfill.appended" (list $key $old $value) | fromJsonArray) -}}
{{- else -}}
{{- $_ := set $merged $key $value -}}
{{- end -}}
{{- end -}}
{{- toJson $merged -}}
{{- end }}

{{- /* Arguments: the key of a list, the list, and another one to append. Returns JSON. */}}
{{- define "tailfill.appended" -}}
{{- $key := index . 0 -}}
{{- $by := eq $key "volumeMounts" | ternary "mountPath" "name" -}}
{{- $appended := index . 1 -}}
{{- range $entry := index . 2 -}}
{{- $entries := list -}}
{{- $found := false -}}
{{- range $old := $appended -}}
{{- if and (kindIs "map" $entry) (kindIs "map" $old) (hasKey $entry $by) (eq (toString (get $entry $by)) (toString (get $old $by))) -}}
{{- $found = true -}}
{{- $old = has $key (list "containers" "initContainers") | ternary (include "tailfill.merged" (list $old $entry) | fromJson) $entry -}}
{{- end -}}
{{- $entries = append $entries $old -}}
{{- end -}}
{{- $appended = $found | ternary $entries (append $entries $entry) -}}
{{- end -}}
{{- toJson $appended -}}
{{- end }}

{{- /* Labels and annotations with those of a value. Arguments: metadata as the chart renders it, the value, and its name. Returns YAML. */}}
{{- define "tailfill.metadata" -}}
{{- $metadata := index . 0 -}}
{{- $name := index . 2 -}}
{{- range $kind, $own := index . 1 -}}
{{- range $key, $_ := $own -}}
{{- if or (hasPrefix "tailfill/" $key) (hasKey (get $metadata $kind | default dict) $key) -}}
{{- fail (printf "%s.%s: the chart itself sets %s; remove it" $name $kind $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "tailfill.merged" (list $metadata (index . 1 | default dict)) | fromJson | toYaml -}}
{{- end }}

{{- /*
A Pod's template with the values `podMetadata`, `podSpec` and `env` of its role, if what the chart relies on stays. Arguments: the template as the
chart renders it, the role's values, and their name. Returns YAML.
*/}}
{{- define "tailfill.podTemplate" -}}
{{- $template := index . 0 -}}
{{- $values := index . 1 -}}
{{- $name := index . 2 -}}
{{- $main := first $template.spec.containers -}}
{{- $env := list -}}
{{- range $main.env }}{{ $env = append $env .name }}{{ end -}}
{{- $more := $values.podSpec | default dict -}}
{{- with $values.env -}}
{{- $more = include "tailfill.merged" (list (dict "containers" (list (dict "name" $main.name "env" .))) $more) | fromJson -}}
{{- end -}}
{{- range $key := list "restartPolicy" "terminationGracePeriodSeconds" -}}
{{- if and (hasKey $more $key) (hasKey $template.spec $key) (eq $main.name "main") -}}
{{- fail (printf "%s.podSpec.%s: the chart itself sets it%s; remove it" $name $key (hasPrefix "term" $key | ternary (printf " by %s.%s" $name $key) "")) -}}
{{- end -}}
{{- end -}}
{{- range $more.volumes -}}
{{- if has .name (list "task" "study" "stages") -}}
{{- fail (printf "%s.podSpec.volumes: the chart itself has a volume %s; choose another name" $name .name) -}}
{{- end -}}
{{- end -}}
{{- $known := list -}}
{{- range $template.spec.containers }}{{ $known = append $known .name }}{{ end -}}
{{- range $more.containers -}}
{{- if not (or .image (has .name $known)) -}}
{{- fail (printf "%s.podSpec.containers: %s has no image; the chart's own container is %s" $name .name $main.name) -}}
{{- end -}}
{{- if eq .name "main" -}}
{{- if hasKey . "args" -}}
{{- fail (printf "%s.podSpec.containers: the chart itself sets the args of the container main; remove them" $name) -}}
{{- end -}}
{{- range .volumeMounts -}}
{{- if hasPrefix "/etc/tailfill" .mountPath -}}
{{- fail (printf "%s.podSpec.containers: the chart itself mounts files below /etc/tailfill; choose another mountPath than %s" $name .mountPath) -}}
{{- end -}}
{{- end -}}
{{- range .env -}}
{{- if and (hasPrefix "TAILFILL_" .name) (has .name $env) -}}
{{- fail (printf "%s: the chart itself sets the variable %s; remove it" $name .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- dict
  "metadata" (include "tailfill.metadata" (list $template.metadata $values.podMetadata (printf "%s.podMetadata" $name)) | fromYaml)
  "spec" (include "tailfill.merged" (list $template.spec $more) | fromJson)
| toYaml -}}
{{- end }}
