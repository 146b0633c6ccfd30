{{/*
Secrets and certificates: which there are, and what is in the chart's own.
*/}}

{{- define "keyward.tlsSecret" -}}
{{- if .Values.tls.existingSecret -}}
{{- .Values.tls.existingSecret -}}
{{- else if .Values.tls.certManager.enabled -}}
{{- include "keyward.fullname" . }}-tls
{{- else -}}
{{- fail "tls.enabled needs a certificate: tls.existingSecret, or tls.certManager.enabled" -}}
{{- end -}}
{{- end -}}

{{/* Name and key of the two secrets, as "NAME/KEY". */}}
{{- define "keyward.passwordRef" -}}
{{- if .Values.auth.existingSecret -}}
{{ .Values.auth.existingSecret }}/{{ .Values.auth.existingSecretPasswordKey }}
{{- else -}}
{{ include "keyward.fullname" . }}/password
{{- end -}}
{{- end -}}

{{- define "keyward.clusterSecretRef" -}}
{{- if .Values.clusterSecret.existingSecret -}}
{{ .Values.clusterSecret.existingSecret }}/{{ .Values.clusterSecret.existingSecretKey }}
{{- else -}}
{{ include "keyward.fullname" . }}/cluster-secret
{{- end -}}
{{- end -}}

{{/* A source of a projected volume: dict "ref" "path". */}}
{{- define "keyward.secretSource" -}}
{{- $words := splitList "/" .ref -}}
- secret:
    name: {{ first $words }}
    items:
      - key: {{ last $words }}
        path: {{ .path }}
{{- end -}}

{{/*
The chart's own Secret, settled once for each rendering: `password`, `clusterSecret`, `revision` (rises with each change of
the password, since nodes read it when they start), and `unkept` if no API could be asked for what there is already.
*/}}
{{- define "keyward.settleSecrets" -}}
{{- if not (hasKey .Values "_secrets") -}}
{{- $name := include "keyward.fullname" . -}}
{{- $old := lookup "v1" "Secret" .Release.Namespace $name | default dict -}}
{{- $data := $old.data | default dict -}}
{{- $was := get $data "password" | b64dec -}}
{{- $password := .Values.auth.password | default $was -}}
{{- $clusterSecret := .Values.clusterSecret.value | default (get $data "cluster-secret" | b64dec) -}}
{{- $revision := get (($old.metadata | default dict).annotations | default dict) "keyward/password-revision" | default "1" | int -}}
{{- if and $was (ne $was $password) -}}{{- $revision = add1 $revision -}}{{- end -}}
{{- $makesPassword := and .Values.auth.enabled (not .Values.auth.existingSecret) (not $password) -}}
{{- $makesSecret := and (include "keyward.hasSentinels" .) (not .Values.clusterSecret.existingSecret) (not $clusterSecret) -}}
{{- $unkept := false -}}
{{- if or $makesPassword $makesSecret -}}
{{- /* Whoever may install a release may list Secrets: Helm keeps releases in them. Nothing comes back without an API. */ -}}
{{- $unkept = not (lookup "v1" "Secret" .Release.Namespace "") -}}
{{- end -}}
{{- $_ := set .Values "_secrets" (dict
  "password" ($password | default (randAlphaNum 32))
  "clusterSecret" ($clusterSecret | default (randAlphaNum 64))
  "revision" (toString $revision)
  "unkept" $unkept) -}}
{{- end -}}
{{- end -}}

{{/* What subcommands of keyward-sentinel need to be let in, a word on each line, behind an empty one. */}}
{{- define "keyward.operatorFlags" -}}
{{- if .Values.tls.enabled }}
{{- if .Values.tls.bus }}
--tls-cluster
yes
{{- end }}
--tls-cert-file
/etc/keyward/tls/tls.crt
--tls-key-file
/etc/keyward/tls/tls.key
--tls-ca-cert-file
/etc/keyward/tls/ca.crt
{{- end }}
{{- end -}}
