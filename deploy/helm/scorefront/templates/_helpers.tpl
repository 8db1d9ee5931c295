{{- define "scorefront.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "scorefront.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "scorefront.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "scorefront.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "scorefront.selector" -}}
app.kubernetes.io/name: {{ include "scorefront.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "scorefront.labels" -}}
{{ include "scorefront.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "scorefront.serviceAccount" -}}
{{- default (ternary (include "scorefront.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "scorefront.tokenSecret" -}}
{{- default (printf "%s-admin" (include "scorefront.fullname" .)) .Values.admin.tokenSecretName }}
{{- end }}

{{- define "scorefront.clusterSecret" -}}
{{- default (printf "%s-cluster" (include "scorefront.fullname" .)) .Values.cluster.secretName }}
{{- end }}

{{/* Where Services are services by their labels; empty: nowhere. */}}
{{- define "scorefront.discoveredNamespace" -}}
{{- with .Values.discoverServices }}{{ default $.Release.Namespace .namespace }}{{ end }}
{{- end }}

{{- define "scorefront.modelNamespaces" -}}
{{- $discovered := include "scorefront.discoveredNamespace" . }}
{{- concat (.Values.modelNamespaces | default (list .Release.Namespace)) (list $discovered) | compact | uniq | sortAlpha | toJson }}
{{- end }}

{{/* Whether something before it has an address for callers, which this Service says. */}}
{{- define "scorefront.isBalanced" -}}
{{- if eq .Values.service.type "LoadBalancer" }}true{{ end }}
{{- end }}

{{/* scorefront.toml; strings are written as JSON has them, which is TOML as well. */}}
{{- define "scorefront.toml" -}}
include = ["service-*.toml"]

[frontend]
https = "0.0.0.0:8443"
{{- if .Values.http.enabled }}
http = "0.0.0.0:8080"
http_when_tls = {{ .Values.http.whenTls | toJson }}
{{- end }}
public_https_port = {{ .Values.service.httpsPort | int }}
{{- if .Values.http.enabled }}
public_http_port = {{ .Values.service.httpPort | int }}
{{- end }}
{{- with .Values.service.proxyProtocolFrom }}
proxy_protocol_from = {{ toJson . }}
{{- end }}
drain_grace = "{{ .Values.drain.graceSeconds | int }}s"
drain_timeout = "{{ .Values.drain.timeoutSeconds | int }}s"

[tls]
status = {{ .Values.tls.status | toJson }}
min_version = {{ .Values.tls.minVersion | toJson }}
{{- with .Values.tls.defaultCname }}
default_cname = {{ . | toJson }}
{{- end }}
{{- if .Values.tls.ticketKeysSecretName }}
ticket_keys = "secrets/ticket-keys"
{{- end }}

[admin]
listen = "0.0.0.0:8900"
token_file = "secrets/admin-token"
{{- if .Values.cluster.enabled }}

[cluster]
listen = "0.0.0.0:8444"
secret_file = "secrets/cluster"
kubernetes = { service = "{{ include "scorefront.fullname" . }}-peers", port = "peers" }
{{- end }}
{{- if or .Values.discoverServices (include "scorefront.isBalanced" .) }}

[kubernetes]
{{- if include "scorefront.isBalanced" . }}
front_end_service = { service = "{{ include "scorefront.fullname" . }}" }
{{- end }}
{{- with .Values.discoverServices }}
{{- $keys := list (printf "namespace = %s" (include "scorefront.discoveredNamespace" $ | toJson)) }}
{{- with .selector }}{{ $keys = append $keys (printf "selector = %s" (toJson .)) }}{{ end }}
{{- with .port }}{{ $keys = append $keys (printf "port = %s" (toJson .)) }}{{ end }}
{{- with .primaryKeySha256 }}{{ $keys = append $keys (printf "primary_key_sha256 = %s" (toJson .)) }}{{ end }}
{{- with .secondaryKeySha256 }}{{ $keys = append $keys (printf "secondary_key_sha256 = %s" (toJson .)) }}{{ end }}
discover_services = { {{ join ", " $keys }} }
{{- end }}
{{- end }}
{{- range .Values.cnames }}

[[cname]]
name = {{ .name | toJson }}
cert_pem = {{ printf "certs/%s/tls.crt" .secretName | toJson }}
key_pem = {{ printf "certs/%s/tls.key" .secretName | toJson }}
{{- if .clientCaSecretName }}
client_ca_pem = {{ printf "client-ca/%s/ca.crt" .clientCaSecretName | toJson }}
{{- end }}
{{- end }}
{{- with .Values.settings }}

{{ . | trim }}
{{- end }}
{{- end }}
