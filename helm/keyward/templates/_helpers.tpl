{{/*
Names, labels, conf files and what pods have in common. A component is "node" or "sentinel".
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

{{- define "keyward.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "keyward.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "keyward.image" -}}
{{- with .Values.image -}}
{{- with .registry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* "yes", or nothing. */}}
{{- define "keyward.onOpenshift" -}}
{{- if eq (toString .Values.openshift) "auto" -}}
{{- if .Capabilities.APIVersions.Has "security.openshift.io/v1" }}yes{{ end -}}
{{- else if eq (toString .Values.openshift) "true" -}}
yes
{{- end -}}
{{- end -}}

{{/* A security context, of dict "root" "context": without what OpenShift chooses by itself. */}}
{{- define "keyward.securityContext" -}}
{{- $context := .context -}}
{{- if include "keyward.onOpenshift" .root -}}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" "fsGroupChangePolicy" "supplementalGroups" "seLinuxOptions" -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{/* Bytes of a quantity such as 1Gi or 500M; dict "quantity" "name". */}}
{{- define "keyward.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $text := kindIs "float64" .quantity | ternary (.quantity | int64 | toString) (toString .quantity) -}}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$" $text) -}}
{{- fail (printf "%s: %q is no amount of memory, such as 512Mi or 2Gi" .name $text) -}}
{{- end -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text -}}
{{- mulf (float64 $number) (get $units (trimPrefix $number $text)) | int64 -}}
{{- end -}}

