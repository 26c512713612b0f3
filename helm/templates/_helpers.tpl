{{- /* Name of the installation, with which the names of all objects begin and by which control and `tailfill --release` find them. */}}
{{- define "tailfill.name" -}}
{{- .Values.fullnameOverride | default .Release.Name -}}
{{- end }}

{{- /* Labels that select a component's Pods. Arguments: the root and the component's name. */}}
{{- define "tailfill.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ include "tailfill.name" $root | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* Labels of the objects that Helm installs. Arguments: the root and the component's name. */}}
{{- define "tailfill.labels" -}}
{{- $root := index . 0 -}}
{{ include "tailfill.selector" . }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* Reference of one of our images. Arguments: the root and the image's name. */}}
{{- define "tailfill.image" -}}
{{- $root := index . 0 -}}
{{- $name := printf "%s/tailfill/%s" $root.Values.image.registry (index . 1) -}}
{{- $tagged := printf "%s:%s" $name ($root.Values.image.tag | default $root.Chart.AppVersion) -}}
{{- $digest := get ($root.Values.image.digests | default dict) (index . 1) -}}
{{- include "tailfill.reference" (list $root (empty $digest | ternary $tagged (printf "%s@%s" $name $digest))) -}}
{{- end }}

{{- /* Reference of any image, from `global.imageRegistry` if there is one: it replaces the host, which is what is before the first slash and has a dot or
a colon, or is localhost. Arguments: the root and the reference. */}}
{{- define "tailfill.reference" -}}
{{- $registry := get ((index . 0).Values.global | default dict) "imageRegistry" -}}
{{- $path := regexReplaceAll "^(localhost|[^/]*[.:][^/]*)/" (index . 1) "" -}}
{{- empty $registry | ternary (index . 1) (printf "%s/%s" $registry $path) -}}
{{- end }}

{{- /* The study as JSON, since YAML would have 1e-05, which other readers take for a string. */}}
{{- define "tailfill.study" -}}
{{- .Values.study | default (.Files.Get "files/demo-study.yaml" | fromYaml) | toJson -}}
{{- end }}

{{- /* Digest of the study and of `data.revision`, by which control and NOTES tell the Jobs of this study from those of an earlier one. */}}
{{- define "tailfill.studyDigest" -}}
{{- printf "%d %s" (int .Values.data.revision) (include "tailfill.study" .) | sha256sum | trunc 16 -}}
{{- end }}

{{- define "tailfill.studyConfigMap" -}}
{{ include "tailfill.name" . }}-study-{{ include "tailfill.study" . | sha256sum | trunc 8 }}
{{- end }}

{{- define "tailfill.credentials" -}}
{{ include "tailfill.name" . }}-credentials
{{- end }}

{{- /* The S3 server that the chart installs: `minio`, `seaweedfs`, or nothing if the store is elsewhere. */}}
{{- define "tailfill.ownStore" -}}
{{- if .Values.minio.enabled -}}minio{{- else if and .Values.seaweedfs.enabled (not .Values.s3.store) -}}seaweedfs{{- end -}}
{{- end }}

{{- /* Name of the Secret with the keys for S3; empty if the Pods use a role instead. */}}
{{- define "tailfill.s3Secret" -}}
{{ .Values.s3.existingSecret | default (empty (include "tailfill.ownStore" .) | ternary "" (include "tailfill.credentials" .)) }}
{{- end }}

{{- define "tailfill.databaseSecret" -}}
{{ .Values.database.existingSecret | default (include "tailfill.credentials" .) }}
{{- end }}

{{- /* An environment variable from a Secret. Arguments: the variable, the Secret and the key, if it is not the variable's name. */}}
{{- define "tailfill.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom: {secretKeyRef: {name: {{ index . 1 | quote }}, key: {{ gt (len .) 2 | ternary (last .) (first .) | quote }}}}
{{- end }}

{{- /* Name of a service account. Arguments: the root, and `control` or `stage`. */}}
{{- define "tailfill.account" -}}
{{- $account := (index . 0).Values.serviceAccount -}}
{{- get (get $account (index . 1)) "name" | default (printf "%s-%s" (include "tailfill.name" (index . 0)) (index . 1)) -}}
{{- end }}

{{- /* Fails if values contradict each other; values.schema.json says what each may be. */}}
{{- define "tailfill.check" -}}
{{- if gt (len (include "tailfill.name" .)) 40 }}
{{- fail (printf "the release's name %q is longer than 40 characters, which the names of its Jobs have no room for" (include "tailfill.name" .)) }}
{{- end }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "tailfill.name" .)) }}
{{- fail (printf "the release's name %q must begin with a letter and hold only small letters, digits and hyphens within: Services are named after it" (include "tailfill.name" .)) }}
{{- end }}
{{- with .Values }}
{{- if not .image.registry }}
{{- fail "image.registry is empty, so that images would come from whoever is `tailfill` on Docker Hub: name your registry, or localhost (the default) for images that were loaded into the nodes" }}
{{- end }}
{{- if not (or .serviceAccount.create (and .serviceAccount.control.name .serviceAccount.stage.name)) }}
{{- fail "serviceAccount.create=false needs the names of accounts that exist: serviceAccount.control.name and serviceAccount.stage.name" }}
{{- end }}
{{- if and .serviceAccount.create .serviceAccount.control.name (eq .serviceAccount.control.name .serviceAccount.stage.name) }}
{{- fail "serviceAccount.control.name and serviceAccount.stage.name are the same: stages need no rights, so name two accounts" }}
{{- end }}
{{- range $part, $values := dict "s3" .s3 "database" .database }}
{{- if and $values.caSecret $values.caConfigMap }}
{{- fail (printf "%s.caSecret and %s.caConfigMap both name a certificate authority: remove one, or join the two in one file" $part $part) }}
{{- end }}
{{- end }}
{{- if and .postgresql.enabled (or .database.caSecret .database.caConfigMap .database.clientSecret) }}
{{- fail "database.caSecret, database.caConfigMap and database.clientSecret are for a server of yours, since the chart's own PostgreSQL has no TLS: set postgresql.enabled=false, or remove them" }}
{{- end }}
{{- if and .minio.enabled .s3.endpoint }}
{{- fail "s3.endpoint names another server than the chart's own MinIO: set minio.enabled=false" }}
{{- end }}
{{- if and .s3.endpoint (not .s3.store) }}
{{- fail "s3.endpoint names a server of yours: name its bucket too, in s3.store (s3://bucket/prefix)" }}
{{- end }}
{{- if not (or (include "tailfill.ownStore" $) .s3.store) }}
{{- fail "seaweedfs.enabled=false needs s3.store (s3://bucket/prefix) and s3.existingSecret (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or a role (serviceAccount.annotations), or minio.enabled=true" }}
{{- end }}
{{- if not (or .postgresql.enabled .database.existingSecret) }}
{{- fail "postgresql.enabled=false needs database.existingSecret (DATABASE_URL) and, if its key has another name, database.secretKey" }}
{{- end }}
{{- end }}
{{- include "tailfill.checkStore" . }}
{{- end }}

{{- /*
Fails if the release has an S3 server that these values would not use, since its results would seem to be gone: the StatefulSet of an installed
one, or the claim of one that was uninstalled. An upgrade from a chart whose only server was MinIO is such a case. Without a cluster, nothing is found.
*/}}
{{- define "tailfill.checkStore" -}}
{{- $root := . -}}
{{- $own := include "tailfill.ownStore" . -}}
{{- range $other := without (list "minio" "seaweedfs") $own -}}
{{- $name := printf "%s-%s" (include "tailfill.name" $root) $other -}}
{{- $claim := printf "data-%s-0" $name -}}
{{- $installed := lookup "apps/v1" "StatefulSet" $root.Release.Namespace $name -}}
{{- $kept := lookup "v1" "PersistentVolumeClaim" $root.Release.Namespace $claim -}}
{{- $remedy := eq $other "minio" | ternary "set minio.enabled=true" (empty $own | ternary "remove s3.store" "remove minio.enabled=true") -}}
{{- if and $installed (not $root.Values.s3.endpoint) -}}
{{- fail (printf "StatefulSet %s: holds the results of this release, which these values would leave behind: %s to keep it; or, if you no longer need them, delete it and its claim %s" $name $remedy $claim) -}}
{{- else if and $kept $own -}}
{{- fail (printf "PersistentVolumeClaim %s: holds the results of an earlier release of this name, which these values would leave behind: %s to continue with them; or, if you no longer need them, delete it" $claim $remedy) -}}
{{- end -}}
{{- end -}}
{{- end }}
