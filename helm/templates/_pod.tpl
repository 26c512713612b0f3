{{- /*
Security context of every Pod of ours, which satisfies the Pod Security Standard "restricted". Arguments: the root, and a dict with the key
`user` if the image must run as a user of its own. If `podSecurity.runAsUser` is null, no user is set, since the cluster assigns one.
*/}}
{{- define "tailfill.podSecurity" -}}
{{- $root := index . 0 -}}
{{- $user := $root.Values.podSecurity.runAsUser -}}
runAsNonRoot: true
{{- if $user }}
{{- $user = int64 (get (index . 1) "user" | default $user) }}
runAsUser: {{ $user }}
runAsGroup: {{ $user }}
fsGroup: {{ $user }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch # else each start would change the owner of all files, which takes long on a large volume
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tailfill.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Settings that decide on which node a Pod runs. Argument: the part of the values that has them. */}}
{{- define "tailfill.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{- /* Environment variables of control and of every stage: the store, and the folders for temporary files. */}}
{{- define "tailfill.env" -}}
- {name: TAILFILL_STORE, value: {{ .Values.s3.store | default "s3://tailfill" | quote }}}
{{- if .Values.minio.enabled }}
- {name: AWS_ENDPOINT_URL_S3, value: "http://{{ .Release.Name }}-minio:9000"}
{{- else if .Values.s3.endpoint }}
- {name: AWS_ENDPOINT_URL_S3, value: {{ .Values.s3.endpoint | quote }}}
{{- end }}
- {name: AWS_REGION, value: {{ .Values.s3.region | quote }}}
{{- with include "tailfill.s3Secret" . }}
{{ include "tailfill.secretEnv" (list "AWS_ACCESS_KEY_ID" .) }}
{{ include "tailfill.secretEnv" (list "AWS_SECRET_ACCESS_KEY" .) }}
{{- if not $.Values.minio.enabled }}
- name: AWS_SESSION_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: AWS_SESSION_TOKEN, optional: true}}
{{- end }}
{{- end }}
{{- if .Values.s3.caSecret }}
- {name: AWS_CA_BUNDLE, value: /etc/tailfill/ca/ca.crt}
{{- end }}
- {name: TAILFILL_CACHE, value: /cache}
- {name: TMPDIR, value: /tmp}
- {name: HOME, value: /tmp}
{{- end }}

{{- /* Environment variables of the database, for the components that need it. */}}
{{- define "tailfill.databaseEnv" -}}
{{- if .Values.postgresql.enabled -}}
{{ include "tailfill.secretEnv" (list "POSTGRES_PASSWORD" (include "tailfill.databaseSecret" .)) }}
- {name: DATABASE_URL, value: "postgresql://tailfill:$(POSTGRES_PASSWORD)@{{ .Release.Name }}-postgresql:5432/tailfill"}
{{- else -}}
{{ include "tailfill.secretEnv" (list "DATABASE_URL" .Values.database.existingSecret) }}
{{- end }}
{{- end }}

{{- /* Volume mounts of control and of every stage: temporary files, and the certificate authority of your own S3 server. */}}
{{- define "tailfill.mounts" -}}
- {name: cache, mountPath: /cache}
- {name: tmp, mountPath: /tmp}
{{- if .Values.s3.caSecret }}
- {name: ca, mountPath: /etc/tailfill/ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "tailfill.volumes" -}}
- {name: cache, emptyDir: {}}
- {name: tmp, emptyDir: {}}
{{- with .Values.s3.caSecret }}
- {name: ca, secret: {secretName: {{ . | quote }}, items: [{key: ca.crt, path: ca.crt}]}}
{{- end }}
{{- end }}

{{- define "tailfill.dataMount" -}}
{{- with .Values.data }}{{ if .claim }}
- {name: data, mountPath: {{ .mountPath | quote }}, readOnly: {{ .readOnly }}}
{{- end }}{{ end }}
{{- end }}

{{- define "tailfill.dataVolume" -}}
{{- with .Values.data }}{{ if .claim }}
- {name: data, persistentVolumeClaim: {claimName: {{ .claim | quote }}, readOnly: {{ .readOnly }}}}
{{- end }}{{ end }}
{{- end }}

{{- define "tailfill.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Template of a StatefulSet's PersistentVolumeClaim. Arguments: the root, the component and its `storage`. Kubernetes lets no upgrade change it, so its
labels must stay as they are. */}}
{{- define "tailfill.claim" -}}
{{- $storage := index . 2 -}}
metadata:
  name: data
  labels: {{- include "tailfill.selector" . | nindent 4 }}
spec:
  accessModes: [ReadWriteOnce]
  {{- with $storage.className }}
  storageClassName: {{ . | quote }}
  {{- end }}
  resources: {requests: {storage: {{ $storage.size }}}}
{{- end }}
