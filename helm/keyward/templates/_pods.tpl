{{/*
Pods: what those of both components, and of tests, have in common. A component is "node" or "sentinel".
*/}}

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
{{- include "keyward.checkName" . -}}
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
            {{- toYaml (.values.resources | default dict) | nindent 12 }}
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

{{/*
Fails if the release has these pods under another name: they would be deleted, and empty ones take their place. dict "root"
"component" "name".
*/}}
{{- define "keyward.checkName" -}}
{{- $component := .component -}}
{{- $name := .name -}}
{{- $release := .root.Release.Name -}}
{{- range (lookup "apps/v1" "StatefulSet" .root.Release.Namespace "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $ours := and (eq (get $labels "app.kubernetes.io/instance") $release) (hasPrefix "keyward-" (get $labels "helm.sh/chart")) -}}
{{- if and $ours (eq (get $labels "app.kubernetes.io/component") $component) (ne .metadata.name $name) -}}
{{- fail (printf "nameOverride, fullnameOverride: this release has the pods of %s, and would get new ones without data by the name %s" .metadata.name $name) -}}
{{- end -}}
{{- end -}}
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

{{/* What is the same of all pods of tests; dict "root" "name". */}}
{{- define "keyward.testMetadata" -}}
{{- include "keyward.metadata" (dict
  "root" .root "component" "test" "name" .name
  "annotations" (dict "helm.sh/hook" "test" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded")) -}}
{{- end -}}

{{/* Of a pod that runs a program once; volumes come last, so that more may follow. */}}
{{- define "keyward.onceSpec" -}}
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