{{/* Lines of a conf file from a map or a text; dict "config". */}}
{{- define "keyward.confLines" -}}
{{- if kindIs "string" .config -}}
{{- trim .config -}}
{{- else -}}
{{- $lines := list -}}
{{- range $name, $given := .config -}}
{{- range kindIs "slice" $given | ternary $given (list $given) -}}
{{- $value := toString . -}}
{{- if kindIs "bool" . -}}{{- $value = ternary "yes" "no" . -}}{{- end -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{- $value = int64 . | toString -}}{{- end -}}
{{- $lines = append $lines (printf "%s %s" $name (default "\"\"" $value)) -}}
{{- end -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- end -}}
{{- end -}}

{{/* Fails if a conf file sets what the chart has a value for, or what it could not work with; dict "lines" "where" "own". */}}
{{- define "keyward.checkConf" -}}
{{- $instead := dict
  "requirepass" "auth.password or auth.existingSecret, as everybody may read a ConfigMap" "requirepass-file" "auth.existingSecret"
  "cluster-secret-file" "clusterSecret.existingSecret" "cluster-enabled" "mode" "shards" "shards" "replicas" "replicas"
  "primary-name" "sentinel.primarySet" "announce-hostnames" "useHostnames" "cluster-preferred-endpoint-type" "useHostnames"
  "port" "service.port" "http-port" "page.enabled" -}}
{{- range splitList "\n" .lines -}}
{{- $name := lower (first (append (regexSplit "\\s+" (trim .) -1) "")) -}}
{{- if and $name (has $name $.own) -}}
{{- fail (printf "%s: %s is set by the chart%s" $.where $name (hasKey $instead $name | ternary (printf ": use %s" (get $instead $name)) "")) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Directives for certificates, the same for both programs. */}}
{{- define "keyward.tlsConf" -}}
tls-cert-file /etc/keyward/tls/tls.crt
tls-key-file /etc/keyward/tls/tls.key
tls-ca-cert-file /etc/keyward/tls/ca.crt
tls-auth-clients {{ .Values.tls.authClients }}
tls-auto-reload-interval 60
{{- if and .Values.tls.bus (include "keyward.hasSentinels" .) }}
tls-cluster yes
{{- end }}
{{- end -}}

{{/* The sentinels' bus addresses; dict "root" "named": whether names stand before them. */}}
{{- define "keyward.busAddresses" -}}
{{- $name := include "keyward.sentinels" .root -}}
{{- $domain := include "keyward.domain" (dict "root" .root "service" (printf "%ss" $name)) -}}
{{- $addresses := list -}}
{{- range $i := until (int .root.Values.sentinels) -}}
{{- $pod := printf "%s-%d" $name $i -}}
{{- $addresses = append $addresses (printf "%s%s.%s:36379" ($.named | ternary (printf "%s=" $pod) "") $pod $domain) -}}
{{- end -}}
{{- join "," $addresses -}}
{{- end -}}

{{- define "keyward.useHostnames" -}}
{{- if kindIs "bool" .Values.useHostnames -}}
{{- if .Values.useHostnames }}yes{{ end -}}
{{- else if .Values.tls.enabled -}}
yes
{{- end -}}
{{- end -}}

{{- define "keyward.nodeConf" -}}
{{- $own := list "port" "tls-port" "bus-port" "metrics-port" "dir" "sentinels" "cluster-enabled" "requirepass" "requirepass-file"
  "cluster-secret-file" "cluster-announce-ip" "cluster-announce-hostname" "cluster-preferred-endpoint-type" "tls-cert-file"
  "tls-key-file" "tls-ca-cert-file" "tls-cluster" "zone" "daemonize" "pidfile" "supervised" -}}
{{- $more := include "keyward.confLines" (dict "config" .Values.config) -}}
{{- include "keyward.checkConf" (dict "lines" $more "where" "config" "own" $own) -}}
# Made by the chart. What is in `config` stands at the end, and wins.
dir /data
{{- if .Values.tls.enabled }}
port 0
tls-port 6379
bus-port 16379
{{ include "keyward.tlsConf" . }}
{{- else }}
port 6379
{{- end }}
metrics-port 9121
{{- if .Values.auth.enabled }}
requirepass-file /etc/keyward/secrets/password
{{- else }}
protected-mode no
{{- end }}
appendonly {{ .Values.persistence.enabled | ternary "yes" "no" }}
save ""
{{- with (.Values.resources.limits | default dict).memory }}
{{- $bytes := include "keyward.bytes" (dict "quantity" . "name" "resources.limits.memory") | int64 }}
# Of a limit of {{ . }}.
maxmemory {{ mulf $bytes $.Values.maxmemoryFraction | int64 }}
repl-backlog-size {{ min 268435456 (div $bytes 8) }}
{{- end }}
{{- if include "keyward.hasSentinels" . }}
cluster-enabled {{ eq .Values.mode "cluster" | ternary "yes" "no" }}
cluster-preferred-endpoint-type {{ empty (include "keyward.useHostnames" .) | ternary "ip" "hostname" }}
sentinels {{ include "keyward.busAddresses" (dict "root" . "named" false) }}
# Half of the shard's nodes, and not of those that it has had: who comes without a volume comes as another node.
min-in-sync {{ div (add .Values.replicas 2) 2 }}
{{- end }}
{{- with $more }}
{{ . }}
{{- end }}
{{- end -}}

{{- define "keyward.sentinelConf" -}}
{{- $own := list "port" "tls-port" "bus-port" "metrics-port" "http-port" "dir" "name" "initial" "announce-host" "announce-hostnames"
  "shards" "replicas" "primary-name" "cluster-secret-file" "tls-cert-file" "tls-key-file" "tls-ca-cert-file" "tls-cluster" -}}
{{- $more := include "keyward.confLines" (dict "config" .Values.sentinel.config) -}}
{{- include "keyward.checkConf" (dict "lines" $more "where" "sentinel.config" "own" $own) -}}
# Made by the chart. What is in `sentinel.config` stands at the end, and wins.
dir /data
{{- if .Values.tls.enabled }}
port 0
tls-port 26379
{{ include "keyward.tlsConf" . }}
{{- else }}
port 26379
{{- end }}
bus-port 36379
metrics-port 9121
{{- if .Values.page.enabled }}
http-port 8080
{{- end }}
initial {{ include "keyward.busAddresses" (dict "root" . "named" true) }}
shards {{ .Values.shards }}
replicas {{ .Values.replicas }}
primary-name {{ .Values.sentinel.primarySet }}
announce-hostnames {{ default "no" (include "keyward.useHostnames" .) }}
{{- with $more }}
{{ . }}
{{- end }}
{{- end -}}

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

{{/* A variable with a field of the pod; dict "name" "field". */}}
{{- define "keyward.fieldVariable" -}}
- name: {{ .name }}
  valueFrom: {fieldRef: {fieldPath: {{ quote .field }}}}
{{- end -}}

{{/* What the nodes take for their zone, as the path of a field; nothing for "none". */}}
{{- define "keyward.zoneField" -}}
{{- $from := .Values.zone -}}
{{- if eq $from "auto" -}}
{{- $from = semverCompare ">=1.35.0-0" .Capabilities.KubeVersion.Version | ternary "label" "node" -}}
{{- end -}}
{{- if eq $from "label" -}}
metadata.labels['topology.kubernetes.io/zone']
{{- else if eq $from "node" -}}
spec.nodeName
{{- end -}}
{{- end -}}

{{/* A probe; dict "probe" "path". */}}
{{- define "keyward.probe" -}}
{{- merge (dict "httpGet" (dict "path" .path "port" "metrics")) .probe | toYaml -}}
{{- end -}}

{{/*
A StatefulSet: the same for both components but for what is given.
dict "root" "component" "name" "replicas" "values" (resources, persistence, pod labels ...) "args" "fields" (of the pod, by the
names of variables) "ports" "annotations"
*/}}
{{- define "keyward.statefulSet" -}}
{{- $root := .root -}}
{{- $selector := include "keyward.selector" (dict "root" $root "component" .component) -}}
{{- $old := lookup "apps/v1" "StatefulSet" $root.Release.Namespace .name | default dict -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "keyward.metadata" (dict "root" $root "component" .component "name" .name) | nindent 2 }}
spec:
  replicas: {{ .replicas }}
  serviceName: {{ .name }}s
  # All at once: after an outage each of them may need the others to become ready.
  podManagementPolicy: Parallel
  updateStrategy:
    type: RollingUpdate
  minReadySeconds: {{ $root.Values.minReadySeconds }}
  selector:
    matchLabels:
      {{- $selector | nindent 6 }}
  template:
    metadata:
      labels:
        {{- merge (dict) ($selector | fromYaml) .values.podLabels $root.Values.commonLabels | toYaml | nindent 8 }}
      annotations:
        {{- merge (dict) .annotations .values.podAnnotations $root.Values.commonAnnotations | toYaml | nindent 8 }}
    spec:
      serviceAccountName: {{ include "keyward.serviceAccount" $root }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with $root.Values.image.pullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . }}
        {{- end }}
      {{- end }}
      {{- with $root.Values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $root.Values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with include "keyward.affinity" (dict "root" $root "selector" $selector) }}
      affinity:
        {{- . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        {{- if $root.Values.topologySpreadConstraints }}
        {{- toYaml $root.Values.topologySpreadConstraints | nindent 8 }}
        {{- else }}
        - topologyKey: topology.kubernetes.io/zone
          maxSkew: 1
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- $selector | nindent 14 }}
        {{- end }}
      terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds }}
      securityContext:
        {{- include "keyward.securityContext" (dict "root" $root "context" $root.Values.podSecurityContext) | nindent 8 }}
      {{- with .values.initContainers }}
      initContainers:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ include "keyward.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command: [/keyward-{{ .component }}]
          args:
            - /etc/keyward/conf/keyward.conf
            {{- range .args }}
            - {{ . | quote }}
            {{- end }}
          {{- if or .fields (include "keyward.hasSentinels" $root) .values.extraEnvVars }}
          env:
            {{- range $name, $field := .fields }}
            {{- include "keyward.fieldVariable" (dict "name" $name "field" $field) | nindent 12 }}
            {{- end }}
            {{- if include "keyward.hasSentinels" $root }}
            # By the environment, so that `keyward-sentinel status` knows it in a shell of this container, too.
            - name: KEYWARD_CLUSTER_SECRET_FILE
              value: /etc/keyward/secrets/cluster-secret
            {{- end }}
            {{- with .values.extraEnvVars }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- end }}
          ports:
            {{- range $name, $port := .ports }}
            - name: {{ $name }}
              containerPort: {{ $port }}
            {{- end }}
          startupProbe:
            {{- include "keyward.probe" (dict "probe" $root.Values.startupProbe "path" "/healthz") | nindent 12 }}
          livenessProbe:
            {{- include "keyward.probe" (dict "probe" $root.Values.livenessProbe "path" "/healthz") | nindent 12 }}
          readinessProbe:
            {{- include "keyward.probe" (dict "probe" $root.Values.readinessProbe "path" "/readyz") | nindent 12 }}
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            {{- include "keyward.securityContext" (dict "root" $root "context" $root.Values.containerSecurityContext) | nindent 12 }}
          volumeMounts:
            - name: data
              mountPath: /data
            {{- include "keyward.mounts" $root | nindent 12 }}
            {{- with .values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
        {{- with .values.sidecars }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      volumes:
        - name: conf
          configMap:
            name: {{ .name }}
        {{- with include "keyward.volumes" $root }}
        {{- . | trim | nindent 8 }}
        {{- end }}
        {{- if not .values.persistence.enabled }}
        - name: data
          emptyDir: {}
        {{- end }}
        {{- with .values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  {{- with include "keyward.volumeClaims" (dict "name" .name "persistence" .values.persistence "old" $old) }}
  volumeClaimTemplates:
    {{- . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Where conf file, secrets and certificates are. */}}
{{- define "keyward.mounts" -}}
- name: conf
  mountPath: /etc/keyward/conf
  readOnly: true
{{- include "keyward.secretMounts" . }}
{{- end -}}

{{- define "keyward.secretMounts" -}}
{{- if include "keyward.projectsSecrets" . }}
- name: secrets
  mountPath: /etc/keyward/secrets
  readOnly: true
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  mountPath: /etc/keyward/tls
  readOnly: true
{{- end }}
{{- end -}}

{{- define "keyward.projectsSecrets" -}}
{{- if or .Values.auth.enabled (include "keyward.hasSentinels" .) }}yes{{ end -}}
{{- end -}}

{{/* The secrets and certificates as files. */}}
{{- define "keyward.volumes" -}}
{{- if include "keyward.projectsSecrets" . }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- if .Values.auth.enabled }}
      {{- include "keyward.secretSource" (dict "ref" (include "keyward.passwordRef" .) "path" "password") | nindent 6 }}
      {{- end }}
      {{- if include "keyward.hasSentinels" . }}
      {{- include "keyward.secretSource" (dict "ref" (include "keyward.clusterSecretRef" .) "path" "cluster-secret") | nindent 6 }}
      {{- end }}
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "keyward.tlsSecret" . }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.tls.certFilename }}, path: tls.crt}
      - {key: {{ .Values.tls.certKeyFilename }}, path: tls.key}
      - {key: {{ .Values.tls.certCAFilename }}, path: ca.crt}
{{- end }}
{{- end -}}

