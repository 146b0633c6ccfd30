{{/*
Names, labels and numbers.
*/}}

{{- define "keyward.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What never changes: selectors. Of dict "root" "component"; without a component: of all pods. */}}
{{- define "keyward.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* Of dict "root" "component". */}}
{{- define "keyward.labels" -}}
{{ include "keyward.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The metadata of an object, of dict "root" "name" "component" "labels" "annotations"; the last three may be missing. */}}
{{- define "keyward.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- merge (include "keyward.labels" . | fromYaml) (default (dict) .labels) .root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "keyward.hasSentinels" -}}
{{- if ne .Values.mode "standalone" }}yes{{ end -}}
{{- end -}}

{{/* The nodes pass on what clients ask that know one address. */}}
{{- define "keyward.forwards" -}}
{{- if and .Values.forwarding.enabled (include "keyward.hasSentinels" .) }}yes{{ end -}}
{{- end -}}

{{/* The Service beside the one for all clients: for reading, or for clients that know one address. Empty: there is none. */}}
{{- define "keyward.otherService" -}}
{{- if include "keyward.forwards" . -}}
{{ include "keyward.fullname" . }}-{{ eq .Values.mode "replicated" | ternary "replicas" "forwarding" }}
{{- end -}}
{{- end -}}

{{- define "keyward.nodeCount" -}}
{{- if and (ne .Values.mode "cluster") (gt (int .Values.shards) 1) -}}
{{- fail (printf "shards: mode %s has one shard; mode cluster may have more" .Values.mode) -}}
{{- end -}}
{{- if include "keyward.hasSentinels" . -}}
{{- mul .Values.shards (add 1 .Values.replicas) -}}
{{- else -}}
1
{{- end -}}
{{- end -}}

{{- define "keyward.nodes" -}}{{ include "keyward.fullname" . }}-node{{- end -}}

{{- define "keyward.sentinels" -}}{{ include "keyward.fullname" . }}-sentinel{{- end -}}

{{/* A Service's name in full, behind which those of its pods stand: dict "root" "service". */}}
{{- define "keyward.domain" -}}
{{ .service }}{{ with .root.Values.clusterDomain }}.{{ $.root.Release.Namespace }}.svc.{{ . }}{{ end }}
{{- end -}}
