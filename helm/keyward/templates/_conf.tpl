{{/*
The conf files of both programs, and what they are computed from.
*/}}

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
  "port" "service.port" "http-port" "page.enabled" "forwarding-port" "forwarding.enabled" "forwarding-tls-port" "forwarding.enabled" -}}
{{- range splitList "\n" .lines -}}
{{- $name := lower (first (append (regexSplit "\\s+" (trim .) -1) "")) -}}
{{- if and $name (has $name $.own) -}}
{{- fail (printf "%s: %s is set by the chart%s" $.where $name (hasKey $instead $name | ternary (printf ": use %s" (get $instead $name)) "")) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fails if a node would be killed for its memory; dict "bytes" "limit" (as it is given) "lines" (of `config`). */}}
{{- define "keyward.checkMemory" -}}
{{- if lt (int64 .bytes) 67108864 -}}
{{- fail (printf "resources.limits.memory: %v is less than 64Mi, with which no node can work; is a unit missing?" .limit) -}}
{{- end -}}
{{- $units := dict "" 1 "b" 1 "k" 1000 "kb" 1024 "m" 1000000 "mb" 1048576 "g" 1000000000 "gb" 1073741824 -}}
{{- range splitList "\n" .lines -}}
{{- $words := regexSplit "\\s+" (lower (trim .)) -1 -}}
{{- if and (eq (first $words) "maxmemory") (eq (len $words) 2) (regexMatch "^[0-9]+(b|kb?|mb?|gb?)?$" (last $words)) -}}
{{- $number := regexFind "^[0-9]+" (last $words) -}}
{{- if lt (int64 $.bytes) (mul (int64 $number) (get $units (trimPrefix $number (last $words)))) -}}
{{- fail (printf "config: maxmemory %s is more than resources.limits.memory (%v), so nodes would be killed before they evict anything" (last $words) $.limit) -}}
{{- end -}}
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
  "forwarding-port" "forwarding-tls-port" "cluster-secret-file" "cluster-announce-ip" "cluster-announce-hostname" "cluster-preferred-endpoint-type" "tls-cert-file"
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
{{- if include "keyward.forwards" . }}
forwarding-{{ .Values.tls.enabled | ternary "tls-" "" }}port 6390
{{- end }}
metrics-port 9121
{{- if .Values.auth.enabled }}
requirepass-file /etc/keyward/secrets/password
{{- else }}
protected-mode no
{{- end }}
appendonly {{ .Values.persistence.enabled | ternary "yes" "no" }}
save ""
{{- with ((.Values.resources | default dict).limits | default dict).memory }}
{{- $bytes := include "keyward.bytes" (dict "quantity" . "name" "resources.limits.memory") | int64 }}
{{- include "keyward.checkMemory" (dict "bytes" $bytes "limit" . "lines" $more) }}
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
  "shards" "replicas" "primary-name" "cluster-secret-file" "tls-cert-file" "tls-key-file" "tls-ca-cert-file" "tls-cluster"
  "requirepass" "requirepass-file" -}}
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
{{- if and .Values.auth.enabled .Values.auth.sentinel }}
requirepass-file /etc/keyward/secrets/password
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