{{/* dict "root" "selector". */}}
{{- define "keyward.affinity" -}}
{{- $values := .root.Values -}}
{{- if $values.affinity -}}
{{ toYaml $values.affinity }}
{{- else if eq $values.podAntiAffinityPreset "hard" -}}
podAntiAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- .selector | nindent 10 }}
{{- else if eq $values.podAntiAffinityPreset "soft" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- .selector | nindent 12 }}
{{- end -}}
{{- end -}}

{{/*
Templates of volumes, which no API lets change: what a StatefulSet has already stays as it is, so that an upgrade never
fails of them. dict "name" "persistence" "old".
*/}}
{{- define "keyward.volumeClaims" -}}
{{- $had := ((.old.spec | default dict).volumeClaimTemplates | default list) -}}
{{- if and .old (ne (gt (len $had) 0) .persistence.enabled) -}}
{{- fail (printf "persistence.enabled of %s cannot be changed while it is there: `kubectl delete statefulset %s --cascade=orphan` first" .name .name) -}}
{{- end -}}
{{- if .persistence.enabled -}}
{{- $size := .persistence.size -}}
{{- $class := .persistence.storageClass -}}
{{- $modes := .persistence.accessModes -}}
{{- $annotations := .persistence.annotations -}}
{{- with $had -}}
{{- $claim := first . -}}
{{- $size = $claim.spec.resources.requests.storage -}}
{{- $class = hasKey $claim.spec "storageClassName" | ternary (default "-" $claim.spec.storageClassName) "" -}}
{{- $modes = $claim.spec.accessModes -}}
{{- $annotations = $claim.metadata.annotations | default dict -}}
{{- end -}}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata:
    name: data
    {{- with $annotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    accessModes:
      {{- toYaml $modes | nindent 6 }}
    {{- if eq $class "-" }}
    storageClassName: ""
    {{- else if $class }}
    storageClassName: {{ $class }}
    {{- end }}
    resources:
      requests:
        storage: {{ $size }}
{{- end -}}
{{- end -}}

{{/*
Fails if an upgrade asks for what the sentinels would not do: they settle the numbers when the shards form.
dict "shape" ("mode shards replicas sentinels name") "old" (the sentinels' ConfigMap).
*/}}
{{- define "keyward.checkShape" -}}
{{- with ((.old | default dict).metadata | default dict).annotations -}}
{{- with get . "keyward/shape" -}}
{{- $was := splitList " " . -}}
{{- $is := splitList " " $.shape -}}
{{- range $at, $value := list "mode" "shards" "replicas" "sentinels" "sentinel.primarySet" -}}
{{- $from := index $was $at -}}
{{- $to := index $is $at -}}
{{- if and (eq $value "sentinels") (lt (atoi $to) (atoi $from)) -}}
{{- fail (printf "sentinels: there are %s, and they cannot become fewer" $from) -}}
{{- else if and (ne $value "sentinels") (ne $from $to) -}}
{{- fail (printf "%s: it is %s, chosen when the shards formed, and cannot become %s; install a second release and move the data" $value $from $to) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What subcommands of keyward-sentinel need to be let in, a word on each line, behind an empty one. */}}
{{- define "keyward.operatorFlags" -}}
{{- if and .Values.tls.enabled .Values.tls.bus }}
--tls-cluster
yes
--tls-cert-file
/etc/keyward/tls/tls.crt
--tls-key-file
/etc/keyward/tls/tls.key
--tls-ca-cert-file
/etc/keyward/tls/ca.crt
{{- end }}
{{- end -}}

{{/* What is the same of all pods of tests; dict "root" "name". */}}
{{- define "keyward.testMetadata" -}}
{{- include "keyward.metadata" (dict
  "root" .root "component" "test" "name" .name
  "annotations" (dict "helm.sh/hook" "test" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded")) -}}
{{- end -}}
{{- define "keyward.testSpec" -}}
restartPolicy: Never
serviceAccountName: {{ include "keyward.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "keyward.securityContext" (dict "root" . "context" .Values.podSecurityContext) | nindent 2 }}
{{- with include "keyward.volumes" . }}
volumes:
  {{- . | trim | nindent 2 }}
{{- end }}
{{- end -}}
